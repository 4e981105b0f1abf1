"""CR-SAM: the values of the authors' code, Wu et al. 2024."""


def get_config():
    return {"rho": 0.1, "gamma": 0.1, "beta": 0.1}
