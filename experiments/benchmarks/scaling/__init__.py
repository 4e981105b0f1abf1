"""How the trainer scales; see `experiments.benchmarks.scaling.__main__`."""
