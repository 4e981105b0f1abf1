"""A non-convex loss of real data: what the radius and the step size must do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments.theory import claims, pictures
from sam_jax.theory import conditions, descent, families, finite_sums, step_sizes
from sam_jax.theory.step_sizes import khanh, si_yun

CLAIM = claims.Claim(
    title="On a non-convex real problem the condition checker is right",
    source="ours; Corollary 3.5 and Theorem 4.2 of Khanh et al. 2024, Theorem 3.4 of "
    "Si and Yun 2023",
    statement="""Digits with the non-convex regularizer sum_j x_j^2/(1 + x_j^2), full
gradients. SAM with a constant step size and radius does not converge: it ends in the
2-cycle of the Hessian's top eigenvalue l, where ||grad f|| = l t rho l/(2 - t l) to
leading order in rho; the mean of ||grad f||^2 is below 2 D/(eta T) + L^2 rho^2
(Theorem 3.4). Where `sam_jax.theory.conditions` derives lim ||grad f|| = 0, **the
gradient does tend to zero:** gradient descent and USAM with constants, SAM with
t_k = 1/(L k^0.6) and rho_k = C/k^0.5. The diminishing radius alone, which no theorem
covers, is enough here.""",
    recipe="""Digits 3 and 8, coefficient 0.1, L from the data, from the origin.
t = 1/(2L), rho = C = 0.3; USAM with rho = 0.2/L. 4,000 steps.""",
    criterion="""Where lim ||grad f|| = 0 is derived, ||grad f|| of the last step is at
most 5 % of that of constant SAM, which is the cycle's to 5 % from a tenth of the steps
on; the bound holds at every checkpoint.""",
)

RHO = 0.3


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes fewer steps."""
    problem = finite_sums.digits(l2=0.0, nonconvex=0.1)
    smoothness = problem.smoothness
    constant = families.Constant(1 / (2 * smoothness))
    radius = families.Constant(RHO)
    diminishing = families.Power(1 / smoothness, 0.6)
    settings = {
        "GD": ("sgd", constant, families.Constant(0.0)),
        "USAM": ("usam", constant, families.Constant(0.2 / smoothness)),
        "SAM": ("sam", constant, radius),
        "SAM, rho_k": ("sam", constant, families.Power(RHO, 0.5)),
        "SAM, t_k and rho_k": ("sam", diminishing, families.Power(RHO, 0.5)),
    }
    steps = 1_000 if quick else 4_000
    ends = descent.geometric(steps, 80)
    traces = {
        name: _descend(problem, method, step_size, radius, ends)
        for name, (method, step_size, radius) in settings.items()
    }
    norms = {name: np.asarray(t.recorded) for name, t in traces.items()}
    proved = {name: _converges(problem, *s) for name, s in settings.items()}
    last = {name: float(values[-1]) for name, values in norms.items()}
    first_gap = float(problem.gap(jnp.asarray(problem.start)))
    bound = si_yun.nonconvex_bound(
        step_sizes.Constants(0.0, smoothness),
        step_sizes.Rule(RHO, constant.value),
        first_gap,
        np.maximum(ends, 1),
    )
    hessian = jax.jit(jax.hessian(problem.value))(traces["GD"].x)
    top = float(jnp.linalg.eigvalsh(hessian)[-1])
    cycle = top * khanh.two_cycle(constant.value, RHO, top)
    covered = [name for name, holds in proved.items() if holds]

    picture, (left, right) = pictures.panels(2)
    for name, values in norms.items():
        style = "-" if proved[name] else ":"
        left.plot(ends[1:], values[1:], style, label=name)
    pictures.bound(left, None, cycle, "2-cycle")
    left.set_ylim(1e-12, 3)
    pictures.log_log(
        left, "steps", "||grad f||", "solid: proved to tend to 0; dotted: not"
    )
    right.plot(
        np.maximum(ends, 1), traces["SAM"].means, color=pictures.COLORS[2], label="SAM"
    )
    pictures.bound(
        right, np.maximum(ends, 1), bound, "2 D/(eta T) + L^2 rho^2 (Thm 3.4)"
    )
    pictures.log_log(right, "steps T", "mean of ||grad f||^2, t < T")
    pictures.legends([left], loc="lower right", fontsize=7)
    pictures.legends([right])
    tenth = np.searchsorted(ends, steps // 10)
    return claims.Outcome(
        checks=[
            claims.at_most(
                "||grad f|| over that of constant SAM, where the limit 0 is proved",
                [last[name] / last["SAM"] for name in covered],
                0.05,
            ),
            claims.says(
                "settings of which lim ||grad f|| = 0 is derived",
                ", ".join(covered),
                "GD, USAM, SAM, t_k and rho_k",
            ),
            claims.close(
                "||grad f|| of constant SAM, from a tenth of the steps on",
                norms["SAM"][tenth:],
                cycle,
                rtol=0.05,
            ),
            claims.at_most(
                "mean of ||grad f||^2 over the bound of Theorem 3.4",
                np.asarray(traces["SAM"].means)[1:] / bound[1:],
                1.0,
            ),
            claims.at_most(
                "||grad f|| with the diminishing radius alone over constant SAM",
                last["SAM, rho_k"] / last["SAM"],
                0.05,
            ),
        ],
        picture=picture,
        data={
            "steps": ends,
            "gradient_norm": norms,
            "proved": proved,
            "mean_of_squares": traces["SAM"].means,
            "bound": bound,
            "smoothness": smoothness,
        },
    )


def _descend(
    problem: finite_sums.FiniteSum,
    method: str,
    step_size: families.Family,
    radius: families.Family,
    ends: np.ndarray,
) -> descent.Trace:
    factory = {"usam": sam_jax.usam}.get(method, sam_jax.sam)  # SGD is SAM at rho = 0
    tx = optax.chain(factory(radius.schedule()), optax.sgd(step_size.schedule()))

    def norm(x: jax.Array) -> jax.Array:
        return jnp.linalg.norm(problem.gradient(x))

    @jax.jit
    def run() -> descent.Trace:
        return descent.descend(
            tx,
            descent.exact(problem),
            problem.start,
            ends,
            record=norm,
            mean_of=lambda x: norm(x) ** 2,
        )

    return run()


def _converges(
    problem: finite_sums.FiniteSum,
    method: str,
    step_size: families.Family,
    radius: families.Family,
) -> bool:
    """Whether lim ||grad f|| = 0 is derived."""
    setting = conditions.on(problem, method=method, step_size=step_size, radius=radius)
    return 3 in conditions.properties(conditions.assess(setting))
