"""SSAM-F: sparsity and samples of the authors' code, Mi et al. 2022.

Its mask is renewed once per epoch; at batch 128 an epoch of CIFAR-10 has 390 updates.
The samples must not be more than the examples of a batch.
"""


def get_config():
    return {"rho": 0.1, "sparsity": 0.5, "num_samples": 16, "every": 390}
