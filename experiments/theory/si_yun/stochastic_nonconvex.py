"""Theorems 4.5 and 4.6: stochastic SAM on non-convex functions."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.theory import claims, pictures
from experiments.theory.si_yun import _chains
from sam_jax.theory import descent, finite_sums, step_sizes
from sam_jax.theory.step_sizes import si_yun

CLAIM = claims.Claim(
    title="Non-convex, stochastic: n-SAM's gradient, m-SAM's (||grad f|| - beta rho)^2",
    source="Si and Yun 2023, Theorems 4.5, 4.6 and Table 1",
    statement="""On smooth non-convex functions n-SAM makes the mean of E||grad f||^2
small up to O(rho^2); for m-SAM on Lipschitz functions the paper bounds the mean of
E(||grad f|| - beta rho)^2 (as recalled). Derived, with E||g||^2 <= M^2: **2 Delta/(eta
T) + beta^2 rho^2 + beta eta sigma^2** for n-SAM, eta <= 1/beta, and 2 Delta/(eta T) +
beta^2 rho^2 + beta eta M^2 for m-SAM and any eta. The general bound of the convex case
needs no convexity and holds for m-SAM too.""",
    recipe="""Residuals z^2/(1 + z^2) of 12 random examples in 4 dimensions, single
uniform samples, sigma^2 <= M^2 = (27/64) mean ||a_i||^2; rho = 0.02, 0.1, 0.3; eta beta
= 0.2, 1 and eta(T) by the rules, with beta of f for n-SAM, the largest of a component
for m-SAM; T = 2,000 (300 in the short form), 100 chains (20).""",
    criterion="""Means plus 3 standard errors are below all three bounds at every
checkpoint. They are upper bounds with room, which SGD meets too; the one of
(||grad f|| - beta rho)^2 holds by itself wherever ||grad f|| <= 2 beta rho.""",
)

RHOS = np.array([0.02, 0.1, 0.3])


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes fewer steps and chains."""
    generator = np.random.default_rng(1)
    matrix = generator.normal(size=(12, 4))
    problem = finite_sums.bounded_residuals(matrix, generator.normal(size=12))
    start, steps = problem.start, 300 if quick else 2_000
    gap = float(problem.gap(jnp.asarray(start)))
    second_moment = 27 / 64 * float((matrix**2).sum(1).mean())
    checkpoints = descent.geometric(steps, 40)[1:]
    betas = {"n-SAM": problem.smoothness, "m-SAM": problem.largest_smoothness}
    known = {
        name: step_sizes.Constants(
            0.0, beta, variance=second_moment, second_moment=second_moment
        )
        for name, beta in betas.items()
    }
    rules = {
        "n-SAM": si_yun.n_sam_nonconvex(known["n-SAM"], gap, steps),
        "m-SAM": si_yun.m_sam_lipschitz(known["m-SAM"], gap, steps),
    }
    etas = {
        name: np.tile([rules[name], 0.2 / beta, 1 / beta], 3)
        for name, beta in betas.items()
    }

    def measure(x: jax.Array) -> jax.Array:
        norm = jnp.linalg.norm(problem.gradient(x))
        return jnp.r_[norm, norm - betas["m-SAM"] * RHOS] ** 2

    _, means = _chains.sam_chains(
        problem,
        start,
        np.repeat([1.0, 0.0], 9),
        np.tile(np.repeat(RHOS, 3), 2),
        np.concatenate([etas["n-SAM"], etas["m-SAM"]]),
        checkpoints,
        chains=20 if quick else 100,
        record=lambda x: (),
        mean_of=measure,
    )
    found = {
        name: _chains.Estimate(*parts)
        for name, *parts in zip(
            etas, *(np.split(part, 2) for part in means), strict=True
        )
    }
    # [setting, checkpoint], setting = radius, step size; m-SAM's shifted norm of each.
    high = {name: e.mean + 3 * e.error for name, e in found.items()}
    setting = np.arange(9)
    shifted = high["m-SAM"][setting, :, 1 + setting // 3]
    shifted_mean = found["m-SAM"].mean[setting, :, 1 + setting // 3]
    formulas = {
        "n-SAM": ("n-SAM", si_yun.n_sam_nonconvex_bound),
        "m-SAM": ("m-SAM", si_yun.stochastic_bound),
        "m-SAM, shifted": ("m-SAM", si_yun.m_sam_lipschitz_bound),
    }
    radii = np.repeat(RHOS, 3)[:, None]
    bounds = {
        name: formula(
            known[kind], step_sizes.Rule(radii, etas[kind][:, None]), gap, checkpoints
        )
        for name, (kind, formula) in formulas.items()
    }
    measured = {
        "n-SAM": found["n-SAM"].mean[..., 0],
        "m-SAM": found["m-SAM"].mean[..., 0],
        "m-SAM, shifted": shifted_mean,
    }

    picture, panels = pictures.panels(3, width=3.6)
    titles = (
        "n-SAM: E||grad f||^2",
        "m-SAM: E||grad f||^2",
        "m-SAM: E(||grad f|| - beta rho)^2",
    )
    for panel, name, title in zip(panels, measured, titles, strict=True):
        for i, (rho, color) in enumerate(zip(RHOS, pictures.COLORS, strict=False)):
            mean, bound = measured[name][3 * i], bounds[name][3 * i]
            panel.plot(checkpoints, mean, color=color, label=f"rho = {rho:g}")
            panel.plot(checkpoints, bound, "--", color=color, linewidth=0.9)
        pictures.log_log(panel, "T", "mean over t < T", f"{title}, bounds dashed")
        panel.title.set_fontsize(8)
    pictures.legends(panels[:1])
    return claims.Outcome(
        checks=[
            claims.at_most(
                "n-SAM: mean E||grad f||^2", high["n-SAM"][..., 0], bounds["n-SAM"]
            ),
            claims.at_most(
                "m-SAM: mean E(||grad f|| - beta rho)^2",
                shifted,
                bounds["m-SAM, shifted"],
            ),
            claims.at_most(
                "m-SAM: mean E||grad f||^2", high["m-SAM"][..., 0], bounds["m-SAM"]
            ),
        ],
        picture=picture,
        data={
            "checkpoint": checkpoints,
            "rho": RHOS,
            "eta": etas,
            "mean": {name: m[::3] for name, m in measured.items()},
            "bound": {name: b[::3] for name, b in bounds.items()},
        },
    )
