"""The paper's methods by name, and what each step of them does."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments.theory import runs
from sam_jax.theory import finite_sums, problems

Make = Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]

# Algorithms 2c-2f: the perturbation has the length rho, whatever its direction. The
# noise is plain: the default's noise vanishes with the weights.
NORMALIZED: Mapping[str, Make] = {
    "SAM": sam_jax.sam,
    "F-SAM": functools.partial(sam_jax.friendly_sam, include_current=True),
    "VaSSO": functools.partial(sam_jax.vasso, theta=0.4),
    "RSAM": functools.partial(sam_jax.random_sam, sigma=0.1, noise="plain"),
}
# Algorithms 2a and 2b: it has the length rho ||grad f||.
UNNORMALIZED: Mapping[str, Make] = {
    "USAM": sam_jax.usam,
    "extragradient": sam_jax.extragradient,
}


class Steps(NamedTuple):
    """All steps of some trajectories.

    Attributes:
        value: f(x^k), [trajectories, steps + 1].
        gradient: grad f(x^k), [trajectories, steps, d].
        direction: g^k = (x^k - x^{k+1}) / t, likewise.
        squared: ||grad f(x^k)||^2, [trajectories, steps].
        error: ||g^k - grad f(x^k)||, likewise.
    """

    value: np.ndarray
    gradient: np.ndarray
    direction: np.ndarray
    squared: np.ndarray
    error: np.ndarray


# L -> radii and step sizes of the trajectories.
Coefficients = Callable[[float], tuple[np.ndarray, np.ndarray]]


def every_step(
    chosen: Mapping[str, problems.Problem],
    starts: np.ndarray,
    count: int,
    normalized: Coefficients,
    unnormalized: Coefficients,
) -> dict[str, dict[str, Steps]]:
    """Runs all methods with constant coefficients and records every step.

    Args:
        chosen: what to minimize, by name; all of the same dimension.
        starts: [trajectories, d].
        count: number of steps.
        normalized: coefficients of the normalized methods.
        unnormalized: those of the others.

    Returns:
        Name of the problem -> name of the method -> steps.
    """
    members = list(chosen.values())
    keys = jax.random.split(jax.random.key(0), len(starts))
    found: dict[str, dict[str, Steps]] = {name: {} for name in chosen}
    for methods, of in ((NORMALIZED, normalized), (UNNORMALIZED, unnormalized)):

        def descend(i, j, rho, t, key, methods=methods) -> dict[str, Any]:
            problem, start = runs.one_of(members, i), jnp.asarray(starts)[j]

            def measure(x: jax.Array) -> tuple[jax.Array, ...]:
                return x, problem.value(x), problem.gradient(x)

            return {
                name: runs.descend(
                    problem,
                    make(rho),
                    t,
                    np.arange(count + 1),
                    measure,
                    start=start,
                    key=key,
                ).recorded
                for name, make in methods.items()
            }

        coefficients = [of(problem.smoothness) for problem in members]
        radii, sizes = map(np.stack, zip(*coefficients, strict=True))
        which, trajectory = np.arange(len(members))[:, None], np.arange(len(starts))
        recorded = runs.each(descend, which, trajectory, radii, sizes, keys)
        for i, name in enumerate(chosen):
            for method, parts in recorded.items():
                found[name][method] = _steps(parts, i, sizes[i])
    return found


def _steps(parts: Sequence[np.ndarray], i: int, step_sizes: np.ndarray) -> Steps:
    x, value, gradient = (part[i] for part in parts)
    direction = (x[:, :-1] - x[:, 1:]) / step_sizes[:, None, None]
    gradient = gradient[:, :-1]
    return Steps(
        value=value,
        gradient=gradient,
        direction=direction,
        squared=(gradient**2).sum(-1),
        error=np.linalg.norm(direction - gradient, axis=-1),
    )


DIMENSION = 4


class Grid(NamedTuple):
    """Trajectories of random starts.

    Attributes:
        starts: [trajectories, d].
        radius: share of the largest radius, [trajectories].
        step: share of the largest step size, [trajectories].
    """

    starts: np.ndarray
    radius: np.ndarray
    step: np.ndarray


def grid(starts: int) -> Grid:
    """Random starts, each with three radii and three step sizes."""
    drawn = np.random.default_rng(1).normal(size=(starts, DIMENSION))
    shares = [(r, t) for r in (0.05, 0.5, 0.95) for t in (0.1, 0.5, 1.0)]
    radius, step = np.tile(shares, (starts, 1)).T
    return Grid(np.repeat(drawn, len(shares), axis=0), radius, step)


def known_smoothness() -> dict[str, problems.Problem]:
    """One convex and two non-convex problems whose L holds everywhere."""
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(DIMENSION, DIMENSION))
    target = generator.normal(size=DIMENSION)
    return {
        "quadratic": problems.quadratic([0.5, 1.0, 3.0, 10.0], [1.0] * DIMENSION),
        "log": problems.log_residuals(matrix, target, np.zeros(DIMENSION)),
        "bounded": finite_sums.bounded_residuals(
            generator.normal(size=(8, DIMENSION)), generator.normal(size=8)
        ),
    }
