"""Finds the experiments: every module of a paper's folder that has a ``CLAIM``."""

import hashlib
import importlib
import pathlib
import pkgutil
from types import ModuleType

from experiments import theory
from sam_jax import errors

PAPERS = {
    "khanh": "Khanh, Luong, Mordukhovich, Tran: Fundamental Convergence Analysis of "
    "SAM (NeurIPS 2024)",
    "si_yun": "Si, Yun: Practical SAM Cannot Converge All the Way to Optima (NeurIPS "
    "2023)",
    "oikonomou": "Oikonomou, Loizou: SAM: General Analysis and Improved Rates (ICLR "
    "2025)",
    "beyond": "Beyond the papers: ours",
}


def names() -> list[str]:
    """All claims as ``paper/claim``, in the papers' order.

    Example:
        >>> "khanh/two_cycle" in names()
        True
    """
    return [f"{paper}/{claim}" for paper in PAPERS for claim in _claims(paper)]


def _claims(paper: str) -> list[str]:
    package = importlib.import_module(f"{theory.__name__}.{paper}")
    found = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return sorted(name for name in found if not name.startswith("_"))


def load(name: str) -> ModuleType:
    """The module of a claim: its ``CLAIM`` and ``run(quick) -> Outcome``.

    Raises:
        UserError: if there is no claim with this name.
    """
    if name not in names():
        raise errors.UserError(errors.unknown("claim", name, names()))
    return importlib.import_module(f"{theory.__name__}.{name.replace('/', '.')}")


def code(name: str) -> str:
    """The start of the hash of a claim's source.

    The results contain it too. If the two differ, the claim must be run again.
    """
    source = pathlib.Path(theory.__path__[0], f"{name}.py").read_bytes()
    return hashlib.sha256(source).hexdigest()[:16]


def select(patterns: list[str]) -> list[str]:
    """The claims that the patterns select: names, papers, or ``all``.

    Args:
        patterns: the user's input.

    Returns:
        Names, each once, in the catalog's order.

    Raises:
        UserError: if one of them is neither.

    Example:
        >>> select(["khanh/two_cycle"])
        ['khanh/two_cycle']
        >>> set(select(["khanh"])) <= set(select(["all"]))
        True
    """
    known = names()
    chosen: set[str] = set()
    for pattern in patterns:
        if pattern == "all":
            meant = known
        elif pattern in PAPERS:
            meant = [name for name in known if name.startswith(f"{pattern}/")]
        else:
            meant = [name for name in known if name == pattern]
        if not meant:
            valid = ["all", *PAPERS, *known]
            raise errors.UserError(errors.unknown("claim", pattern, valid))
        chosen |= set(meant)
    return [name for name in known if name in chosen]
