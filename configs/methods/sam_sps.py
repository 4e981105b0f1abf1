"""SAM-SPS: defaults of the authors' package, Oikonomou and Loizou 2026.

Its cap of the step size, the learning rate, is 1, its weight decay 5e-4.
"""


def get_config():
    return {"rho": 0.1, "lam": 1.0, "f_min": 0.0}
