"""The gradient at which SAM can stall: waves of every length."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import optimize

import sam_jax
from experiments.theory import claims, pictures, runs
from sam_jax.theory import descent
from sam_jax.theory.step_sizes import si_yun

CLAIM = claims.Claim(
    title="Non-convex, deterministic: the stall on every wave, and the worst wave",
    source="ours, after Si and Yun 2023, Theorem 3.5",
    statement=r"""Derived: on $f(x) = (\beta/w^2) \sin(w x)$ with $w = u/\rho$ SAM
stalls with

$$
\|\nabla f\| = -\beta \rho \frac{\sin u}{u} \quad \text{where} \quad \sin u < 0.
$$

Elsewhere an extremum, minimum or maximum, attracts SAM up to a distance $O(\eta)$. The
wave of Theorem 3.5 has $u = 5\pi/3$ (unverified) and the gradient $0.165 \beta \rho$.
The worst wave solves $\tan u = u$: $u = 4.493$, with the gradient
$0.217 \beta \rho$.""",
    recipe="""beta = 1, rho = 1, eta = 0.05; u from 0.3 to 4 pi in 160 values, the
paper's u and the worst one; start halfway from the minimum to the inflection, 1,000
steps.""",
    criterion="""Where sin u < 0 the gradient is the closed form to 1e-6, elsewhere at
most eta beta^2 rho/u, the length of a step. No gradient is above the worst wave's.""",
)

ETA = 0.05


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` changes nothing here."""
    del quick
    worst: Any = optimize.brentq(lambda u: np.sin(u) - u * np.cos(u), 4.0, 4.7)
    grid = np.linspace(0.3, 4 * np.pi, 160)
    shifts = np.r_[si_yun.STALL_SHIFT, worst, grid[np.abs(np.sin(grid)) > 0.02]]

    def descend(shift: jax.Array) -> jax.Array:
        def wave(x: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sin(shift * x)) / shift**2

        return descent.descend(
            optax.chain(sam_jax.sam(1.0), optax.sgd(ETA)),
            lambda key, count: (wave, wave),
            -np.pi / (4 * shift[None]),
            [1_000],
            record=lambda x: jnp.abs(jax.grad(wave)(x)[0]),
        ).recorded[0]

    found = runs.each(descend, shifts)
    stalls = np.sin(shifts) < 0
    predicted = si_yun.stall_gradient(shifts[stalls])
    steps = ETA / shifts[~stalls]
    at_worst = float(si_yun.stall_gradient(worst))

    picture, (panel,) = pictures.panels(1, width=5.6)
    panel.plot(shifts[stalls], found[stalls], "o", ms=3, label="stall")
    panel.plot(shifts[~stalls], found[~stalls], "s", ms=3, label="near an extremum")
    panel.plot(shifts[:1], found[:1], "D", label="5 pi/3, Theorem 3.5")
    panel.plot(shifts[1:2], found[1:2], "*", ms=11, label="tan u = u")
    fine = np.linspace(0.3, 4 * np.pi, 500)
    pictures.bound(panel, fine, np.maximum(-np.sin(fine) / fine, 0), "-sin(u)/u")
    panel.plot(fine, ETA / fine, ":", color="#555555", lw=1, label="eta beta / u")
    panel.set_ylim(-0.01, 0.25)
    pictures.linear(panel, "u = w rho", "||grad f|| / (beta rho)", "where SAM ends")
    pictures.legends([panel])
    checks = claims.Checks()
    checks.close(
        f"||grad f|| / (beta rho) at u = {worst:.5f}", found[1], at_worst, rtol=1e-6
    )
    checks.close("the same, sin u < 0", found[stalls], predicted, rtol=1e-6)
    checks.at_most("the same, sin u > 0", found[~stalls], steps)
    checks.at_most("the largest of all", found, found[1] + 1e-9)
    return claims.Outcome(
        checks, picture, {"u": shifts, "gradient": found, "stalls": stalls}
    )
