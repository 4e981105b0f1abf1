"""Sharpness-aware minimization (SAM) for JAX.

Every method is an Optax transformation from the gradient at the weights to the
direction to descend::

    tx = optax.chain(sam_jax.sam(rho=0.05), optax.sgd(0.1, momentum=0.9))
    updates, state = tx.update(grads, state, params, grad_fn=grad_fn)

Importing this package needs jax and optax only; the trainer (``sam_jax.main``) needs
the extra ``pip install "sam_jax[train]"``.
"""

from sam_jax import schedules as schedules
from sam_jax.methods.ascent import normalize as normalize
from sam_jax.methods.ascent import partially_normalize as partially_normalize
from sam_jax.methods.ascent import scale as scale
from sam_jax.methods.averages import ema as ema
from sam_jax.methods.averages import subtract_ema as subtract_ema
from sam_jax.methods.cadence import every_k as every_k
from sam_jax.methods.cadence import late_phase as late_phase
from sam_jax.methods.cadence import stochastic as stochastic
from sam_jax.methods.cadence import when as when
from sam_jax.methods.core import Diagnostics as Diagnostics
from sam_jax.methods.core import SharpnessAwareState as SharpnessAwareState
from sam_jax.methods.core import diagnostics as diagnostics
from sam_jax.methods.core import pmean as pmean
from sam_jax.methods.core import sharpness_aware as sharpness_aware
from sam_jax.methods.core import with_grad_fn as with_grad_fn
from sam_jax.methods.sam import sam as sam
from sam_jax.methods.unified_sam import unified_sam as unified_sam
from sam_jax.methods.usam import usam as usam
from sam_jax.methods.vasso import vasso as vasso

__version__ = "0.1.0"
