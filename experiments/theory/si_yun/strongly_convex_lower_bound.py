"""Theorem 3.2: no constant step size does better than 1/T^2."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments.theory import claims, pictures
from experiments.theory.si_yun import _family
from sam_jax.theory import descent, problems, step_sizes
from sam_jax.theory.step_sizes import si_yun

CLAIM = claims.Claim(
    title="Strongly convex, deterministic: 1/T^2 cannot be improved",
    source="Si and Yun 2023, Theorem 3.2",
    statement="""For every constant step size there is a smooth strongly convex function
on which SAM's gap after T steps is of order rho^2 / T^2 at least (as recalled).
Derived, in two cases: with eta >= 1/(mu T), on beta x^2/2 from its 2-cycle, **f(x_T) -
f* >= beta^3 rho^2 / (8 mu^2 T^2)**; with eta < 1/(mu T), on mu x^2/2, x_T = (1 - eta
mu)^T (x_0 + rho) - rho, which stays away from 0.""",
    recipe="""mu = 0.1, beta = 1, rho = 0.1; T = 1,000, 10,000, 100,000 (not the last
one in the short form). First case: eta mu T = 1, 2, 5, start on the cycle. Second: eta
mu T = 0.1, 0.5, 0.99, start 1.""",
    criterion="""First case: above the lower bound, and the gap is the cycle's to 1e-9.
Second: x_T is the closed form to 1e-9, above the lower bound.""",
)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` leaves the largest horizon out."""
    mu, beta, rho = 0.1, 1.0, 0.1
    horizons = np.array([1_000, 10_000] if quick else [1_000, 10_000, 100_000])
    members = [problems.quadratic([curvature], [1.0]) for curvature in (beta, mu)]
    shares = np.array([[1.0, 2.0, 5.0], [0.1, 0.5, 0.99]])  # case, setting
    etas = shares[..., None] / (mu * horizons)  # case, setting, horizon
    cycles = np.vectorize(si_yun.cycle_amplitude)(etas[0], smoothness=beta, rho=rho)
    starts = np.stack([cycles, np.ones_like(cycles)])
    cases = np.broadcast_to(np.arange(2)[:, None, None], etas.shape)

    @jax.jit
    @jax.vmap
    def descend(case: jax.Array, eta: jax.Array, start: jax.Array) -> jax.Array:
        problem = _family.one_of(members, case)
        tx = optax.chain(sam_jax.sam(rho), optax.sgd(eta))
        return descent.descend(
            tx,
            descent.exact(problem),
            start[None],
            horizons,
            record=lambda x: x[0],
        ).recorded

    found = descend(*(jnp.asarray(a.ravel()) for a in (cases, etas, starts)))
    # Of each run, the iterate at its own horizon.
    every = np.asarray(found).reshape(*etas.shape, len(horizons))
    last = np.einsum("csii->csi", every)
    known = step_sizes.Constants(mu, beta)
    bound = si_yun.strongly_convex_lower_bound(known, rho, horizons)
    slow = si_yun.slow_descent(known, step_sizes.Rule(rho, etas[1]), 1.0, horizons)
    gaps = np.array([beta, mu])[:, None, None] * last**2 / 2

    picture, (left, right) = pictures.panels(2)
    for i, share in enumerate(shares[0]):
        left.plot(horizons, gaps[0, i], "o-", label=f"eta mu T = {share:g}")
    pictures.bound(left, horizons, bound, "beta^3 rho^2 / (8 mu^2 T^2)")
    pictures.log_log(left, "horizon T", "f(x_T) - f*", "beta x^2/2, on the cycle")
    for i, share in enumerate(shares[1]):
        right.plot(horizons, gaps[1, i], "o-", label=f"eta mu T = {share:g}")
    pictures.bound(right, horizons, bound, "beta^3 rho^2 / (8 mu^2 T^2)")
    pictures.log_log(right, "horizon T", "f(x_T) - f*", "mu x^2/2, from 1")
    pictures.legends([left], loc="lower left")
    pictures.legends([right])
    return claims.Outcome(
        checks=[
            claims.at_least("gap on the cycle, eta mu T = 1", gaps[0, 0], bound),
            claims.at_least("gap, all settings", gaps, bound),
            claims.close("|x_T| on the cycle", np.abs(last[0]), cycles, rtol=1e-9),
            claims.close("x_T from far away", last[1], slow, rtol=1e-9),
        ],
        picture=picture,
        data={"horizon": horizons, "eta": etas, "gap": gaps, "bound": bound},
    )
