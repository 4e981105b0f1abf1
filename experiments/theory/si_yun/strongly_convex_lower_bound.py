"""Theorem 3.2: no constant step size does better than 1/T^2."""

import jax
import numpy as np

import sam_jax
from experiments.theory import claims, pictures, runs
from sam_jax.theory import problems, step_sizes
from sam_jax.theory.step_sizes import si_yun

CLAIM = claims.Claim(
    title="Strongly convex, deterministic: 1/T^2 cannot be improved",
    source="Si and Yun 2023, Theorem 3.2",
    statement=r"""For every constant step size there is a smooth strongly convex
function on which SAM's gap after $T$ steps is at least of order $\rho^2 / T^2$
(unverified). Derived, in two cases. With $\eta \ge 1/(\mu T)$, on $\beta x^2/2$ from
its 2-cycle,

$$
f(x_T) - f^* \ge \frac{\beta^3 \rho^2}{8 \mu^2 T^2}.
$$

With $\eta < 1/(\mu T)$, on $\mu x^2/2$, $x_T = (1 - \eta \mu)^T (x_0 + \rho) - \rho$
stays away from 0.""",
    recipe="""mu = 0.1, beta = 1, rho = 0.1; T = 1,000, 10,000, 100,000 (the last one
not in the short form). First case: eta mu T = 1, 2, 5, start on the cycle. Second case:
eta mu T = 0.1, 0.5, 0.99, start 1.""",
    criterion="""First case: the gap is above the lower bound and is the cycle's to
1e-9. Second case: x_T is the closed form to 1e-9, and its gap is above the lower
bound.""",
)

MU, BETA, RHO = 0.1, 1.0, 0.1
SHARES = np.array([[1.0, 2.0, 5.0], [0.1, 0.5, 0.99]])  # eta mu T, [case, setting]


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` omits the largest horizon."""
    horizons = np.array([1_000, 10_000] if quick else [1_000, 10_000, 100_000])
    members = [problems.quadratic([curvature], [1.0]) for curvature in (BETA, MU)]
    etas = SHARES[..., None] / (MU * horizons)  # case, setting, horizon
    cycles = np.vectorize(si_yun.cycle_amplitude)(etas[0], smoothness=BETA, rho=RHO)

    def descend(case: jax.Array, eta: jax.Array, start: jax.Array) -> jax.Array:
        problem, method = runs.one_of(members, case), sam_jax.sam(RHO)
        return runs.descend(
            problem, method, eta, horizons, lambda x: x[0], start=start[None]
        ).recorded

    cases, starts = np.arange(2)[:, None, None], [cycles, np.ones_like(cycles)]
    # Of each run, the iterate at its own horizon.
    last = np.einsum("csii->csi", runs.each(descend, cases, etas, np.array(starts)))
    known = step_sizes.Constants(MU, BETA)
    bound = si_yun.strongly_convex_lower_bound(known, RHO, horizons)
    slow = si_yun.slow_descent(known, step_sizes.Rule(RHO, etas[1]), 1.0, horizons)
    gaps = np.array([BETA, MU])[:, None, None] * last**2 / 2
    data = {"horizon": horizons, "eta": etas, "gap": gaps, "bound": bound}
    titles = {0: "beta x^2/2, on the cycle", 1: "mu x^2/2, from 1"}
    curves = [
        {f"eta mu T = {share:g}": gap for share, gap in zip(*case, strict=True)}
        for case in zip(SHARES, gaps, strict=True)
    ]
    checks = claims.Checks()
    checks.at_least("gap on the cycle, eta mu T = 1", gaps[0, 0], bound)
    checks.at_least("gap, all settings", gaps, bound)
    checks.close("|x_T| on the cycle", np.abs(last[0]), cycles, rtol=1e-9)
    checks.close("x_T from far away", last[1], slow, rtol=1e-9)
    picture = pictures.row(
        {"horizon": horizons, "gap": curves, "bound": [bound, bound]},
        titles,
        "horizon",
        "gap",
        "bound",
    )
    return claims.Outcome(checks, picture, data)
