"""Lookbehind: the smallest k of Mordido et al. 2024 (2, 5 and 10), SAM's rho."""


def get_config():
    return {"rho": 0.05, "k": 2, "alpha": 0.5}
