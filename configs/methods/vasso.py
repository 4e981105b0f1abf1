"""VaSSO: theta of the authors' code, Li and Giannakis 2023.

The code's rho for CIFAR-100 is 0.2 (WRN-28-10, learning rate 0.1, weight decay 1e-3).
"""


def get_config():
    return {"rho": 0.05, "theta": 0.9}
