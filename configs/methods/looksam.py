"""LookSAM: the best k and alpha of Liu et al. 2022 (k 10 is faster, a little worse)."""


def get_config():
    return {"rho": 0.05, "k": 5, "alpha": 0.7}
