"""Functional SAM, Singh et al. 2025: SAM's rho for CIFAR-10.

The paper's own experiments are on language models.
"""


def get_config():
    return {"rho": 0.05}
