"""SSAM-D: sparsity and drop rate of the authors' code, Mi et al. 2022.

Its mask is renewed once per epoch; at batch 128 an epoch of CIFAR-10 has 390 updates.
The paper's drop rate decays to 0 along a cosine.
"""


def get_config():
    return {"rho": 0.1, "sparsity": 0.5, "drop_rate": 0.5, "every": 390}
