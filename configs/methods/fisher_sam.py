"""Fisher SAM: gamma (rho here) and eta of Kim et al. 2022."""


def get_config():
    return {"rho": 0.1, "eta": 1.0}
