"""Eigen-SAM: the values of the authors' code, Luo et al. 2024."""


def get_config():
    return {"rho": 0.1, "alpha": 0.2, "every": 100, "power_steps": 5}
