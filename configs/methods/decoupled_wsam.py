"""WSAM, decoupled: the defaults of the authors' code, Yue et al. 2023."""


def get_config():
    return {"rho": 0.05, "gamma": 0.9}
