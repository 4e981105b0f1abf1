"""Theorem 4.2 as published assumes only the L-descent condition."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

import sam_jax
from experiments.theory import claims, pictures, runs
from sam_jax.theory import inexact, problems
from sam_jax.theory.step_sizes import khanh

CLAIM = claims.Claim(
    title="Theorem 4.2 without a Lipschitz gradient",
    source="Khanh et al. 2024, Theorem 4.2",
    statement=r"""As published, USAM and extragradient with $\rho_k \le \nu / L$ and
$t_k \le (2 - 2\nu - \delta) / (L (1 + \nu)^2)$ reach stationary points of every
function that satisfies **the L-descent condition** (4).""",
    recipe=r"""$f(x) = x^2 / 2 - \frac23 |x|^{3/2}$: the condition holds with $L = 1$,
the gradient $x - \mathrm{sign}(x) |x|^{1/2}$ is not Lipschitz continuous at the local
maximum 0, and the minima are $\pm 1$. $\nu = \rho = 0.5$, $t$ = 0.05, 0.1 and 0.2,
starts 0.001, 0.01, 0.05 and 0.1, 3,000 steps.""",
    criterion=r"""As published: the last gradient of USAM is below $10^{-6}$. Ours: USAM
ends in the cycle $c, -c$ with $2c = t (\sqrt w - w)$, $w = \rho \sqrt c - (1 + \rho)
c$, to $10^{-9}$; there $\|g - \nabla f\| / \|\nabla f\|$ is above 1. IGDr with the same
$\nu$ and $t$ (error against the gradient) and extragradient end below $10^{-6}$.""",
    refuted=r"""The proof bounds USAM's error by $L \rho_k \|\nabla f(x^k)\|$, which
requires a Lipschitz continuous gradient. Near a kink of the gradient the perturbed
point lies on the other side of the kink, and USAM jumps back and forth across a local
maximum. With a Lipschitz continuous gradient, the paper's other assumption of section
4, the theorem holds (`khanh/unnormalized`); Theorem 4.1 needs only L-descent
(`khanh/descent_condition`).""",
)

RHO, COUNT = 0.5, 3_000
STEPS, STARTS = np.array([0.05, 0.1, 0.2]), np.array([0.001, 0.01, 0.05, 0.1])
PROBLEM = problems.Problem(
    value=lambda x: jnp.sum(x**2 / 2 - 2 / 3 * jnp.abs(x) ** 1.5),
    start=np.ones(1),
    smoothness=np.inf,
    minimum=-1 / 6,
    minimizer=np.ones(1),
)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` changes nothing here."""
    del quick
    assert khanh.relative_error_step_size(1.0, RHO, 0.1) >= STEPS.max()
    methods = {
        "USAM": sam_jax.usam(RHO),
        "extragradient": sam_jax.extragradient(RHO),
        "IGDr": inexact.igdr(RHO, inexact.against),
    }
    checkpoints = np.r_[np.arange(60), COUNT - 1, COUNT]

    def descend(t: jax.Array, start: jax.Array) -> Any:
        return {
            name: runs.descend(
                PROBLEM, method, t, checkpoints, lambda x: x[0], start=start[None]
            ).recorded
            for name, method in methods.items()
        }

    found = runs.each(descend, STEPS[:, None], STARTS)  # [t, start, checkpoint]
    last = {name: _gradient(x[..., -1]) for name, x in found.items()}
    before, now = found["USAM"][..., -2], found["USAM"][..., -1]
    cycle = np.array([_cycle(t) for t in STEPS])
    ahead = _gradient(now + RHO * _gradient(now))
    error = np.abs(ahead - last["USAM"]) / np.abs(last["USAM"])
    data = {"k": checkpoints[:60], "t": STEPS, "USAM": found["USAM"][:, 1, :60]}
    data |= {"cycle": cycle, "x_k": np.abs(data["USAM"])}
    data["last_gradient"] = {name: np.abs(value) for name, value in last.items()}
    others = [np.abs(last[name]).max() for name in ("extragradient", "IGDr")]
    checks = claims.Checks()
    checks.at_most("USAM: last gradient", np.abs(last["USAM"]), 1e-6)
    checks.close("USAM: |x| / cycle", np.abs(now) / cycle[:, None], 1.0, rtol=1e-9)
    checks.close("USAM: x_{k+1} + x_k", now + before, 0.0, atol=1e-9)
    checks.at_least("USAM: ||g - grad f|| / ||grad f||", error, 1.0)
    checks.at_most("extragradient, IGDr: last gradient", others, 1e-6)
    picture = pictures.draw(
        data,
        pictures.Panel(
            "k", "x_k", "cycle", "USAM from 0.01", "t", log="y", label="|x_k|"
        ),
        width=5.2,
    )
    return claims.Outcome(checks, picture, data)


def _gradient(x: np.ndarray) -> np.ndarray:
    return x - np.sign(x) * np.sqrt(np.abs(x))


def _cycle(t: float) -> float:
    """The amplitude: the root in (0, (rho / (1 + rho))^2), where w > 0."""

    def excess(c: float) -> float:
        w = RHO * np.sqrt(c) - (1 + RHO) * c
        return 2 * c - t * (np.sqrt(w) - w)

    end = (RHO / (1 + RHO)) ** 2
    return float(optimize.brentq(excess, 1e-9, 0.99 * end, xtol=1e-16))  # pyright: ignore
