"""SAM: rho of Foret et al. 2021 for CIFAR-10 (0.1 on CIFAR-100), section 3.1."""


def get_config():
    return {"rho": 0.05}
