"""USAM: the better rho of lambda = 0 in Table 2 of Oikonomou and Loizou 2025.

WRN-28-10 on CIFAR-10, 95.80 +- .05 % (README of the authors' package).
"""


def get_config():
    return {"rho": 0.2}
