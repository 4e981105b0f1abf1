"""GSAM: rho of SAM for CIFAR-10, alpha of the authors' code, Zhuang et al. 2022.

Their radius follows the learning rate (``schedules.tied_to``); for ViT-B/32 on ImageNet
they use alpha 0.6 and a radius between 0.1 and 0.6.
"""


def get_config():
    return {"rho": 0.05, "alpha": 0.4}
