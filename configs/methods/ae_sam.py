"""AE-SAM, Jiang et al. 2023: SAM where the gradient is larger than on average.

The paper lets the threshold fall linearly during training.
"""


def get_config():
    return {"rho": 0.05, "threshold": 0.0, "delta": 0.9}
