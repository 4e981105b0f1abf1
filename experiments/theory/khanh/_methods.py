"""The paper's methods by name, and what each of their steps does."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from sam_jax.theory import descent, finite_sums, problems

Make = Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]

# Algorithms 2c-2f: the perturbation has the length rho, whatever its direction. Plain
# noise, because that of the default vanishes with the weights.
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


def value_of(chosen: Sequence[problems.Problem], weights: jax.Array) -> problems.Value:
    """The sum of functions with weights; one-hot weights select one of them.

    With traced weights several problems of the same dimension are one compiled call.
    """
    return lambda x: sum(  # pyright: ignore[reportReturnType]
        weight * problem.value(x)
        for weight, problem in zip(weights, chosen, strict=True)
    )


def every_step(
    chosen: Mapping[str, problems.Problem],
    methods: Mapping[str, Make],
    starts: np.ndarray,
    radii: Mapping[str, np.ndarray],
    step_sizes: Mapping[str, np.ndarray],
    count: int,
) -> dict[str, dict[str, Steps]]:
    """Runs methods with constant coefficients and looks at every step.

    Args:
        chosen: what to minimize, by name; all of the same dimension.
        methods: their factories by name.
        starts: [trajectories, d].
        radii: of each problem: of each trajectory.
        step_sizes: likewise.
        count: number of steps.

    Returns:
        Name of the problem -> name of the method -> steps. All is one compiled call.
    """

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None, 0, 0, None))
    @functools.partial(jax.vmap, in_axes=(None, 0, 0, 0, 0))
    def descend(
        weights: jax.Array,
        start: jax.Array,
        rho: jax.Array,
        t: jax.Array,
        key: jax.Array,
    ):
        value = value_of(list(chosen.values()), weights)

        def run(make: Make) -> descent.Trace:
            tx = optax.chain(make(rho), optax.sgd(t))
            return descent.descend(
                tx,
                lambda key, count: (value, value),
                start,
                np.arange(count + 1),
                record=lambda x: (x, value(x), jax.grad(value)(x)),
                key=key,
            )

        return {name: run(make).recorded for name, make in methods.items()}

    found = descend(
        jnp.eye(len(chosen)),
        jnp.asarray(starts),
        jnp.stack([radii[name] for name in chosen]),
        jnp.stack([step_sizes[name] for name in chosen]),
        jax.random.split(jax.random.key(0), len(starts)),
    )
    found = jax.tree.map(np.asarray, found)
    return {
        name: {
            method: _steps(x[i], value[i], gradient[i], step_sizes[name])
            for method, (x, value, gradient) in found.items()
        }
        for i, name in enumerate(chosen)
    }


def _steps(
    x: np.ndarray, value: np.ndarray, gradient: np.ndarray, step_sizes: np.ndarray
) -> Steps:
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
    """A convex problem and two that are not, whose L holds everywhere."""
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
