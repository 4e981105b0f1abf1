"""Theorem 4.2: m-SAM stalls at a distance of order rho, with probability one."""

import jax
import jax.numpy as jnp
import numpy as np

import sam_jax
from experiments.theory import claims, pictures, runs
from sam_jax.theory import descent, finite_sums, sampling

CLAIM = claims.Claim(
    title="Strongly convex, stochastic: m-SAM stalls at a gap of order rho^2",
    source="Si and Yun 2023, Theorems 4.2 and 4.4; the functions are ours",
    statement=r"""On smooth strongly convex functions stochastic SAM with one sample
for both gradients (m-SAM) does not get below a gap of order $\rho^2$, whatever the step
size (unverified). We construct $f(x) = a x^2/2$ with components whose noise vanishes
at $c = -\rho/3$. Every path converges to $c$, where

$$
f - f^* = \frac{a \rho^2}{18}, \qquad \|\nabla f\|^2 = \frac{a^2 \rho^2}{9}.
$$

For starts with $(x_0 - c)/\rho \in [-0.2027, 0.155]$ the gap is never below
$0.0159\, a \rho^2$. Hence $\|\nabla f\|^2$ and all its means are never below
$0.0318\, a^2 \rho^2$. With the full gradient in the ascent (n-SAM) or without ascent
(SGD) the gap is of order $\eta$.""",
    recipe="""a = 1; rho = 0.01, 0.03, 0.1, 0.3, 1; eta = 0.1; starts c + (-0.2, 0,
0.14) rho, and rho, -1, 3; 100 chains of each (20 in the short form), 3,000
steps. Controls from c with rho = 0.3, eta = 0.1 and 0.02, 500 chains (100).""",
    criterion="""All chains end at -rho/3 to 1e-9 rho. The exponent of the gap in rho is
2 to 1e-6. From the starts near c the gap is above 0.0159 a rho^2 in every recorded
step. The controls' mean gap at eta = 0.02 is below a tenth of the floor and falls with
eta.""",
)

RHOS = np.array([0.01, 0.03, 0.1, 0.3, 1.0])
REFERENCE = 3  # the radius of the pictures and the controls
# Multiples of rho, and the constants added to them.
STARTS = np.array([[-1 / 3 - 0.2, -1 / 3, -1 / 3 + 0.14, 1, 0, 0], [0, 0, 0, 0, -1, 3]])
MEMBERS = [finite_sums.vanishing_noise(1.0, rho, 0.0) for rho in RHOS]
CHECKPOINTS = descent.geometric(3_000, 40)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` has fewer chains."""
    x, paths = _paths(20 if quick else 100)
    scaled = x / RHOS[:, None, None, None]
    gaps = (x[..., -1] ** 2 / 2).mean((1, 2))
    exponent = np.polyfit(np.log(RHOS), np.log(gaps), 1)[0]
    near = scaled[:, :3] ** 2 / 2
    controls = {  # [eta, checkpoint]
        name: (path**2 / 2).mean(1) / RHOS[REFERENCE] ** 2
        for name, path in paths.items()
    }
    ends = np.stack([control[:, -1] for control in controls.values()])
    data = {"rho": RHOS, "gap": gaps, "checkpoint": CHECKPOINTS}
    data |= {"paths": scaled[REFERENCE, :3, :5], "controls": controls}
    shown = {
        "iteration + 1": CHECKPOINTS + 1,
        "x / rho": scaled[REFERENCE, :3, :5].reshape(15, -1),
        "-1/3": -1 / 3,
        "E f(x) / (a rho^2)": {
            "m-SAM": (scaled[REFERENCE, 1:4] ** 2 / 2).mean((0, 1)),
            **{
                f"{name}, eta = {eta}": gap
                for name, control in controls.items()
                for eta, gap in zip((0.1, 0.02), control, strict=True)
            },
        },
        "1/18": 1 / 18,
    }
    picture = pictures.draw(
        shown,
        pictures.Panel("iteration + 1", "x / rho", "-1/3", "m-SAM, 15 paths", log="x"),
        pictures.Panel("iteration + 1", "E f(x) / (a rho^2)", "1/18", "mean gap"),
    )
    picture.axes[0].get_legend().remove()  # pyright: ignore[reportOptionalMemberAccess]
    checks = claims.Checks()
    checks.close("gap / (a rho^2), mean", gaps / RHOS**2, 1 / 18, rtol=1e-9)
    checks.close("exponent of the gap in rho", exponent, 2.0, atol=1e-6)
    checks.close("x / rho, every chain", scaled[..., -1], -1 / 3, atol=1e-9)
    checks.at_least("gap / (a rho^2), every step near c", near, 0.0159)
    checks.at_most("gap / (a rho^2) of SGD and n-SAM, eta = 0.02", ends[:, 1], 1 / 180)
    checks.at_most("their gap over that at eta = 0.1", ends[:, 1] / ends[:, 0], 0.5)
    return claims.Outcome(checks, picture, data)


def _paths(chains: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Paths of m-SAM, [radius, start, chain, checkpoint]; controls, [eta, chain, .]."""
    scheme = sampling.uniform(3)

    def path(method, eta, oracle, start, key) -> jax.Array:
        return runs.descend(
            MEMBERS[0],
            method,
            eta,
            CHECKPOINTS,
            lambda x: x[0],
            start=start[None],
            oracle=oracle,
            key=key,
        ).recorded

    def m_sam(i, share, eta, start, key) -> jax.Array:
        """m-SAM of radius share * rho, hence SGD for 0."""
        oracle = descent.same_sample(runs.one_of(MEMBERS, i), scheme)
        return path(sam_jax.sam(share * jnp.asarray(RHOS)[i]), eta, oracle, start, key)

    def n_sam(eta, start, key) -> jax.Array:
        oracle = descent.full_ascent(MEMBERS[REFERENCE], scheme)
        return path(sam_jax.sam(RHOS[REFERENCE]), eta, oracle, start, key)

    which, place, _ = np.indices((len(RHOS), 6, chains)).reshape(3, -1)
    starts = STARTS[0] * RHOS[:, None] + STARTS[1]
    etas, at_stall = np.repeat([0.1, 0.02], 5 * chains), -RHOS[REFERENCE] / 3
    found = runs.each(
        m_sam,
        np.r_[which, np.full(etas.shape, REFERENCE)],
        np.r_[np.ones(which.shape), np.zeros(etas.shape)],
        np.r_[np.full(which.shape, 0.1), etas],
        np.r_[starts[which, place], np.full(etas.shape, at_stall)],
        jax.random.split(jax.random.key(0), which.size + etas.size),
    )
    found, sgd = np.split(found, [which.size])
    other = runs.each(
        n_sam, etas, at_stall, jax.random.split(jax.random.key(1), etas.size)
    )
    controls = {"SGD": sgd, "n-SAM": other}
    return found.reshape(len(RHOS), 6, chains, -1), {
        name: values.reshape(2, 5 * chains, -1) for name, values in controls.items()
    }
