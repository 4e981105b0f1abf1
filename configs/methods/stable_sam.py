"""Stable SAM, Tan et al. 2025: SAM's rho for CIFAR-10; it has nothing else to set."""


def get_config():
    return {"rho": 0.05}
