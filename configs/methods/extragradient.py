"""Extragradient: our choice of rho; Khanh et al. 2024 analyse it without a value.

Their Theorem 4.2 asks for a rho below the inverse of the loss's smoothness constant.
"""


def get_config():
    return {"rho": 0.05}
