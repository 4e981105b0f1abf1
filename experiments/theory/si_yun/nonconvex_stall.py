"""Theorem 3.5: deterministic SAM stalls at a gradient of order beta rho."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import figure

import sam_jax
from experiments.theory import claims, pictures, runs
from sam_jax.theory import descent, problems
from sam_jax.theory.step_sizes import si_yun

CLAIM = claims.Claim(
    title="Non-convex, deterministic: SAM stalls at ||grad f||^2 = 0.0274 beta^2 rho^2",
    source="Si and Yun 2023, Theorem 3.5",
    statement=r"""The floor of order $\rho^2$ cannot be removed (unverified). On
$f(x) = \frac{9 \beta \rho^2}{25 \pi^2} \sin \frac{5 \pi x}{3 \rho}$ and for
$\eta \le 1/\beta$ SAM converges, from every start that is not a stationary point, to a
point whose *perturbed* point is a minimum:

$$
\|\nabla f\|^2 \to \frac{27 \beta^2 \rho^2}{100 \pi^2}, \qquad
f - f^* \to \frac{9 \beta \rho^2}{50 \pi^2};
$$

from a start within $0.1 \rho$ of 0 the gradient is never smaller. Without
normalization (for $\beta \rho < 1$), without ascent, or with a decaying radius, the
gradient vanishes.""",
    recipe="""(beta, rho, eta beta) = (1, 1, 0.5), (2, 0.3, 0.2), (5, 0.05, 1), (0.5,
0.3, 0.1); twelve starts over a period and five in [-0.1 rho, 0.1 rho], 500 steps.
Controls in the last three, where beta rho < 1, from 0.05 rho: USAM and gradient descent
for 500 steps, rho/sqrt(t + 1) and rho/(t + 1) for 20,000 (5,000 in the short form).""",
    criterion="""The squared gradient and the gap equal these constants to 1e-9, and the
perturbed gradient is 0 to 1e-9. The lower bound holds in every step. The gradient falls
to 1e-9 beta rho with USAM and gradient descent, and to 1 % of beta rho with decaying
radii.""",
)

# beta, rho, eta beta
SETTINGS = np.array([[1, 1, 0.5], [2, 0.3, 0.2], [5, 0.05, 1.0], [0.5, 0.3, 0.1]])
BETA, RHO, ETA = SETTINGS[:, 0], SETTINGS[:, 1], SETTINGS[:, 2] / SETTINGS[:, 0]
MEMBERS = [problems.sinusoid(b, r, 0.0) for b, r, _ in SETTINGS]
# Starts in units of rho: over a period without its extrema, and near 0.
STARTS = np.r_[-0.3 + 1.2 * (np.arange(12) + 0.4) / 12, np.linspace(-0.1, 0.1, 5)]
# Name -> lam of Unified SAM, share of rho, exponent of its decay.
CONTROLS = {
    "USAM": (0.0, 1.0, 0.0),
    "GD": (1.0, 0.0, 0.0),
    "rho/sqrt(t+1)": (1.0, 1.0, 0.5),
    "rho/(t+1)": (1.0, 1.0, 1.0),
}


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` gives the decaying radii fewer steps."""
    checkpoints = np.union1d(descent.geometric(5_000 if quick else 20_000), [500])
    # [setting, start, step]
    seen = runs.each(_stall, np.arange(4)[:, None], STARTS)
    scale = (BETA * RHO)[:, None, None]
    gradient, ahead = seen["gradient"] / scale, seen["ahead"] / scale
    lowest = np.array([member.minimum for member in MEMBERS])[:, None, None]
    gap = (seen["value"] - lowest) / (BETA * RHO**2)[:, None, None]
    stalled = float(si_yun.stall_gradient())
    # USAM needs beta rho < 1: the first setting is left out.
    controls = runs.each(
        functools.partial(_control, checkpoints),
        np.arange(1, 4)[:, None],
        *np.array(list(CONTROLS.values())).T,
    )
    controls = controls / scale[1:]
    at_500 = int(np.searchsorted(checkpoints, 500))
    decaying = controls[:, 2:, -1]
    data = {"start": STARTS, "gradient": gradient[..., -1], "gap": gap[..., -1]}
    data |= {"checkpoint": checkpoints}
    data["controls"] = dict(zip(CONTROLS, controls[0], strict=True))
    squared = gradient**2
    checks = claims.Checks()
    checks.close(
        "f'^2 / (beta rho)^2, all starts", squared[..., -1], stalled**2, rtol=1e-9
    )
    checks.close(
        "(f - f*) / (beta rho^2)", gap[..., -1], float(si_yun.stall_gap()), rtol=1e-9
    )
    checks.close("f'(perturbed) / (beta rho)", ahead[..., -1], 0, atol=1e-9)
    checks.at_least(
        "f'^2 / (beta rho)^2 in every step, |x_0| <= 0.1 rho",
        squared[:, 12:],
        stalled**2 * (1 - 1e-9),
    )
    checks.at_most("|f'| / (beta rho) of USAM and GD", controls[:, :2, at_500], 1e-9)
    checks.at_most("|f'| / (beta rho), decaying radius", decaying, 0.01)
    picture = _picture(data, squared[1, 14])
    return claims.Outcome(checks, picture, data)


def _stall(i: jax.Array, start: jax.Array) -> dict[str, jax.Array]:
    problem, radius = runs.one_of(MEMBERS, i), jnp.asarray(RHO)[i]

    def measure(x: jax.Array) -> dict[str, jax.Array]:
        gradient = problem.gradient(x)[0]
        ahead = problem.gradient(x + radius * jnp.sign(gradient))[0]
        return {"gradient": gradient, "ahead": ahead, "value": problem.value(x)}

    return runs.descend(
        problem,
        sam_jax.sam(radius),
        jnp.asarray(ETA)[i],
        np.arange(501),
        measure,
        start=radius * start[None],
    ).recorded


def _control(
    checkpoints: np.ndarray,
    i: jax.Array,
    lam: jax.Array,
    share: jax.Array,
    exponent: jax.Array,
) -> jax.Array:
    problem, radius = runs.one_of(MEMBERS, i), jnp.asarray(RHO)[i]
    return runs.descend(
        problem,
        sam_jax.unified_sam(lambda t: share * radius / (t + 1.0) ** exponent, lam=lam),
        jnp.asarray(ETA)[i],
        checkpoints,
        lambda x: jnp.abs(problem.gradient(x)[0]),
        start=0.05 * radius[None],
    ).recorded


def _picture(data: Mapping[str, Any], stall: np.ndarray) -> figure.Figure:
    picture, (left, right) = pictures.panels(2)
    left.plot(np.arange(1, 501), stall[1:], label="SAM")
    for name, control in data["controls"].items():
        left.plot(data["checkpoint"][1:], control[1:] ** 2, label=name)
    pictures.bound(left, None, 27 / (100 * np.pi**2), "27 / (100 pi^2)")
    left.set_ylim(1e-25, 1)
    pictures.log_log(left, "iteration", "(f' / (beta rho))^2", "beta = 2, rho = 0.3")
    grid, here = np.linspace(-0.6, 1.3, 400), np.array([-0.1, 0.7])
    # The perturbed point, up to a period.
    there = here + np.array([-0.2, 0.2])
    height = jax.vmap(lambda z: MEMBERS[0].gap(z[None]))
    right.plot(grid, height(jnp.asarray(grid)), color="#555555")
    right.plot(here, height(jnp.asarray(here)), "o", label="SAM stalls: x")
    right.plot(there, height(jnp.asarray(there)), "v", label="y, modulo 1.2 rho")
    pictures.linear(right, "x / rho", "(f - f*) / (beta rho^2)", "the function")
    pictures.legends([left, right])
    return picture
