"""Gradient norm penalty: r (rho here) and alpha of the authors' recipes.

WRN-28-10 on CIFAR-10, batch 256, 200 epochs (zhaoyang-0204/gnp, Zhao et al. 2022).
"""


def get_config():
    return {"rho": 0.1, "alpha": 0.8}
