"""The claims' runs: a method in many settings and chains, one compiled call each."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from sam_jax.theory import descent, finite_sums, problems, sampling

AnyProblem = TypeVar("AnyProblem", bound=problems.Problem)


def nothing(x: jax.Array) -> tuple[()]:
    """Records nothing."""
    return ()


def descend(
    problem: problems.Problem,
    method: optax.GradientTransformation,
    step_size: optax.ScalarOrSchedule,
    checkpoints: Sequence[int] | np.ndarray,
    record: descent.Measure = nothing,
    *,
    mean_of: descent.Measure | None = None,
    start: jax.typing.ArrayLike | None = None,
    oracle: descent.Oracle | None = None,
    key: jax.Array | None = None,
) -> descent.Trace:
    """A method and SGD: `descent.descend` from the problem's start, full gradients."""
    return descent.descend(
        optax.chain(method, optax.sgd(step_size)),
        descent.exact(problem) if oracle is None else oracle,
        problem.start if start is None else start,
        checkpoints,
        record=record,
        mean_of=mean_of,
        key=key,
    )


def sam(
    problem: problems.Problem,
    rho: Any,
    eta: Any,
    checkpoints: Sequence[int] | np.ndarray,
    record: descent.Measure = nothing,
    *,
    make: Callable[[Any], optax.GradientTransformation] = sam_jax.sam,
    **settings: Any,
) -> descent.Trace:
    """SAM, or what ``make`` makes of a radius, at every radius and step size.

    The trace of `descend` in NumPy, with leading axes of the shape to which ``rho`` and
    ``eta`` broadcast; ``settings`` are those of `descend`.
    """
    return each(
        lambda rho, eta: descend(
            problem, make(rho), eta, checkpoints, record, **settings
        ),
        rho,
        eta,
    )


def second_half(means: Any) -> Any:
    """The means over the second half, of those over half of the steps and over all."""
    return jax.tree.map(lambda mean: 2 * mean[1] - mean[0], means)


def each(function: Callable[..., Any], *settings: Any) -> Any:
    """A function of numbers at every entry of arrays, in one compiled call.

    Args:
        function: of one entry of each array, traced -> pytree of arrays.
        settings: arrays that broadcast to one shape, of numbers or keys.

    Returns:
        What it returns, in NumPy, with the leading axes of that shape.

    Example:
        >>> print(each(lambda a, b: a * b, [1.0, 2.0], [[1.0], [3.0]]))
        [[1. 2.]
         [3. 6.]]
    """
    arrays = [jnp.asarray(setting) for setting in settings]
    shape = jnp.broadcast_shapes(*(array.shape for array in arrays))
    flat = [jnp.broadcast_to(array, shape).ravel() for array in arrays]
    return jax.tree.map(
        lambda found: np.asarray(found).reshape(shape + found.shape[1:]),
        jax.jit(jax.vmap(function))(*flat),
    )


def once(function: Callable[[], Any]) -> Any:
    """The compiled result of a function without arguments; pytree of NumPy arrays."""
    return jax.tree.map(np.asarray, jax.jit(function)())


def one_of(members: Sequence[AnyProblem], index: jax.Array) -> AnyProblem:
    """The member of a traced index, to be mapped over: one call for all of them.

    They have the same dimension, as finite sums the same size; value, start, minimum
    and smoothness are the member's, other constants the first's.
    """

    def pick(of: Callable[[AnyProblem], Any]) -> jax.Array:
        return jnp.stack([jnp.asarray(of(member)) for member in members])[index]

    known: dict[str, Any] = {
        "value": lambda x: pick(lambda member: member.value(x)),
        "start": pick(lambda member: member.start),
        "minimum": pick(lambda member: member.minimum),
        "smoothness": pick(lambda member: member.smoothness),
    }
    if isinstance(members[0], finite_sums.FiniteSum):
        known["component_values"] = lambda x, rows: pick(
            lambda member: member.component_values(x, rows)  # pyright: ignore
        )
    return dataclasses.replace(members[0], **known)


def first_gap(problem: problems.Problem) -> float:
    """f(x_0) - f*."""
    return float(problem.gap(jnp.asarray(problem.start)))


# ── Horizons ─────────────────────────────────────────────────────────────────────────


class Horizons(NamedTuple):
    """Numbers of steps, each with its own constants, and checkpoints of all runs."""

    ends: np.ndarray
    checkpoints: np.ndarray

    def last(self, values: np.ndarray) -> np.ndarray:
        """Of each run the value at its end: [.., run, checkpoint] -> [.., run]."""
        at_end = np.searchsorted(self.checkpoints, self.ends)
        return values[..., np.arange(len(self.ends)), at_end]


def horizons(first: float, last: float, count: int, marks: int = 60) -> Horizons:
    """Evenly spaced on a logarithmic axis, with about ``marks`` checkpoints."""
    ends = np.geomspace(first, last, count).round().astype(int)
    return Horizons(ends, np.union1d(descent.geometric(ends[-1], marks)[1:], ends))


# ── Chains ───────────────────────────────────────────────────────────────────────────


class Estimate(NamedTuple):
    """A mean over chains and its standard error."""

    mean: np.ndarray
    error: np.ndarray

    @property
    def high(self) -> np.ndarray:
        """The mean and three standard errors."""
        return self.mean + 3 * self.error


def sam_chains(
    problem: finite_sums.FiniteSum,
    start: np.ndarray,
    full: Any,
    rho: Any,
    eta: Any,
    checkpoints: np.ndarray,
    *,
    chains: int,
    record: descent.Measure = nothing,
    mean_of: descent.Measure | None = None,
) -> Any:
    """Runs m-SAM, n-SAM and SGD with uniform single samples, each chain its own.

    Args:
        problem: the finite sum.
        start: x_0.
        full: share of the full gradient in the ascent, the rest is the sample's: 0 for
            m-SAM, 1 for n-SAM.
        rho: radii, 0 for SGD.
        eta: step sizes; the three broadcast to the shape of the settings.
        checkpoints: as in `descent.descend`.
        chains: number of chains of each setting, with different random numbers.
        record: measured at the checkpoints.
        mean_of: averaged over the iterates before them, in place of ``record``.

    Returns:
        Estimates, [settings, checkpoints, ..].
    """
    same = descent.same_sample(problem, sampling.uniform(problem.size))

    def chain(full: jax.Array, rho: jax.Array, eta: jax.Array, key: jax.Array) -> Any:
        def oracle(key: jax.Array, count: jax.Array):
            sampled, _ = same(key, count)
            return lambda x: full * problem.value(x) + (1 - full) * sampled(x), sampled

        method = sam_jax.sam(rho)
        trace = descend(
            problem,
            method,
            eta,
            checkpoints,
            record,
            mean_of=mean_of,
            start=start,
            oracle=oracle,
            key=key,
        )
        return trace.recorded if mean_of is None else trace.means

    shape = np.broadcast_shapes(*map(np.shape, (full, rho, eta)))
    keys = jax.random.split(jax.random.key(0), (*shape, chains))
    found = each(
        chain, *(np.asarray(a, float)[..., None] for a in (full, rho, eta)), keys
    )
    axis = len(shape)
    return Estimate(found.mean(axis), found.std(axis, ddof=1) / np.sqrt(chains))
