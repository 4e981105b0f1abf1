"""Multi-step SAM: rho of Foret et al. 2021 for CIFAR-10, with one step more."""


def get_config():
    return {"rho": 0.05, "steps": 2}
