"""Adam with a preconditioned perturbation: radius and moments are ours.

The radius of Singh et al. 2025 is not known to us. Its learning rate is Adam's:
``--config.learning_rate=1e-3``.
"""


def get_config():
    return {"rho": 0.05, "b1": 0.9, "b2": 0.999}
