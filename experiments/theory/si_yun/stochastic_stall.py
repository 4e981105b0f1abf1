"""Theorem 4.2: m-SAM stalls at a distance of order rho, with probability one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments.theory import claims, pictures
from experiments.theory.si_yun import _family
from sam_jax.theory import descent, finite_sums, sampling

CLAIM = claims.Claim(
    title="Strongly convex, stochastic: m-SAM stalls at a gap of order rho^2",
    source="Si and Yun 2023, Theorems 4.2 and 4.4; the functions are ours",
    statement="""On smooth strongly convex functions stochastic SAM with one sample for
both gradients (m-SAM) does not get below a gap of order rho^2, whatever the step size
(as recalled). On a construction of ours, f(x) = a x^2/2 with components whose noise
vanishes at c = -rho/3, **every path converges to c**, where f - f* = **a rho^2/18**,
||grad f||^2 = a^2 rho^2/9; for starts with (x_0 - c)/rho in [-0.2027, 0.155] the gap is
never below 0.0159 a rho^2, hence ||grad f||^2, and every mean of it, never below 0.0318
a^2 rho^2. With the full gradient in the ascent (n-SAM) or without
ascent (SGD) the gap is of order eta.""",
    recipe="""a = 1; rho = 0.01, 0.03, 0.1, 0.3, 1; eta = 0.1; starts c + (-0.2, 0,
0.14) rho, and rho, -1, 3; 100 chains of each (20 in the short form), 3,000
steps. Controls from c with rho = 0.3, eta = 0.1 and 0.02, 500 chains (100).""",
    criterion="""All chains end in -rho/3 to 1e-9 rho, the exponent of the gap in rho is
2 to 1e-6; from the starts near c the gap is above 0.0159 a rho^2 in every step
recorded. The controls' mean gap is below a tenth of the floor at eta = 0.02, and falls
with eta.""",
)

RHOS = np.array([0.01, 0.03, 0.1, 0.3, 1.0])
REFERENCE = 3  # the radius of the pictures and the controls
# Multiples of rho, and what is added to them.
STARTS = np.array([[-1 / 3 - 0.2, -1 / 3, -1 / 3 + 0.14, 1, 0, 0], [0, 0, 0, 0, -1, 3]])


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` has fewer chains."""
    members = [finite_sums.vanishing_noise(1.0, rho, 0.0) for rho in RHOS]
    scheme, checkpoints = sampling.uniform(3), descent.geometric(3_000, 40)

    def path(method, eta, oracle, start, key) -> jax.Array:
        tx = optax.chain(method, optax.sgd(eta))
        return descent.descend(
            tx, oracle, start[None], checkpoints, record=lambda x: x[0], key=key
        ).recorded

    @jax.jit
    @jax.vmap
    def m_sam(i, share, eta, start, key) -> jax.Array:
        """m-SAM of radius share * rho, hence SGD for 0."""
        oracle = descent.same_sample(_family.one_of_sums(members, i), scheme)
        method = sam_jax.sam(share * jnp.asarray(RHOS)[i])
        return path(method, eta, oracle, start, key)

    @jax.jit
    @jax.vmap
    def n_sam(eta, start, key) -> jax.Array:
        oracle = descent.full_ascent(members[REFERENCE], scheme)
        return path(sam_jax.sam(RHOS[REFERENCE]), eta, oracle, start, key)

    chains = 20 if quick else 100
    which, place, _ = np.indices((len(RHOS), 6, chains)).reshape(3, -1)
    starts = STARTS[0] * RHOS[:, None] + STARTS[1]
    etas, at_stall = np.repeat([0.1, 0.02], 5 * chains), -RHOS[REFERENCE] / 3
    shape = etas.shape
    found = m_sam(
        np.r_[which, np.full(shape, REFERENCE)],
        np.r_[np.ones(which.shape), np.zeros(shape)],
        np.r_[np.full(which.shape, 0.1), etas],
        np.r_[starts[which, place], np.full(shape, at_stall)],
        jax.random.split(jax.random.key(0), which.size + etas.size),
    )
    found, sgd = np.split(np.asarray(found), [which.size])
    keys = jax.random.split(jax.random.key(1), etas.size)
    paths = {
        "SGD": sgd,
        "n-SAM": np.asarray(n_sam(etas, np.full(shape, at_stall), keys)),
    }
    x = found.reshape(len(RHOS), 6, chains, -1)
    scaled = x / RHOS[:, None, None, None]
    gaps = (x[..., -1] ** 2 / 2).mean((1, 2))
    exponent = np.polyfit(np.log(RHOS), np.log(gaps), 1)[0]
    near = scaled[:, :3] ** 2 / 2

    controls = {  # [eta, checkpoint]
        name: (p**2 / 2).reshape(2, etas.size // 2, -1).mean(1) / RHOS[REFERENCE] ** 2
        for name, p in paths.items()
    }
    ends = np.stack([control[:, -1] for control in controls.values()])

    picture, (left, right) = pictures.panels(2)
    time = checkpoints + 1
    left.plot(
        time, scaled[REFERENCE, :3, :5].reshape(15, -1).T, color="#0072B2", lw=0.8
    )
    pictures.bound(left, None, -1 / 3, "c = -rho/3")
    pictures.linear(left, "iteration + 1", "x / rho", "m-SAM: 15 paths, rho = 0.3")
    left.set_xscale("log")
    right.plot(time, (scaled[REFERENCE, 1:4] ** 2 / 2).mean((0, 1)), label="m-SAM")
    for name, control in controls.items():
        for eta, line, gap in zip((0.1, 0.02), "-:", control, strict=True):
            color = pictures.COLORS[1 + list(controls).index(name)]
            label = f"{name}, eta = {eta}"
            right.plot(time, gap, line, color=color, label=label)
    pictures.bound(right, None, 1 / 18, "1/18")
    right.set_ylim(2e-7, 0.5)
    pictures.log_log(right, "iteration + 1", "E f(x) / (a rho^2)", "mean gap")
    pictures.legends([left])
    pictures.legends([right], loc="lower left", fontsize=7)
    return claims.Outcome(
        checks=[
            claims.close("gap / (a rho^2), mean", gaps / RHOS**2, 1 / 18, rtol=1e-9),
            claims.close("exponent of the gap in rho", exponent, 2.0, atol=1e-6),
            claims.close("x / rho, every chain", scaled[..., -1], -1 / 3, atol=1e-9),
            claims.at_least("gap / (a rho^2), every step near c", near, 0.0159),
            claims.at_most(
                "gap / (a rho^2) of SGD and n-SAM, eta = 0.02", ends[:, 1], 1 / 180
            ),
            claims.at_most(
                "the same, of that with eta = 0.1", ends[:, 1] / ends[:, 0], 0.5
            ),
        ],
        picture=picture,
        data={
            "rho": RHOS,
            "gap": gaps,
            "checkpoint": checkpoints,
            "paths": scaled[REFERENCE, :3, :5],
            "controls": controls,
        },
    )
