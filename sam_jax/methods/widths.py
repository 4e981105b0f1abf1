"""Perturbations and steps that scale with the width of a network, layer by layer."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import ascent, numerics, trees

# A number for each output, whatever its shape: no matrix.
_VECTOR = re.compile(r"(?i)(bias|scale)$")
# Embeddings: an input is a row, picked, not a sum over all of them.
_ROWS = re.compile(r"(?i)(embeddings?|positions|token)$")
# Projections of attention, whose kernels are [inputs, heads, channels of a head].
_PROJECTION = re.compile(r"(?i)(query|key|value)/kernel$")


def fans(path: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Inputs and outputs of a layer, from the name and the shape of its array.

    The last axis of an array are its outputs and the others its inputs, as those of
    kernels in Flax and Haiku: ``[in, out]``, ``[height, width, in, out]``. A vector, a
    bias, the scale of a normalization and an embedding have one input; the projections
    to query, key and value have all axes but the first as outputs.

    Args:
        path: names of the array, joined by ``/``.
        shape: of the array.

    Returns:
        Numbers of inputs and outputs, at least 1.

    Example:
        >>> fans("Dense_0/kernel", (784, 64)), fans("Dense_0/bias", (64,))
        ((784, 64), (1, 64))
        >>> fans("MultiHeadDotProductAttention_0/query/kernel", (8, 2, 4))
        (8, 8)
    """
    inputs, outputs = shape[:-1], shape[-1:]
    if len(shape) < 2 or _VECTOR.search(path):
        inputs, outputs = (), shape
    elif _ROWS.search(path):
        inputs = ()
    elif _PROJECTION.search(path):
        inputs, outputs = shape[:1], shape[1:]
    return max(1, math.prod(inputs)), max(1, math.prod(outputs))


def normalize_by_fans(
    base: Any = None, *, eps: float = 1e-12
) -> optax.GradientTransformation:
    r"""The steepest ascent in a ball scaled by the width: :math:`T^2 g/\|T g\|`.

    :math:`T_l^2 = n_{out} / n_{in}` of each array, see `fans`. A perturbation then
    changes the outputs of every layer by the same amount at any width: it scales as the
    updates of the maximal update parametrization do. In a wide network, `normalize`
    would perturb only the last layers.

    Args:
        base: arrays, or their shapes, of the same network in the width at which this is
            to be `normalize`, as ``jax.eval_shape`` gives them; None for fans of one.
        eps: floor of the norm, >= 0.

    Returns:
        A stateless transformation.

    Raises:
        ValueError: if ``eps`` is negative, infinite or NaN; by the update, if the base
            lacks an array.

    Example:
        >>> grads = {"in": jnp.ones((1, 4)), "out": jnp.ones((4, 1))}
        >>> block = normalize_by_fans()
        >>> for name, x in block.update(grads, block.init(grads))[0].items():
        ...     print(name, f"{x[0, 0]:.2f}")  # 4 and 1/4, over sqrt(4 * 4 + 4 / 4)
        in 0.97
        out 0.06

    References:
        Haas, Xu, Cevher, Vankadara, "Effective Sharpness Aware Minimization Requires
        Layerwise Perturbation Scaling", NeurIPS 2024, `2411.00075
        <https://arxiv.org/abs/2411.00075>`_: the condition, from which the formula is
        derived; Yang, Simon, Bernstein, "A Spectral Condition for Feature Learning",
        2023, `2310.17813 <https://arxiv.org/abs/2310.17813>`_: the sizes.
    """
    checks.nonnegative("eps", eps)

    def climb(updates: Any, params: Any) -> Any:
        del params
        axes = jax.tree.map(
            lambda g, ratio: jnp.full_like(numerics.wide(g), math.sqrt(ratio)),
            *(updates, _ratios(updates, base)),
        )
        return ascent.steepest(updates, axes, eps)

    return optax.stateless(climb)


def scale_by_fans(base: Any = None) -> optax.GradientTransformation:
    r"""Multiplies by :math:`n_{out} / n_{in}`: learning rates that scale with width.

    Behind `optax.sgd`, those of the maximal update parametrization. The last layer then
    starts at zero, or smaller in proportion. A first kernel with fan-out
    initialization, as in the stems of `sam_jax.models`, starts larger by the root of
    the width: the norm behind it would multiply its steps by the width once more.

    Args:
        base: as in `normalize_by_fans`.

    Returns:
        A stateless transformation.

    Example:
        >>> block, w = scale_by_fans(), {"kernel": jnp.ones((4, 2))}
        >>> print(block.update(w, block.init(w))[0]["kernel"][0])
        [0.5 0.5]
    """
    return optax.stateless(
        lambda updates, _: jax.tree.map(
            numerics.multiply, updates, _ratios(updates, base)
        )
    )


def _ratios(tree: Any, base: Any) -> Any:
    """n_out / n_in of every array, over that of the base."""
    # By path, for a mask leaves holes in the tree.
    shapes = {path: x.shape for path, x in jax.tree_util.tree_leaves_with_path(base)}

    def ratio(path: Any, x: Any) -> float:
        name = trees.name_of(path)
        inputs, outputs = fans(name, x.shape)
        if base is None:
            return outputs / inputs
        if path not in shapes:
            raise checks.BadValue(
                "base must be the params of the same network in another width, as "
                f"jax.eval_shape gives them; it has nothing at {name!r}"
            )
        base_inputs, base_outputs = fans(name, shapes[path])
        return (outputs / base_outputs) / (inputs / base_inputs)

    return jax.tree_util.tree_map_with_path(ratio, tree)
