"""Trajectories: an Optax chain on a problem, one compiled loop, ready for ``vmap``."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_jax.methods import observations
from sam_jax.theory import finite_sums, problems, sampling

# (key of the trajectory, number of updates done) -> the loss whose gradient the method
# is given, and the loss of which it takes further gradients. They are the same unless
# the ascent sees other examples than the descent.
Oracle = Callable[[jax.Array, jax.Array], tuple[problems.Value, problems.Value]]
Measure = Callable[[jax.Array], Any]  # x [d] -> pytree of arrays

# An update count that no run reaches: the key that is folded with it is the methods',
# so that what they draw has nothing to do with which examples are drawn.
_METHOD_STREAM = 2**32 - 1


class Trace(NamedTuple):
    """The record of a trajectory.

    Attributes:
        x: the last iterate, [d].
        recorded: pytree of ``record``, each leaf with a leading axis for the
            checkpoints.
        means: pytree of ``mean_of`` likewise: the mean over all iterates *before* the
            checkpoint; at checkpoint 0, that of the start.
    """

    x: jax.Array
    recorded: Any
    means: Any


def exact(problem: problems.Problem) -> Oracle:
    """Full gradients."""
    return lambda key, count: (problem.value, problem.value)


def same_sample(problem: finite_sums.FiniteSum, scheme: sampling.Sampling) -> Oracle:
    """One sample per step for both gradients: m-SAM, as in mini-batch training.

    Raises:
        ValueError: if the sampling is that of a sum of another size.
    """
    sampling.check_size(scheme, problem)
    return _both(
        problem, lambda key, count: scheme.draw(jax.random.fold_in(key, count))
    )


def full_ascent(problem: finite_sums.FiniteSum, scheme: sampling.Sampling) -> Oracle:
    """All components for the ascent, a sample for the descent: n-SAM."""
    sampled = same_sample(problem, scheme)
    return lambda key, count: (problem.value, sampled(key, count)[1])


def reshuffled(problem: finite_sums.FiniteSum) -> Oracle:
    """Single components in an order drawn for each epoch, for both gradients."""

    def draw(key: jax.Array, count: jax.Array) -> sampling.Sample:
        epoch, place = count // problem.size, count % problem.size
        order = jax.random.permutation(jax.random.fold_in(key, epoch), problem.size)
        return sampling.Sample(
            jax.lax.dynamic_slice(order, (place,), (1,)), jnp.ones(1)
        )

    return _both(problem, draw)


def _both(
    problem: finite_sums.FiniteSum,
    draw: Callable[[jax.Array, jax.Array], sampling.Sample],
) -> Oracle:
    def oracle(key: jax.Array, count: jax.Array):
        rows, weights = draw(key, count)

        def loss(x: jax.Array) -> jax.Array:
            return jnp.sum(weights * problem.component_values(x, rows))

        return loss, loss

    return oracle


def descend(
    tx: optax.GradientTransformation,
    oracle: Oracle,
    start: jax.typing.ArrayLike,
    checkpoints: Sequence[int] | np.ndarray,
    *,
    record: Measure,
    mean_of: Measure | None = None,
    key: jax.Array | None = None,
    weights: Callable[[optax.OptState, Any], jax.Array] = lambda state, x: x,
) -> Trace:
    """Runs a chain from a start and measures it at some of its updates.

    A pure function of arrays: put it into ``jax.jit`` (the loop compiles once, however
    many checkpoints there are) and ``jax.vmap`` it over starts, keys and coefficients.
    A trajectory that diverges continues with infinities and NaN.

    Args:
        tx: the chain, such as ``optax.chain(sam_jax.sam(rho), optax.sgd(gamma))``.
        oracle: which losses the method sees in each update.
        start: x_0, [d].
        checkpoints: numbers of updates after which to measure, increasing, from 0.
        record: measured at each checkpoint, x -> pytree.
        mean_of: averaged over the iterates x_0 .. x_{t-1}, x -> pytree of arrays.
        key: of the random numbers; needed by stochastic oracles.
        weights: the point to measure, a function of the state and the parameters, such
            as `sam_jax.sampa_eval_params`; by default the parameters.

    Returns:
        The last iterate and the measurements.

    Raises:
        ValueError: if the checkpoints are not increasing integers from 0 on.

    Example:
        >>> import sam_jax
        >>> problem = problems.quadratic([1.0], [1.0])
        >>> tx = optax.chain(sam_jax.sam(0.1), optax.sgd(0.1))
        >>> trace = descend(
        ...     tx, exact(problem), problem.start, [0, 1, 2], record=problem.gap
        ... )
        >>> print(trace.recorded.round(4))
        [0.5    0.396  0.3128]
    """
    ends = np.asarray(checkpoints)
    lengths = np.diff(np.atleast_1d(ends), prepend=0)
    whole = ends.ndim == 1 and ends.size > 0 and np.issubdtype(ends.dtype, np.integer)
    if not whole or ends[0] < 0 or not (lengths[1:] > 0).all():
        raise ValueError(
            f"checkpoints must be increasing integers from 0 on, got {checkpoints!r}"
        )
    tx = observations.without_diagnostics(tx)  # nobody reads them here
    key = jax.random.key(0) if key is None else key
    method_key = jax.random.fold_in(key, np.uint32(_METHOD_STREAM))
    measured = (lambda x: ()) if mean_of is None else mean_of
    x = jnp.asarray(start, float)

    def update(_: jax.Array, carry: Any) -> Any:
        count, x, state, sums = carry
        sums = jax.tree.map(jnp.add, sums, measured(weights(state, x)))
        given, further = oracle(key, count)
        value, grads = jax.value_and_grad(given)(x)
        updates, state = tx.update(
            grads,
            state,
            x,
            value=value,
            grad_fn=jax.grad(further),
            value_and_grad_fn=jax.value_and_grad(further),
            key=jax.random.fold_in(method_key, count),
        )
        return count + 1, optax.apply_updates(x, updates), state, sums

    def segment(carry: Any, length: jax.Array) -> tuple[Any, Any]:
        carry = jax.lax.fori_loop(0, length, update, carry)
        count, x, state, sums = carry
        x, seen = weights(state, x), jnp.maximum(count, 1)
        means = jax.tree.map(
            lambda total, now: jnp.where(count == 0, now, total / seen),
            sums,
            measured(x),
        )
        return carry, (record(x), means)

    zeros = jax.tree.map(jnp.zeros_like, measured(x))
    carry = jnp.zeros([], int), x, tx.init(x), zeros
    carry, (recorded, means) = jax.lax.scan(segment, carry, jnp.asarray(lengths))
    _, x, state, _ = carry
    return Trace(weights(state, x), recorded, means)


def geometric(steps: int, count: int = 60) -> np.ndarray:
    """Checkpoints 0, 1, .. ``steps``, evenly spaced on a logarithmic axis.

    Example:
        >>> print(geometric(1000, 4))
        [   0    1   10  100 1000]
    """
    return np.unique(np.r_[0, np.geomspace(1, steps, count).round().astype(int)])
