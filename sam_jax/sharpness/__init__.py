"""How sharp a loss is around some parameters: curvature, worst case, landscape.

Every function takes a pure scalar loss ``loss(params)``, or ``loss(params, batch)``
with ``batches``, over which it is averaged, so that the number of examples is not
bounded by memory. Loops run on the host, around compiled steps.
"""

from sam_jax.sharpness.ascent import AscentStep as AscentStep
from sam_jax.sharpness.ascent import ascent_step as ascent_step
from sam_jax.sharpness.ascent import sam_edge as sam_edge
from sam_jax.sharpness.ball import average_case as average_case
from sam_jax.sharpness.ball import m_sharpness as m_sharpness
from sam_jax.sharpness.ball import worst_case as worst_case
from sam_jax.sharpness.landscape import between as between
from sam_jax.sharpness.landscape import landscape as landscape
from sam_jax.sharpness.landscape import path as path
from sam_jax.sharpness.landscape import random_direction as random_direction
from sam_jax.sharpness.landscape import trajectory as trajectory
from sam_jax.sharpness.probes import diagonal as diagonal
from sam_jax.sharpness.probes import frobenius_norm as frobenius_norm
from sam_jax.sharpness.probes import trace as trace
from sam_jax.sharpness.products import Compiled as Compiled
from sam_jax.sharpness.products import Composed as Composed
from sam_jax.sharpness.products import gauss_newton_product as gauss_newton_product
from sam_jax.sharpness.products import hessian_product as hessian_product
from sam_jax.sharpness.products import normalized_logits as normalized_logits
from sam_jax.sharpness.spectrum import density as density
from sam_jax.sharpness.spectrum import top_eigenvalues as top_eigenvalues
