"""LE-SAM: sigma and the largest radius of the README of Wang et al. 2026's code.

CIFAR-100, ResNet-18; sigma there warms up for 10 epochs, and falls to 0 in the last 40.
"""


def get_config():
    return {"rho": 999.0, "sigma": 0.35}
