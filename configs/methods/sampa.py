"""SAMPa-0.2: radius and lambda of the authors' code, Xie et al. 2024, for CIFAR."""


def get_config():
    return {"rho": 0.1, "lam": 0.2}
