"""A non-convex loss on real data: conditions on the radius and the step size."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import sam_jax
from experiments.theory import claims, pictures, runs
from sam_jax.theory import conditions, descent, families, finite_sums, step_sizes
from sam_jax.theory.step_sizes import khanh, si_yun

CLAIM = claims.Claim(
    title="The condition checker is right on a real non-convex problem",
    source="ours; Corollary 3.5 and Theorem 4.2 of Khanh et al. 2024, Theorem 3.4 of "
    "Si and Yun 2023",
    statement=r"""Digits with the non-convex regularizer $\sum_j x_j^2/(1 + x_j^2)$,
full gradients. SAM with a constant step size and radius does not converge: it ends in
the 2-cycle of the Hessian's top eigenvalue $l$, where
$\|\nabla f\| = l\, t \rho l/(2 - t l)$ to leading order in $\rho$; the mean of
$\|\nabla f\|^2$ is below $2 \Delta/(\eta T) + L^2 \rho^2$ (Theorem 3.4). Where
`sam_jax.theory.conditions` derives $\lim \|\nabla f\| = 0$, **the gradient does tend to
zero:** for gradient descent and USAM with constant coefficients, and for SAM with
$t_k = 1/(L k^{0.6})$ and $\rho_k = C/\sqrt k$. Here the diminishing radius alone is
enough, which no theorem covers.""",
    recipe="""Digits 3 and 8, coefficient 0.1, L from the data, start at the origin.
t = 1/(2L), rho = C = 0.3; USAM with rho = 0.2/L. 4,000 steps.""",
    criterion="""Where lim ||grad f|| = 0 is derived, ||grad f|| of the last step is at
most 5 % of that of constant SAM, which is the cycle's to 5 % after the first tenth of
the steps. The bound holds at every checkpoint.""",
)

RHO = 0.3


class Setting(NamedTuple):
    """A method and its schedules."""

    method: str
    step_size: families.Family
    radius: families.Family


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes fewer steps."""
    problem = finite_sums.digits(l2=0.0, nonconvex=0.1)
    L, steps = problem.smoothness, 1_000 if quick else 4_000
    constant, ends = families.Constant(1 / (2 * L)), descent.geometric(steps, 80)
    decaying = families.Power(RHO, 0.5)
    settings = {
        "GD": Setting("sgd", constant, families.Constant(0.0)),
        "USAM": Setting("usam", constant, families.Constant(0.2 / L)),
        "SAM": Setting("sam", constant, families.Constant(RHO)),
        "SAM, rho_k": Setting("sam", constant, decaying),
        "SAM, t_k and rho_k": Setting("sam", families.Power(1 / L, 0.6), decaying),
    }
    traces = {name: _descend(problem, s, ends) for name, s in settings.items()}
    norms = {name: np.asarray(t.recorded) for name, t in traces.items()}
    proved = {name: _converges(problem, s) for name, s in settings.items()}
    shares = {name: float(n[-1] / norms["SAM"][-1]) for name, n in norms.items()}
    covered = [name for name, holds in proved.items() if holds]
    means = traces["SAM"].means
    bound = si_yun.nonconvex_bound(
        step_sizes.Constants(0.0, L),
        step_sizes.Rule(RHO, constant.value),
        runs.first_gap(problem),
        np.maximum(ends, 1),
    )
    hessian = jax.jit(jax.hessian(problem.value))(traces["GD"].x)
    top = float(jnp.linalg.eigvalsh(hessian)[-1])
    cycle = top * khanh.two_cycle(constant.value, RHO, top)
    late = norms["SAM"][np.searchsorted(ends, steps // 10) :]
    data = {"steps": ends, "gradient_norm": norms, "proved": proved}
    data |= {"mean_of_squares": means, "bound": bound, "smoothness": L}
    cycling = "||grad f|| of constant SAM, after the first tenth of the steps"
    checks = claims.Checks()
    checks.at_most(
        "||grad f|| over that of constant SAM, where the limit 0 is proved",
        [shares[name] for name in covered],
        0.05,
    )
    checks.says(
        "settings for which lim ||grad f|| = 0 is derived",
        ", ".join(covered),
        "GD, USAM, SAM, t_k and rho_k",
    )
    checks.close(cycling, late, cycle, rtol=0.05)
    checks.at_most(
        "mean of ||grad f||^2 over the bound of Theorem 3.4", means[1:] / bound[1:], 1.0
    )
    checks.at_most(
        "||grad f|| with the diminishing radius alone over constant SAM",
        shares["SAM, rho_k"],
        0.05,
    )
    picture = pictures.draw(
        data | {"2-cycle": cycle},
        pictures.Panel("steps", "gradient_norm", "2-cycle", ylim=(1e-12, 3)),
        pictures.Panel("steps", "mean_of_squares", "bound", "SAM, Theorem 3.4"),
    )
    return claims.Outcome(checks, picture, data)


def _descend(
    problem: finite_sums.FiniteSum, setting: Setting, ends: np.ndarray
) -> descent.Trace:
    # SGD is SAM at rho = 0.
    factory = {"usam": sam_jax.usam}.get(setting.method, sam_jax.sam)

    def norm(x: jax.Array) -> jax.Array:
        return jnp.linalg.norm(problem.gradient(x))

    return runs.once(
        lambda: runs.descend(
            problem,
            factory(setting.radius.schedule()),
            setting.step_size.schedule(),
            ends,
            norm,
            mean_of=lambda x: norm(x) ** 2,
        )
    )


def _converges(problem: finite_sums.FiniteSum, setting: Setting) -> bool:
    """Whether lim ||grad f|| = 0 is derived."""
    known = conditions.on(problem, **setting._asdict())
    return 3 in conditions.properties(conditions.assess(known))
