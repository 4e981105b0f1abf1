"""Asynchronous SAM: the delay of Jo et al. 2025, with SAM's rho for CIFAR-10."""


def get_config():
    return {"rho": 0.05, "delay": 1}
