"""Theorems 4.1 and 4.2: USAM and extragradient with constant steps."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sam_jax
from experiments.theory import claims, pictures, runs
from experiments.theory.khanh import _methods
from sam_jax.theory import finite_sums, inexact, problems
from sam_jax.theory.step_sizes import khanh

CLAIM = claims.Claim(
    title="USAM and extragradient converge with constant step size and radius",
    source="Khanh et al. 2024, Theorems 4.1 and 4.2",
    statement=r"""With $\nu \in [0, 1)$, $\rho_k \le \nu/L$, $\sum t_k = \infty$ and
$t_k \le (2 - 2\nu - \delta)/(L (1 + \nu)^2)$, constant or diminishing: $f(x_k)$
decreases, $\nabla f(x_k) \to 0$, and under the KL property $x_k$ converges, linearly
for $q \le 1/2$ if $t_k$ is bounded away from 0. Under the Polyak-Lojasiewicz inequality
the factor of the gap is (ours)

$$
1 - t \mu \left(2 - 2\nu - L t (1 + \nu)^2\right).
$$

SAM with the same $t$ and $\rho$ stops at its 2-cycle.""",
    recipe="""A quadratic (1, 3, 10), ridge-regularized logistic regression (30 x 5),
and, non-convex, sums of log(1 + r^2) (n = 4) and (xy - 1)^2; nu = 0.5, delta = 0.1,
rho = nu/L, t the largest allowed, constant or times k^-0.5; 4,000 steps.""",
    criterion="""f never rises by more than rounding (in each of the first 100 steps,
then from every 20th to the next); every gap of the first 100 steps on the first two
obeys the factor; on the quadratic the slowest mode contracts by 1 - tl(1 +- rho l) to
1e-6; the last gradient is below 1e-6 of the first (constant t) and 0.2 of it
(diminishing t); with constant t the iterates of the last tenth lie within 1e-6 of the
last one (KL: these functions are analytic). SAM on the quadratic ends at t rho l/(2
- tl). On a parabola (t = 0.01/L, errors of length nu ||grad f|| against the gradient)
each step multiplies the gap by the factor, to 0.1 %.""",
)

NU, DELTA = 0.5, 0.1
MODES = np.array([1.0, 3.0, 10.0])  # of the quadratic
# Every one of the first steps, then every 20th.
CHECKPOINTS = np.r_[np.arange(100), np.arange(100, 4001, 20)]


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` changes nothing here."""
    del quick
    chosen = _problems()
    t, rho = {}, {}
    for name, problem in chosen.items():
        t[name] = khanh.relative_error_step_size(problem.smoothness, NU, DELTA)
        rho[name] = khanh.unnormalized_radius(problem.smoothness, NU)
    found = _descend(chosen, t, rho)
    rises, obeyed, last, moved = [], [], [], []
    for method in _methods.UNNORMALIZED:
        for name, problem in chosen.items():
            recorded = found[f"{method}: {name}"]
            rises.append(np.diff(recorded["gap"], axis=1).max())
            last.append(recorded["gradient"][:, -1] / recorded["gradient"][:, 0])
            late = recorded["x"][0, CHECKPOINTS >= 3600]
            moved.append(np.linalg.norm(late - late[-1], axis=-1).max())
            if problem.pl:
                factor = khanh.linear_factor(
                    t[name], problem.smoothness, problem.pl, NU
                )
                gap = recorded["gap"][0]
                obeyed.append(gap[:100] / (gap[0] * factor ** CHECKPOINTS[:100]))
    constant, diminishing = np.array(last).T
    contracted = []
    for method in _methods.UNNORMALIZED:
        distance = np.linalg.norm(found[f"{method}: quadratic"]["x"][0], axis=-1)
        contracted.append(distance[99] / distance[98])
    length, step = rho["quadratic"] * MODES, t["quadratic"] * MODES
    contraction = [np.abs(1 - step * (1 + sign * length)).max() for sign in (1, -1)]
    cycle = khanh.two_cycle(t["quadratic"], rho["quadratic"], 10.0)
    stalled = np.linalg.norm(found["SAM: quadratic"]["x"][0, -1])
    seen = slice(0, 296, 3)
    data = {"steps": CHECKPOINTS[seen], "step_size": t, "rho": rho}
    data["gradient"] = {name: of["gradient"][:, seen] for name, of in found.items()}
    checks = claims.Checks()
    checks.at_most("last / first gradient norm, constant t", constant, 1e-6)
    checks.at_most("last / first gradient norm, t k^-0.5", diminishing, 0.2)
    checks.at_most("movement of x in the last tenth, constant t", moved, 1e-6)
    checks.at_most("largest rise of f between checkpoints", rises, 1e-14)
    checks.at_most("gap / (factor^k first gap)", obeyed, 1 + 1e-9)
    checks.close(
        "quadratic: contraction of the slowest mode", contracted, contraction, rtol=1e-6
    )
    checks.close("SAM on the quadratic: distance", stalled, cycle, rtol=1e-9)
    checks.close(
        "parabola, IGDr: gap after a step / before it", *_attained(), rtol=1e-3
    )
    shown = {"k": CHECKPOINTS[seen] + 1, "2-cycle of SAM": [10 * cycle, np.nan]}
    shown["||grad f||"] = [
        {name: of[i] for name, of in data["gradient"].items() if "extra" not in name}
        for i in range(2)
    ]
    names = {0: "t constant", 1: "t k^-0.5"}, "k", "||grad f||", "2-cycle of SAM"
    picture = pictures.row(shown, *names, ylim=(1e-16, 300), width=4.2)
    return claims.Outcome(checks, picture, data)


def _attained() -> tuple[np.ndarray, float]:
    """Gap after a step / before it, with the worst error, and the factor."""
    parabola, t = problems.quadratic([1.0], [1.0]), 0.01
    method, steps = inexact.igdr(NU, inexact.against), np.arange(20)
    gaps = runs.once(
        lambda: runs.descend(parabola, method, t, steps, parabola.gap).recorded
    )
    return gaps[1:] / gaps[:-1], khanh.linear_factor(t, 1.0, 1.0, NU)


def _problems() -> dict[str, problems.Problem]:
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(30, 5)), generator.normal(size=30)
    # Well conditioned, so that the linear rate shows within the steps.
    matrix = np.eye(4) + 0.3 * generator.normal(size=(4, 4))
    target = generator.normal(size=4)
    return {
        "quadratic": problems.quadratic(MODES.tolist(), [1.0, 1.0, 1.0]),
        "logistic": finite_sums.logistic(features, np.sign(labels), l2=0.05),
        "log(1 + r^2)": problems.log_residuals(matrix, target, np.zeros(4)),
        "(xy - 1)^2": problems.hyperbola(),
    }


def _descend(
    chosen: Mapping[str, problems.Problem],
    t: Mapping[str, float],
    rho: Mapping[str, float],
) -> dict[str, dict[str, np.ndarray]]:
    """What was recorded, [constant and diminishing t, checkpoint, ..]."""

    def one(make: _methods.Make, name: str, power: jax.Array) -> Any:
        problem = chosen[name]

        def measure(x: jax.Array) -> dict[str, jax.Array]:
            norm = jnp.linalg.norm(problem.gradient(x))
            return {"x": x, "gap": problem.gap(x), "gradient": norm}

        def step_size(k: jax.typing.ArrayLike) -> jax.Array:
            return t[name] * (jnp.asarray(k) + 1.0) ** -power

        method = make(rho[name])
        return runs.descend(problem, method, step_size, CHECKPOINTS, measure).recorded

    settings = [
        (method, make, name)
        for method, make in _methods.UNNORMALIZED.items()
        for name in chosen
    ]
    settings.append(("SAM", sam_jax.sam, "quadratic"))
    return runs.each(
        lambda power: {
            f"{m}: {name}": one(make, name, power) for m, make, name in settings
        },
        [0.0, 0.5],
    )
