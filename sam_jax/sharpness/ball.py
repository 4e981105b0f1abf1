"""The loss in a ball around the parameters: the worst case, and the average."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax import checks
from sam_jax.methods import numerics
from sam_jax.sharpness import probes, products, spectrum


class WorstCase(NamedTuple):
    """The largest loss found in a ball, minus the loss at its centre.

    Attributes:
        value: the difference; never negative.
        displacement: where it was found, a tree like the parameters.
        evaluations: how many gradients it took.
    """

    value: float
    displacement: Any
    evaluations: int


def worst_case(
    loss: products.Loss,
    params: Any,
    rho: float,
    *,
    batches: Iterable[Any] | None = None,
    norm: Literal["l2", "linf"] = "l2",
    adaptive: bool = False,
    steps: int = 20,
    seed: int = 0,
) -> WorstCase:
    r"""Worst-case sharpness, by projected gradient ascent with shrinking steps (APGD).

    .. math::

        \max_{\|T^{-1} \delta\|_p \le \rho} L(w + \delta) - L(w), \qquad
        T = 1 \text{ or } |w|

    A lower bound of it: the best of all points visited. The ascent runs in
    :math:`u = T^{-1} \delta`, so that the adaptive measure is the same for all
    rescalings of the weights that leave the network's function as it is.

    Args:
        loss: ``loss(params)``, or ``loss(params, batch)`` with ``batches``.
        params: the parameters w.
        rho: radius of the ball.
        batches: to average over; all of them share the displacement. See `m_sharpness`.
        norm: ``"l2"``, of all parameters together, or ``"linf"``.
        adaptive: whether a weight moves in proportion to its size.
        steps: gradients.
        seed: of the point that it begins from, within a thousandth of the radius.

    Returns:
        `WorstCase`.

    Raises:
        ValueError: if a number is out of its range, or the loss no finite scalar.

    References:
        Croce, Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble
        of Diverse Parameter-free Attacks", ICML 2020, `2003.01690
        <https://arxiv.org/abs/2003.01690>`_ (APGD)

        Andriushchenko, Croce, Müller, Hein, Flammarion, "A Modern Look at the
        Relationship between Sharpness and Generalization", ICML 2023, `2302.07011
        <https://arxiv.org/abs/2302.07011>`_

    Example:
        >>> import jax.numpy as jnp
        >>> loss = lambda w: jnp.sum(w) + jnp.sum(w**2)
        >>> found = worst_case(loss, jnp.zeros(1), rho=0.5)
        >>> print(found.value)  # rho |g| + rho^2 lambda / 2
        0.75
    """
    loss = _checked(loss, params, rho, batches, steps=steps)
    ascend = _ascent(loss, params, rho, norm, adaptive, steps, seed)
    return ascend(batches)


def m_sharpness(
    loss: products.Loss,
    params: Any,
    rho: float,
    batches: Iterable[Any],
    *,
    norm: Literal["l2", "linf"] = "l2",
    adaptive: bool = False,
    steps: int = 20,
    seed: int = 0,
) -> probes.Estimate:
    """The mean of the worst cases of groups of m examples, each with its own.

    Args:
        loss: ``loss(params, batch)``.
        params: the parameters.
        rho: radius of the ball.
        batches: the groups, m examples each.
        norm: as in `worst_case`, like what follows.
        adaptive: whether a weight moves in proportion to its size.
        steps: gradients.
        seed: of the point that each ascent begins from.

    Returns:
        `Estimate`; evaluations are gradients on a group.

    Example:
        >>> import jax.numpy as jnp
        >>> loss = lambda w, x: jnp.mean(x * w)
        >>> groups = [jnp.array([2.0]), jnp.array([-2.0])]
        >>> print(round(m_sharpness(loss, jnp.zeros([]), 0.5, groups).value, 4))
        1.0
    """
    loss = _checked(loss, params, rho, batches, steps=steps)
    ascend = _ascent(loss, params, rho, norm, adaptive, steps, seed)
    found = [ascend([group]) for group in batches]
    value, error = probes.mean_and_error(np.array([one.value for one in found]))
    return probes.Estimate(value, error, sum(one.evaluations for one in found))


def average_case(
    loss: products.Loss,
    params: Any,
    rho: float,
    *,
    batches: Iterable[Any] | None = None,
    noise: Literal["gaussian", "uniform"] = "gaussian",
    adaptive: bool = False,
    samples: int = 16,
    seed: int = 0,
) -> probes.Estimate:
    r"""Average-case sharpness :math:`\mathbb{E}\, L(w + T \rho z) - L(w)`.

    Args:
        loss: ``loss(params)``, or ``loss(params, batch)`` with ``batches``.
        params: the parameters w.
        rho: size of the noise in each parameter.
        batches: to average over.
        noise: ``"gaussian"``, z of standard deviation 1, or ``"uniform"``, in [-1, 1].
        adaptive: whether T is ``|w|`` and not 1.
        samples: draws, a loss each; at least 2.
        seed: of the draws.

    Returns:
        `Estimate`.

    References:
        Andriushchenko and others, ICML 2023; see `worst_case`.

    Example:
        >>> import jax.numpy as jnp
        >>> found = average_case(lambda w: jnp.mean(w**2), jnp.zeros(10**5), 0.1)
        >>> print(round(found.value, 4))
        0.01
    """
    checks.one_of("noise", noise, tuple(_DRAWS))
    checks.seed("seed", seed)
    loss = _checked(loss, params, rho, batches, samples=samples)
    mean_loss = products.mean_over(batches, loss)
    keys = jax.random.split(jax.random.key(seed), samples)
    start = float(mean_loss(params))
    found = [
        float(mean_loss(_noisy(noise, adaptive, params, rho, key))) - start
        for key in keys
    ]
    value, error = probes.mean_and_error(np.array(found))
    return probes.Estimate(value, error, samples + 1)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _noisy(noise: str, adaptive: bool, params: Any, rho: Any, key: jax.Array) -> Any:
    drawn = numerics.combine((rho, _DRAWS[noise](spectrum.random_like(key, params))))
    return _at(params, drawn, _sizes(params, adaptive))


class _Ball(NamedTuple):
    """A ball of trees.

    Attributes:
        steepest: gradient -> the direction of length 1 along which it rises fastest.
        project: (point, radius) -> the nearest point of the ball.
    """

    steepest: Callable[[Any], Any]
    project: Callable[[Any, Any], Any]


def _onto_sphere(u: Any, rho: Any) -> Any:
    length = numerics.norm(u)
    shrink = jnp.where(length > rho, rho / jnp.where(length > 0, length, 1), 1)
    return numerics.multiply(u, shrink)


_BALLS = {
    "l2": _Ball(numerics.unit, _onto_sphere),
    "linf": _Ball(
        lambda g: jax.tree.map(jnp.sign, g),
        lambda u, rho: jax.tree.map(lambda x: jnp.clip(x, -rho, rho), u),
    ),
}
_DRAWS: dict[str, Callable[[Any], Any]] = {
    "gaussian": lambda z: z,
    # The distribution function of a normal number is uniform.
    "uniform": lambda z: jax.tree.map(lambda x: 2 * jax.scipy.stats.norm.cdf(x) - 1, z),
}


def _ascent(
    loss: products.Compiled,
    params: Any,
    rho: float,
    norm: str,
    adaptive: bool,
    steps: int,
    seed: int,
) -> Callable[[Iterable[Any] | None], WorstCase]:
    """APGD as a function of the batches."""
    checks.one_of("norm", norm, tuple(_BALLS))
    checks.seed("seed", seed)
    size = _sizes(params, adaptive)
    steepest, further = (functools.partial(f, norm) for f in (_steepest, _further))
    drawn = steepest(spectrum.random_like(jax.random.key(seed), params))
    zeros = jax.tree.map(jnp.zeros_like, drawn)

    def ascend(batches: Iterable[Any] | None) -> WorstCase:
        measured = products.mean_over(batches, loss.program(_measured))
        start = float(measured(params, zeros, size)[0])
        best, best_u, best_direction = start, zeros, zeros
        u = old = further(rho, zeros, zeros, drawn, 1e-3 * rho)
        step, before, rises = 2.0 * rho, -np.inf, 0
        checkpoints, last = _checkpoints(steps), (0.0, -np.inf)
        for i in range(steps + 1):
            value, grads = measured(params, u, size)
            value, direction = float(value), steepest(grads)
            rises += value > before
            before = value
            if value > best:
                best, best_u, best_direction = value, u, direction
            if i in checkpoints:
                if rises < 0.75 * (i - checkpoints[i]) or last == (step, best):
                    step /= 2
                    u, old, direction = best_u, best_u, best_direction
                last, rises = (step, best), 0
            u, old = further(rho, old, u, direction, step), u
        displacement = _in_weights(best_u, size, params)
        return WorstCase(best - start, displacement, steps + 2)

    return ascend


def _measured(loss: products.Loss, params: Any, u: Any, size: Any, *batch: Any) -> Any:
    """The loss at a point of the ball, and its gradient there, along u."""
    value, grads = jax.value_and_grad(loss)(_at(params, u, size), *batch)
    return value, jax.tree.map(jnp.multiply, grads, size)


@functools.partial(jax.jit, static_argnums=0)
def _steepest(norm: str, grads: Any) -> Any:
    return _BALLS[norm].steepest(grads)


@functools.partial(jax.jit, static_argnums=0)
def _further(norm: str, rho: Any, old: Any, u: Any, direction: Any, step: Any) -> Any:
    """The next point, with momentum."""
    project = _BALLS[norm].project
    ahead = project(numerics.combine((1.0, u), (step, direction)), rho)
    return project(numerics.combine((0.75, ahead), (0.5, u), (-0.25, old)), rho)


def _checkpoints(steps: int) -> dict[int, int]:
    """Steps at which the step size is judged, each with the one before it."""
    found, last, part, width = {}, 0, 0.0, 0.22
    while part + width <= 1:
        part += width
        at = int(np.ceil(part * steps))
        if last < at < steps:
            found[at], last = last, at
        width = max(width - 0.03, 0.06)
    return found


def _sizes(params: Any, adaptive: bool) -> Any:
    return jax.tree.map(
        lambda w: jnp.abs(numerics.wide(w)) if adaptive else jnp.ones_like(w), params
    )


def _in_weights(u: Any, size: Any, params: Any) -> Any:
    return jax.tree.map(lambda u, t, w: (u * t).astype(w.dtype), u, size, params)


def _at(params: Any, u: Any, size: Any) -> Any:
    """The weights at a point of the ball."""
    return numerics.moved(params, _in_weights(u, size, params))


def _checked(
    loss: products.Loss,
    params: Any,
    rho: float,
    batches: Iterable[Any] | None,
    **counts: int,
) -> products.Compiled:
    checks.positive("rho", rho)
    for name, count in counts.items():
        checks.integer(name, count, 2)
    return products.checked(loss, params, batches)
