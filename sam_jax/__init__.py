"""Sharpness-aware minimization (SAM) for JAX.

Every method is an Optax transformation from the gradient at the weights to the
direction to descend::

    tx = optax.chain(sam_jax.sam(rho=0.05), optax.sgd(0.1, momentum=0.9))
    updates, state = tx.update(grads, state, params, grad_fn=grad_fn)

Importing this package needs jax and optax only; the trainer (``sam_jax.main``) needs
the extra ``pip install "sam_jax[train]"``.
"""

import importlib
from typing import Any

from sam_jax import exports

__version__ = "0.1.0"

# Other things under these names are Optax's, which a star must not replace.
_ALSO_OF_OPTAX = {"apply_if_finite", "contrib", "ema", "scale", "schedules"}
__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]
    name for name in exports.MODULES if name not in _ALSO_OF_OPTAX
]


# Importing a method imports JAX, which takes a second: not before one is used.
def __getattr__(name: str) -> Any:
    if name not in exports.MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = exports.MODULES[name]
    if module == __name__:
        value = importlib.import_module(f"{module}.{name}")
    else:
        value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*exports.MODULES, "__version__"})
