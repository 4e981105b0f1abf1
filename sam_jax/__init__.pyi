# Every name of the package and its module: read by type checkers, and by exports.py,
# so that a module is imported when one of its names is used. A method has a file of its
# own name; by that rule `sam_jax.methods` finds it.

from sam_jax import checks as checks
from sam_jax import contrib as contrib
from sam_jax import methods as methods
from sam_jax import schedules as schedules
from sam_jax import sharpness as sharpness
from sam_jax import testing as testing
from sam_jax.loss_scale import LossScale as LossScale
from sam_jax.methods.adam_sam import adam_sam as adam_sam
from sam_jax.methods.ae_sam import ae_sam as ae_sam
from sam_jax.methods.asam import asam as asam
from sam_jax.methods.ascent import normalize as normalize
from sam_jax.methods.ascent import normalize_by_weights as normalize_by_weights
from sam_jax.methods.ascent import partially_normalize as partially_normalize
from sam_jax.methods.ascent import scale as scale
from sam_jax.methods.ascent import scale_by_weights as scale_by_weights
from sam_jax.methods.async_sam import async_sam as async_sam
from sam_jax.methods.averages import ema as ema
from sam_jax.methods.averages import subtract_ema as subtract_ema
from sam_jax.methods.bsam import bsam as bsam
from sam_jax.methods.cadence import every_k as every_k
from sam_jax.methods.cadence import late_phase as late_phase
from sam_jax.methods.cadence import stochastic as stochastic
from sam_jax.methods.cadence import when as when
from sam_jax.methods.calls import with_grad_fn as with_grad_fn
from sam_jax.methods.core import SharpnessAwareState as SharpnessAwareState
from sam_jax.methods.core import sharpness_aware as sharpness_aware
from sam_jax.methods.cr_sam import cr_sam as cr_sam
from sam_jax.methods.decoupled_wsam import decoupled_wsam as decoupled_wsam
from sam_jax.methods.devices import GROUP_AXIS as GROUP_AXIS
from sam_jax.methods.devices import pmean as pmean
from sam_jax.methods.dynamic_sparse_sam import dynamic_sparse_sam as dynamic_sparse_sam
from sam_jax.methods.eigen_sam import eigen_sam as eigen_sam
from sam_jax.methods.esam import esam as esam
from sam_jax.methods.extragradient import extragradient as extragradient
from sam_jax.methods.finite import apply_if_finite as apply_if_finite
from sam_jax.methods.fisher_sam import fisher_sam as fisher_sam
from sam_jax.methods.focal_sam import focal_sam as focal_sam
from sam_jax.methods.friendly_sam import friendly_sam as friendly_sam
from sam_jax.methods.functional_sam import functional_sam as functional_sam
from sam_jax.methods.functional_sam import (
    functional_value_and_grad as functional_value_and_grad,
)
from sam_jax.methods.gnp import gnp as gnp
from sam_jax.methods.gsam import gsam as gsam
from sam_jax.methods.le_sam import le_sam as le_sam
from sam_jax.methods.lookbehind import lookbehind as lookbehind
from sam_jax.methods.looksam import looksam as looksam
from sam_jax.methods.masks import norm_layers_mask as norm_layers_mask
from sam_jax.methods.masks import weights_mask as weights_mask
from sam_jax.methods.mistakes import check as check
from sam_jax.methods.momentum_sam import momentum_sam as momentum_sam
from sam_jax.methods.momentum_sam import (
    momentum_sam_eval_params as momentum_sam_eval_params,
)
from sam_jax.methods.multistep_sam import multistep_sam as multistep_sam
from sam_jax.methods.observations import Diagnostics as Diagnostics
from sam_jax.methods.observations import diagnostics as diagnostics
from sam_jax.methods.observations import perturbation_shares as perturbation_shares
from sam_jax.methods.observations import without_diagnostics as without_diagnostics
from sam_jax.methods.random_sam import random_sam as random_sam
from sam_jax.methods.sam import sam as sam
from sam_jax.methods.sam_sps import sam_sps as sam_sps
from sam_jax.methods.sampa import sampa as sampa
from sam_jax.methods.sampa import sampa_eval_params as sampa_eval_params
from sam_jax.methods.sparse_sam import sparse_sam as sparse_sam
from sam_jax.methods.stable_sam import stable_sam as stable_sam
from sam_jax.methods.unified_sam import unified_sam as unified_sam
from sam_jax.methods.usam import usam as usam
from sam_jax.methods.vasso import vasso as vasso
from sam_jax.methods.widths import normalize_by_fans as normalize_by_fans
from sam_jax.methods.widths import scale_by_fans as scale_by_fans
from sam_jax.methods.wsam import wsam as wsam

__version__: str
