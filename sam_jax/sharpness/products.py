"""Products of a curvature matrix with a vector, and means over batches."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from sam_jax import checks
from sam_jax.methods import numerics

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


class Compiled:
    """A loss that keeps its compiled programs, to be measured more than once.

    Every function here takes one in the place of the loss; a plain loss is compiled
    again by each call. What changes between two measurements is an argument: the
    parameters, or a part of the batch.

    Args:
        loss: ``loss(params, *batch)``, or a `Composed`.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = Compiled(lambda w: jnp.sum(w**2))
        >>> for w in (jnp.ones(2), jnp.zeros(2)):  # compiled once
        ...     print(loss(w), hessian_product(loss, w, jnp.ones(2)))
        2.0 [2. 2.]
        0.0 [2. 2.]
    """

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        self._programs: dict[Any, Callable[..., Any]] = {}

    @classmethod
    def of(cls, loss: Loss) -> "Compiled":
        """The loss, if it is one already, or a new one."""
        return loss if isinstance(loss, cls) else cls(loss)

    def __call__(self, params: Any, *batch: Any) -> jax.Array:
        """The loss at the parameters."""
        return self.program(_value)(params, *batch)

    def program(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function(loss, *args)`` as a compiled function of the args."""
        if function not in self._programs:
            self._programs[function] = jax.jit(functools.partial(function, self.loss))
        return self._programs[function]


def _value(loss: Loss, params: Any, *batch: Any) -> jax.Array:
    return loss(params, *batch)


def normalized_logits(logits: jax.Array) -> jax.Array:
    """Logits of mean zero and length one, for each example.

    A loss of them does not fall where the weights merely grow.

    Args:
        logits: [..., classes].

    Returns:
        The same shape; zeros where all are equal.

    References:
        Andriushchenko and others, ICML 2023, `2302.07011
        <https://arxiv.org/abs/2302.07011>`_, section 3

    Example:
        >>> import jax.numpy as jnp
        >>> print(normalized_logits(jnp.array([1.0, 3.0])).round(3))
        [-0.707  0.707]
    """
    centred = logits - logits.mean(-1, keepdims=True)
    square = jnp.sum(centred**2, -1, keepdims=True)
    return centred / jnp.sqrt(jnp.maximum(square, 1e-20))


def like(tree: Any, params: Any) -> Any:
    """A tree in the dtypes of the parameters."""
    return jax.tree.map(lambda v, w: v.astype(w.dtype), tree, params)


def checked(loss: Loss, params: Any, batches: Iterable[Any] | None) -> Compiled:
    """Refuses what is not a real loss of these parameters, and batches that end.

    Returns:
        The loss, `Compiled`.

    Raises:
        ValueError: if the loss is not a finite scalar, there are no parameters, or
            ``batches`` is empty or can be gone through only once.
    """
    if not jax.tree.leaves(params):
        raise checks.BadValue("params have no arrays, so there is nothing to measure")
    if batches is not None and isinstance(batches, Iterator):
        raise checks.BadValue(
            "batches must be iterable more than once, as a list is; an iterator or "
            "generator is empty after the first time"
        )
    first = () if batches is None else list(itertools.islice(batches, 1))
    if batches is not None and not first:
        raise checks.BadValue("batches are empty, there is nothing to measure on")
    loss = Compiled.of(loss)
    shape = jnp.shape(jax.eval_shape(loss, params, *first))
    if shape != ():
        raise checks.BadValue(
            f"the loss must be a scalar, got an array of shape {shape}: take its mean"
        )
    value = mean_over(batches, loss)(params)
    finite("the loss", value)
    return loss


def finite(what: str, value: Any) -> Any:
    """Refuses a number that is NaN or infinite; a traced one passes.

    Raises:
        ValueError: saying what is not finite.
    """
    if not isinstance(value, jax.core.Tracer) and not np.all(np.isfinite(value)):
        raise checks.BadValue(
            f"{what} is {float(value)}: there is no sharpness at these parameters"
        )
    return value


def mean_over(
    batches: Iterable[Any] | None, function: Callable[..., Any]
) -> Callable[..., Any]:
    """A function of arrays and a batch as one of the arrays alone.

    Args:
        batches: None, or batches, trees of arrays; the first axis of the first array is
            the examples'.
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

    def mean(*args: Any) -> Any:
        total, part, count = None, None, 0
        for batch in batches:
            examples = jax.tree.leaves(batch)[0].shape[0]
            part = function(*args, batch)
            if total is None:
                total = jax.tree.map(lambda x: jnp.zeros_like(numerics.wide(x)), part)
            total = _add(total, part, examples)
            count += examples
        return _divided(total, count, part)

    return mean


@jax.jit
def _add(total: Any, part: Any, examples: Any) -> Any:
    return jax.tree.map(lambda t, x: t + examples * x.astype(t.dtype), total, part)


@jax.jit
def _divided(total: Any, count: Any, part: Any) -> Any:
    return jax.tree.map(
        lambda t, x: (t / count).astype(jnp.result_type(x, 1.0)), total, part
    )
