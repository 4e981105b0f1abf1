"""Theorem 4.1 where the gradient is not Lipschitz continuous."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.theory import claims, mutations, pictures, runs
from sam_jax.theory import conditions, families, inexact, problems
from sam_jax.theory.step_sizes import khanh

CLAIM = claims.Claim(
    title="Steps with a relative error need L-descent but no Lipschitz gradient",
    source="Khanh et al. 2024, Theorem 4.1 and condition (4)",
    statement=r"""Theorem 4.1 requires only $f(y) \le f(x) + \langle \nabla f(x), y - x
\rangle + \frac L2 \|y - x\|^2$ of $f$. This condition holds for
$\frac12 \langle Ax, x \rangle + \langle b, x \rangle + c - h(x)$ with $L = \|A\|$ and
any smooth convex $h$, such as $\frac23 \sum_i |x_i|^{3/2}$, whose gradient is not
Lipschitz continuous. With $\|g^k - \nabla f(x^k)\| \le \nu \|\nabla f(x^k)\|$ and
$t_k \le (2 - 2\nu - \delta) / (L (1 + \nu)^2)$ every step obeys
$f(x^{k+1}) \le f(x^k) - \frac{t_k}{2} (2 - 2\nu - L t_k (1 + \nu)^2)
\|\nabla f(x^k)\|^2$, and **$f(x^k) \to -\infty$, or all accumulation points are
stationary**; under the KL property the iterates converge.""",
    recipe=r"""$f(x) = \sum_i a_i x_i^2 / 2 - \frac23 |x_i|^{3/2}$, $a = (1, 2, 4)$,
16 normal starts and 8 of scale $10^{-3}$ near the origin; $\nu = 0.5$, the error
against the gradient, along it and in a Gaussian random direction, $\delta = 0.1$, the
largest $t$, constant or times $k^{-1/2}$, 1,500 steps. Not bounded below:
$x^2 / 2 - x^4 / 4$, from 0.5, 0.8, 1.2 and 2.""",
    criterion=r"""$f(x^{k+1})$ exceeds the right-hand side by no more than rounding;
with $L/100$ it exceeds it by more than $10^{-3}$. With constant $t$ the last gradient
is below $10^{-6}$, and the last tenth of the iterates is within $10^{-6}$ of the last
one ($f$ is semialgebraic). $\|\nabla f(x) - \nabla f(0)\| / \|x\|$ is above $100 L$
near 0. Without a lower bound, $f(x^k)$ falls below $-10^6$ from starts outside
$[-1, 1]$, and the gradient vanishes from starts inside. The condition checker derives
the properties (2), (4) and (5).""",
    survivors=dict.fromkeys(
        mutations.FACTORS, "the errors are added to the gradient: there is no ascent"
    ),
)

CURVATURES, NU, DELTA, COUNT = np.array([1.0, 2.0, 4.0]), 0.5, 0.1, 1_500
L = float(CURVATURES.max())
STEP = khanh.relative_error_step_size(L, NU, DELTA)
ERRORS = {
    "against": inexact.against,
    "along": inexact.along,
    "normal": inexact.anywhere,
}
ROUGH = problems.Problem(
    value=lambda x: jnp.sum(CURVATURES * x**2 / 2 - 2 / 3 * jnp.abs(x) ** 1.5),
    start=np.ones(3),
    smoothness=np.inf,
    minimum=float(-(CURVATURES**-3 / 6).sum()),
)
UNBOUNDED = problems.Problem(
    value=lambda x: jnp.sum(x**2 / 2 - x**4 / 4),
    start=np.ones(1),
    smoothness=np.inf,
    minimum=-np.inf,
)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` changes nothing here."""
    del quick
    drawn = np.random.default_rng(0).normal(size=(24, 3))
    starts = drawn * np.r_[np.ones(16), np.full(8, 1e-3)][:, None]
    found = _descend(ROUGH, STEP, starts, COUNT)  # [power of t, start, step, ..]
    k = np.arange(1, COUNT + 1)
    excess, control, last, moved = [], [], [], []
    for of in found.values():
        for power, (x, value, squared) in enumerate(zip(*of, strict=True)):
            over, violated = (
                value[:, 1:]
                - khanh.relative_error_descent(
                    value[:, :-1],
                    squared[:, :-1],
                    step_size=STEP * k ** (-power / 2),
                    smoothness=factor * L,
                    nu=NU,
                )
                for factor in (1.0, 0.01)
            )
            excess.append(over.max())
            control.append(violated.max())
            if power == 0:
                last.append(np.sqrt(squared[:, -1].max()))
                late = x[:, -COUNT // 10 :] - x[:, -1:]
                moved.append(np.linalg.norm(late, axis=-1).max())
    near = 1e-8 * jnp.eye(3)
    quotient = np.abs(jax.vmap(ROUGH.gradient)(near)).max(axis=1) / 1e-8
    inside, outside = _unbounded()
    norms = {n: np.sqrt(squared[:, 20, ::10]) for n, (_, _, squared) in found.items()}
    data = {"k": k[::10], "t": ("constant", "k^-0.5"), "gradient": norms}
    data["gradient"] = {n: norm[:, : len(data["k"])] for n, norm in norms.items()}
    checks = claims.Checks()
    checks.at_most("f(x+) - right-hand side, all errors", excess, 1e-12)
    checks.at_least("f(x+) - right-hand side with L/100", max(control), 1e-3)
    checks.at_most("last gradient norm, constant t", last, 1e-6)
    checks.at_most("movement of x in the last tenth", moved, 1e-6)
    checks.at_least("||grad f(x)|| / ||x|| at 1e-8", quotient, 100 * L)
    checks.at_most("not bounded below, from outside: lowest f", outside, -1e6)
    checks.at_most("not bounded below, from inside: last gradient", inside, 1e-6)
    checks.says("properties that the checker derives", *_checked())
    picture = pictures.row(
        data, list(ERRORS), "k", "gradient", by="t", log="y", label="||grad f||"
    )
    return claims.Outcome(checks, picture, data)


def _descend(
    problem: problems.Problem, t: float, starts: np.ndarray, count: int
) -> dict[str, tuple[np.ndarray, ...]]:
    """Error -> x, f and the squared gradient at every step."""

    def one(power: jax.Array, start: jax.Array, key: jax.Array) -> Any:
        def measure(x: jax.Array) -> tuple[jax.Array, ...]:
            return x, problem.value(x), problem.squared_gradient(x)

        return {
            name: runs.descend(
                problem,
                inexact.igdr(NU, direction),
                lambda k: t * (k + 1.0) ** -power,
                np.arange(count + 1),
                measure,
                start=start,
                key=key,
            ).recorded
            for name, direction in ERRORS.items()
        }

    keys = jax.random.split(jax.random.key(0), len(starts))
    of_power = jax.vmap(one, (None, 0, 0))
    return runs.each(
        lambda power: of_power(power, jnp.asarray(starts), keys), [0.0, 0.5]
    )


def _unbounded() -> tuple[list[float], list[float]]:
    """Last gradients from inside [-1, 1], and the lowest values from outside."""
    step = khanh.relative_error_step_size(1.0, NU, DELTA)
    starts = np.array([[0.5], [0.8], [1.2], [2.0]])
    found = _descend(UNBOUNDED, step, starts, 100)
    gradients = [np.sqrt(squared[0, :2, -1]).max() for _, _, squared in found.values()]
    lowest = [np.nanmin(value[0, 2:], axis=1).max() for _, value, _ in found.values()]
    return gradients, np.maximum(lowest, -1e12).tolist()


def _checked() -> tuple[str, str]:
    """The properties that the checker derives for IGDr, and those of Theorem 4.1."""
    setting = conditions.Setting(
        method="igdr",
        step_size=families.Constant(STEP),
        radius=families.Constant(NU),
        smooth=False,
        smoothness=L,
        descent=True,
        bounded_below=True,
        bounded_level_sets=True,
        kl_exponent=0.5,
    )
    found = conditions.properties(conditions.assess(setting))
    return ", ".join(map(str, sorted(found))), "1, 2, 3, 4, 5"
