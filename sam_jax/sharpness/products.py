"""Products of a curvature matrix with a vector, and means over batches."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from sam_jax import checks

# loss(params) or loss(params, batch) -> scalar.
Loss = Callable[..., jax.Array]
# (loss, params, vector, *batch) -> a vector, both trees like params.
Product = Callable[..., Any]


def hessian_product(loss: Loss, params: Any, vector: Any, *batch: Any) -> Any:
    r"""The product :math:`\nabla^2 L(w)\, v`, forward over reverse: two gradients.

    Args:
        loss: ``loss(params, *batch)``, a scalar.
        params: the parameters w.
        vector: v, a tree like ``params``.
        *batch: nothing, or a batch.

    Returns:
        A tree like ``params``.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = lambda w: w[0] ** 2 * w[1]
        >>> print(hessian_product(loss, jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0])))
        [4. 2.]
    """
    return jax.jvp(lambda p: jax.grad(loss)(p, *batch), (params,), (vector,))[1]


@dataclasses.dataclass(frozen=True)
class Composed:
    """A loss of a network's outputs, for `gauss_newton_product`.

    Attributes:
        outputs: ``(params, *batch) -> outputs``, a tree of arrays.
        of_outputs: ``(outputs, *batch) -> loss``, a scalar, convex in the outputs.
    """

    outputs: Callable[..., Any]
    of_outputs: Callable[..., jax.Array]

    def __call__(self, params: Any, *batch: Any) -> jax.Array:
        """The loss at the parameters."""
        return self.of_outputs(self.outputs(params, *batch), *batch)


def gauss_newton_product(loss: Composed, params: Any, vector: Any, *batch: Any) -> Any:
    r"""The product :math:`J^\top \nabla^2_z \ell(z)\, J v` of a loss of outputs z.

    The network is never differentiated forwards, which not all of them allow: ``J v``
    is the transposed of the transposed.

    Args:
        loss: a `Composed`.
        params: the parameters w.
        vector: v, a tree like ``params``.
        *batch: nothing, or a batch.

    Returns:
        A tree like ``params``.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = Composed(lambda w: w**2, lambda z: jnp.sum(z**2) / 2)
        >>> print(gauss_newton_product(loss, jnp.array([3.0]), jnp.array([1.0])))
        [36.]
    """
    if not isinstance(loss, Composed):
        raise checks.BadValue(
            "the Gauss-Newton matrix is that of a loss of outputs: give "
            "sharpness.Composed(outputs, of_outputs) in the place of the loss"
        )
    outputs, transposed = jax.vjp(lambda p: loss.outputs(p, *batch), params)
    zeros = jax.tree.map(jnp.zeros_like, outputs)
    _, forward = jax.vjp(lambda u: transposed(u)[0], zeros)
    (change,) = forward(vector)
    curved = hessian_product(loss.of_outputs, outputs, change, *batch)
    return transposed(curved)[0]


def like(tree: Any, params: Any) -> Any:
    """A tree in the dtypes of the parameters."""
    return jax.tree.map(lambda v, w: v.astype(w.dtype), tree, params)


def checked(loss: Loss, params: Any, batches: Iterable[Any] | None) -> None:
    """Refuses what is no real loss of these parameters, and batches that end.

    Raises:
        ValueError: if the loss is no finite scalar on the first batch, there are no
            parameters, or ``batches`` is empty or can be gone through only once.
    """
    if not jax.tree.leaves(params):
        raise checks.BadValue("params have no arrays, so there is nothing to measure")
    if batches is not None and isinstance(batches, Iterator):
        raise checks.BadValue(
            "batches must be iterable again and again, as a list is; an iterator or "
            "generator is empty after the first time"
        )
    first = next(iter(batches), None) if batches is not None else ()
    if first is None:
        raise checks.BadValue("batches are empty, there is nothing to measure on")
    value = jax.jit(loss)(params, *([first] if batches is not None else []))
    if jnp.shape(value) != ():
        raise checks.BadValue(
            f"the loss must be a scalar, got an array of shape {jnp.shape(value)}: "
            "take its mean"
        )
    if not isinstance(value, jax.core.Tracer) and not jnp.isfinite(value):
        raise checks.BadValue(
            f"the loss is {float(value)} at the parameters: there is no sharpness there"
        )


def mean_over(
    batches: Iterable[Any] | None, function: Callable[..., Any]
) -> Callable[..., Any]:
    """A function of arrays and a batch as one of the arrays alone.

    Args:
        batches: None, or batches, trees of arrays whose first axis is the examples'.
        function: ``(*args, batch) -> tree``, compiled; without batches ``(*args) ->
            tree``.

    Returns:
        ``(*args) -> tree``, the mean over the examples of all batches. One batch is in
        memory at a time.

    Example:
        >>> import jax.numpy as jnp
        >>> batches = [jnp.array([1.0, 2.0]), jnp.array([6.0])]
        >>> print(mean_over(batches, lambda w, x: w * jnp.mean(x))(jnp.array(1.0)))
        3.0
    """
    if batches is None:
        return function

    @jax.jit
    def add(total: Any, part: Any, examples: Any) -> Any:
        return jax.tree.map(lambda t, x: t + examples * x, total, part)

    def mean(*args: Any) -> Any:
        total, count = None, 0
        for batch in batches:
            examples = jax.tree.leaves(batch)[0].shape[0]
            part = function(*args, batch)
            if total is None:
                total = jax.tree.map(jnp.zeros_like, part)
            total = add(total, part, examples)
            count += examples
        return jax.tree.map(lambda x: x / count, total)

    return mean
