"""Theorem 3.5: deterministic SAM stalls where the gradient is of order beta rho."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments.theory import claims, pictures
from experiments.theory.si_yun import _family
from sam_jax.theory import descent, problems
from sam_jax.theory.step_sizes import si_yun

CLAIM = claims.Claim(
    title="Non-convex, deterministic: SAM stalls at ||grad f||^2 = 0.0274 beta^2 rho^2",
    source="Si and Yun 2023, Theorem 3.5",
    statement="""The floor of order rho^2 cannot be removed (as recalled). On f(x) = (9
beta rho^2/(25 pi^2)) sin(5 pi x/(3 rho)) and for eta <= 1/beta SAM converges, from
every start that is not a stationary point, to a point where the *perturbed* point is a
minimum: **||grad f||^2 -> 27 beta^2 rho^2/(100 pi^2)**, f - f* -> 9 beta rho^2/(50
pi^2); from a start within 0.1 rho of 0 the gradient is never smaller. Without
normalization, without ascent or with a decaying radius the gradient vanishes.""",
    recipe="""(beta, rho, eta beta) = (1, 1, 0.5), (2, 0.3, 0.2), (5, 0.05, 1), (0.5,
0.3, 0.1); twelve starts over a period and five in [-0.1 rho, 0.1 rho], 500 steps.
Controls from 0.05 rho: USAM and gradient descent for 500 steps, rho/sqrt(t + 1) and
rho/(t + 1) for 20,000 (5,000 in the short form).""",
    criterion="""Squared gradient and gap are their constants to 1e-9, the perturbed
gradient is 0 to 1e-9; the lower bound holds in every step; USAM and gradient descent
reach 1e-9, decaying radii 1 % of beta rho.""",
)

# beta, rho, eta beta
SETTINGS = np.array([[1, 1, 0.5], [2, 0.3, 0.2], [5, 0.05, 1.0], [0.5, 0.3, 0.1]])
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
    beta, rho, eta = SETTINGS[:, 0], SETTINGS[:, 1], SETTINGS[:, 2] / SETTINGS[:, 0]
    members = [problems.sinusoid(b, r, 0.0) for b, r in zip(beta, rho, strict=True)]

    @jax.jit
    @jax.vmap
    def stall(i: jax.Array, start: jax.Array) -> dict[str, jax.Array]:
        problem, radius = _family.one_of(members, i), jnp.asarray(rho)[i]

        def measure(x: jax.Array) -> dict[str, jax.Array]:
            gradient = problem.gradient(x)[0]
            ahead = problem.gradient(x + radius * jnp.sign(gradient))[0]
            return {"gradient": gradient, "ahead": ahead, "value": problem.value(x)}

        tx = optax.chain(sam_jax.sam(radius), optax.sgd(jnp.asarray(eta)[i]))
        oracle, every = descent.exact(problem), np.arange(501)
        x = radius * start[None]
        return descent.descend(tx, oracle, x, every, record=measure).recorded

    checkpoints = np.union1d(descent.geometric(5_000 if quick else 20_000), [500])

    @jax.jit
    @jax.vmap
    def control(
        i: jax.Array, lam: jax.Array, share: jax.Array, exponent: jax.Array
    ) -> jax.Array:
        problem, radius = _family.one_of(members, i), jnp.asarray(rho)[i]
        method = sam_jax.unified_sam(
            lambda count: share * radius / (count + 1.0) ** exponent, lam=lam
        )
        tx = optax.chain(method, optax.sgd(jnp.asarray(eta)[i]))
        x = 0.05 * radius[None]
        return descent.descend(
            tx,
            descent.exact(problem),
            x,
            checkpoints,
            record=lambda x: jnp.abs(problem.gradient(x)[0]),
        ).recorded

    which, starts = np.meshgrid(np.arange(4), STARTS, indexing="ij")
    found = stall(jnp.asarray(which.ravel()), jnp.asarray(starts.ravel()))
    seen = {k: np.asarray(v).reshape(4, len(STARTS), -1) for k, v in found.items()}
    scale, height = (beta * rho)[:, None, None], (beta * rho**2)[:, None, None]
    gradient, ahead = seen["gradient"] / scale, seen["ahead"] / scale
    lowest = np.array([member.minimum for member in members])[:, None, None]
    gap = (seen["value"] - lowest) / height
    stalled = float(si_yun.stall_gradient())
    # USAM needs beta rho < 1: the first setting is left out.
    which, method = np.meshgrid(np.arange(1, 4), np.arange(4), indexing="ij")
    constants = np.array(list(CONTROLS.values()))[method.ravel()]
    controls = (
        np.asarray(
            control(jnp.asarray(which.ravel()), *jnp.asarray(constants.T))
        ).reshape(3, 4, -1)
        / (beta * rho)[1:, None, None]
    )
    at_500 = int(np.searchsorted(checkpoints, 500))

    picture, (left, right) = pictures.panels(2)
    shown = np.arange(1, 501)
    left.plot(shown, gradient[1, 14, 1:] ** 2, label="SAM")
    for i, name in enumerate(CONTROLS):
        left.plot(checkpoints[1:], controls[0, i, 1:] ** 2, label=name)
    pictures.bound(left, None, stalled**2, "27 / (100 pi^2)")
    left.set_ylim(1e-25, 1)
    pictures.log_log(left, "iteration", "(f' / (beta rho))^2", "beta = 2, rho = 0.3")
    grid = np.linspace(-0.6, 1.3, 400)
    wave, here = members[0].value, np.array([-0.1, 0.7])
    height_at = jax.vmap(lambda z: wave(z[None]) + 9 / (25 * np.pi**2))
    right.plot(grid, height_at(jnp.asarray(grid)), color="#555555")
    right.plot(here, height_at(jnp.asarray(here)), "o", label="SAM stalls: x")
    # Where its perturbed point lies, but for a period.
    there = here + np.array([-0.2, 0.2])
    right.plot(there, height_at(jnp.asarray(there)), "v", label="y, modulo 1.2 rho")
    pictures.linear(right, "x / rho", "(f - f*) / (beta rho^2)", "the function")
    pictures.legends([left], loc="lower right", fontsize=7)
    pictures.legends([right])
    return claims.Outcome(
        checks=[
            claims.close(
                "f'^2 / (beta rho)^2, all starts",
                gradient[..., -1] ** 2,
                stalled**2,
                rtol=1e-9,
            ),
            claims.close(
                "(f - f*) / (beta rho^2)",
                gap[..., -1],
                float(si_yun.stall_gap()),
                rtol=1e-9,
            ),
            claims.close("f'(perturbed) / (beta rho)", ahead[..., -1], 0, atol=1e-9),
            claims.at_least(
                "f'^2 / (beta rho)^2 in every step, |x_0| <= 0.1 rho",
                gradient[:, 12:] ** 2,
                stalled**2 * (1 - 1e-9),
            ),
            claims.at_most(
                "|f'| / (beta rho) of USAM and GD", controls[:, :2, at_500], 1e-9
            ),
            claims.at_most(
                "|f'| / (beta rho), decaying radius", controls[:, 2:, -1], 0.01
            ),
        ],
        picture=picture,
        data={
            "start": STARTS,
            "gradient": gradient[..., -1],
            "gap": gap[..., -1],
            "checkpoint": checkpoints,
            "controls": dict(zip(CONTROLS, controls[0], strict=True)),
        },
    )
