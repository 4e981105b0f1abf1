"""Random SAM (Liu et al. 2022): our choice, the paper's values are not known to us.

The radius is SAM's on CIFAR-10; the noise is 1 % of a filter's norm in every weight.
"""


def get_config():
    return {"rho": 0.05, "sigma": 0.01, "lam": 1.0}
