"""Lookbehind: SAM's rho and k = 2, the cheapest; alpha halves the way.

Mordido et al. 2024 publish tables over k and alpha; no single value is theirs.
"""


def get_config():
    return {"rho": 0.05, "k": 2, "alpha": 0.5}
