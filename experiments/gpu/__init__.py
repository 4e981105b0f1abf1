"""A queue of jobs for the minutes on a GPU; ``python -m experiments.gpu``."""
