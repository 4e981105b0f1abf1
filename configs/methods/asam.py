"""ASAM: rho of Kwon et al. 2021 for CIFAR-10 (1.0 on CIFAR-100), and their eta."""


def get_config():
    return {"rho": 0.5, "eta": 0.01}
