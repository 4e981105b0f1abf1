"""ESAM: rho, beta and gamma for CIFAR of Du et al. 2022."""


def get_config():
    return {"rho": 0.05, "beta": 0.6, "gamma": 0.5}
