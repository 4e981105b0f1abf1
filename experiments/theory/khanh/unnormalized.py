"""Theorems 4.1 and 4.2: USAM and extragradient with constant steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments.theory import claims, pictures
from experiments.theory.khanh import _methods, _pictures
from sam_jax.theory import descent, finite_sums, problems
from sam_jax.theory.step_sizes import khanh

CLAIM = claims.Claim(
    title="USAM and extragradient converge with constant step size and radius",
    source="Khanh et al. 2024, Theorems 4.1 and 4.2",
    statement="""With nu in [0, 1), rho_k <= nu/L, sum t_k = inf and
t_k <= (2 - 2nu - delta)/(L (1 + nu)^2), constant or diminishing: f(x_k) decreases,
grad f(x_k) -> 0, and under the KL property x_k converges, linearly for q <= 1/2 if t_k
is bounded away from 0. The factor of the gap, **1 - t mu (2 - 2nu - Lt (1 + nu)^2)**
under the Polyak-Lojasiewicz inequality, is ours. SAM with the same t and rho stops at
its 2-cycle.""",
    recipe="""A quadratic (1, 3, 10), ridge-regularized logistic regression (30 x 5),
and, not convex, sums of log(1 + r^2) (n = 4) and (xy - 1)^2; nu = 0.5, delta = 0.1,
rho = nu/L, t the largest allowed, constant or times k^-0.5; 4,000 steps.""",
    criterion="""f never rises by more than rounding; every gap on the first two obeys
the factor; on the quadratic the slowest mode contracts by 1 - tl(1 +- rho l) to 1e-6;
the last gradient is below 1e-6 of the first (constant t) and 0.2 of it (diminishing
t); with constant t the iterates of the last tenth lie within 1e-6 of the last one (KL:
these functions are analytic). SAM on the quadratic ends at t rho l/(2 - tl).""",
)
NU, DELTA = 0.5, 0.1


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` changes nothing here."""
    del quick
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(30, 5)), generator.normal(size=30)
    # Well conditioned, so that the linear rate shows within the steps.
    matrix = np.eye(4) + 0.3 * generator.normal(size=(4, 4))
    target = generator.normal(size=4)
    chosen: dict[str, problems.Problem] = {
        "quadratic": problems.quadratic([1.0, 3.0, 10.0], [1.0, 1.0, 1.0]),
        "logistic": finite_sums.logistic(features, np.sign(labels), l2=0.05),
        "log(1 + r^2)": problems.log_residuals(matrix, target, np.zeros(4)),
        "(xy - 1)^2": problems.hyperbola(),
    }
    # Every one of the first steps, then every 20th.
    checkpoints = np.r_[np.arange(100), np.arange(100, 4001, 20)]
    t = {
        name: khanh.relative_error_step_size(problem.smoothness, NU, DELTA)
        for name, problem in chosen.items()
    }
    rho = {
        name: khanh.unnormalized_radius(problem.smoothness, NU)
        for name, problem in chosen.items()
    }

    @jax.jit
    @jax.vmap
    def descend(power: jax.Array):
        def one(make: _methods.Make, name: str):
            problem = chosen[name]
            tx = optax.chain(
                make(rho[name]), optax.sgd(lambda k: t[name] * (k + 1.0) ** -power)
            )
            return descent.descend(
                tx,
                descent.exact(problem),
                problem.start,
                checkpoints,
                record=lambda x: {
                    "x": x,
                    "gap": problem.gap(x),
                    "gradient": jnp.linalg.norm(problem.gradient(x)),
                },
            ).recorded

        runs = {
            (method, name): one(make, name)
            for method, make in _methods.UNNORMALIZED.items()
            for name in chosen
        }
        runs["SAM", "quadratic"] = one(sam_jax.sam, "quadratic")
        return {f"{method}: {name}": run for (method, name), run in runs.items()}

    found = jax.tree.map(np.asarray, descend(jnp.array([0.0, 0.5])))
    rises, obeyed, last, moved = [], [], [], []
    for method in _methods.UNNORMALIZED:
        for name, problem in chosen.items():
            recorded = found[f"{method}: {name}"]
            rises.append(np.diff(recorded["gap"], axis=1).max())
            last.append(recorded["gradient"][:, -1] / recorded["gradient"][:, 0])
            late = recorded["x"][0, checkpoints >= 3600]
            moved.append(np.linalg.norm(late - late[-1], axis=-1).max())
            if problem.pl:
                factor = khanh.linear_factor(
                    t[name], problem.smoothness, problem.pl, NU
                )
                gap = recorded["gap"][0]
                obeyed.append(gap[:100] / (gap[0] * factor ** checkpoints[:100]))
    modes = np.array([1.0, 3.0, 10.0])
    contraction, contracted = [], []
    for method, sign in zip(_methods.UNNORMALIZED, (1, -1), strict=True):
        length = rho["quadratic"] * modes
        factors = np.abs(1 - t["quadratic"] * modes * (1 + sign * length))
        contraction.append(factors.max())
        distance = np.linalg.norm(found[f"{method}: quadratic"]["x"][0], axis=-1)
        contracted.append(distance[99] / distance[98])
    cycle = khanh.two_cycle(t["quadratic"], rho["quadratic"], 10.0)
    stalled = np.linalg.norm(found["SAM: quadratic"]["x"][0, -1])

    picture, panels = pictures.panels(2)
    seen = slice(0, 296, 3)
    for name in chosen:
        for panel, i in zip(panels, (0, 1), strict=True):
            gradient = found[f"USAM: {name}"]["gradient"][i]
            panel.plot(checkpoints[seen] + 1, gradient[seen], label=f"USAM, {name}")
    for panel, i in zip(panels, (0, 1), strict=True):
        gradient = found["SAM: quadratic"]["gradient"][i]
        panel.plot(checkpoints[seen] + 1, gradient[seen], label="SAM, quadratic")
    pictures.bound(panels[0], None, 10 * cycle, "2-cycle of SAM")
    for panel, title in zip(panels, ("t constant", "t k^-0.5"), strict=True):
        panel.set_ylim(1e-16, 300)
        pictures.log_log(panel, "iteration k", "||grad f||", title)
    _pictures.legend_below(picture, panels[0])
    return claims.Outcome(
        checks=[
            claims.at_most(
                "last / first gradient norm, constant t",
                [share[0] for share in last],
                1e-6,
            ),
            claims.at_most(
                "last / first gradient norm, t k^-0.5",
                [share[1] for share in last],
                0.2,
            ),
            claims.at_most("movement of x in the last tenth, constant t", moved, 1e-6),
            claims.at_most("largest rise of f between checkpoints", rises, 1e-14),
            claims.at_most("gap / (factor^k first gap)", obeyed, 1 + 1e-9),
            claims.close(
                "quadratic: contraction of the slowest mode",
                contracted,
                contraction,
                rtol=1e-6,
            ),
            claims.close("SAM on the quadratic: distance", stalled, cycle, rtol=1e-9),
        ],
        picture=picture,
        data={
            "steps": checkpoints[seen],
            "step_size": t,
            "rho": rho,
            "gradient": {
                name: recorded["gradient"][:, seen] for name, recorded in found.items()
            },
        },
    )
