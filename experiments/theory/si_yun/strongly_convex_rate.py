"""Theorem 3.1: deterministic SAM reaches the optimum at the rate log^2 T / T^2."""

import numpy as np

from experiments.theory import claims, pictures, runs
from sam_jax.theory import problems, step_sizes
from sam_jax.theory.step_sizes import si_yun

CLAIM = claims.Claim(
    title="Strongly convex, deterministic: f(x_T) - f* ~ log^2 T / T^2",
    source="Si and Yun 2023, Theorem 3.1 and Table 1",
    statement=r"""With a constant radius and one constant step size for each horizon
$T$, SAM minimizes a smooth strongly convex function at the rate $1/T^2$, up to
logarithms (unverified). Derived, for $\mu$-strongly convex, $\beta$-smooth $f$ and
$\eta \le 1/(2\beta)$:

$$
f(x_T) - f^* \le \max\left\{\left(1 - \tfrac32 \mu \eta\right)^T \Delta,\;
\frac{\beta^4 \eta^2 \rho^2}{2 \mu} + \frac{\beta^3 \eta^2 \rho^2}{2}\right\};
$$

on a quadratic with the rule's $\eta$,
$(f(x_T) - f^*)\, T^2 / \log^2 \to \beta^3 \rho^2 / (8 \mu^2)$, with the rule's
logarithm $\log(\mu^3 \Delta T^2 / (\beta^4 \rho^2))$.""",
    recipe="""f(x) = (mu x_1^2 + beta x_2^2)/2, mu = 0.1, beta = 1, rho = 0.1, start
(1, 1); horizons T from 1,000 to 100,000 (10,000 in the short form), eta(T) by the
rule.""",
    criterion="""At the largest T the scaled gap is within 2 % of its limit. At every T
it is within 0.1 % of the limit over (1 - beta eta/2)^2, the value of the 2-cycle. The
bound holds at every checkpoint of every run.""",
)

RHO = 0.1


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` has smaller horizons."""
    problem = problems.quadratic([0.1, 1.0], [1.0, 1.0])
    mu, beta, gap = (
        problem.strong_convexity,
        problem.smoothness,
        runs.first_gap(problem),
    )
    horizons = runs.horizons(1e3, 1e4 if quick else 1e5, 5 if quick else 9)
    ends, checkpoints = horizons
    known = step_sizes.Constants(mu, beta)
    etas = np.array([si_yun.strongly_convex(known, RHO, gap, int(t)) for t in ends])

    gaps = runs.sam(problem, RHO, etas, checkpoints, problem.gap).recorded
    rule = step_sizes.Rule(RHO, etas[:, None])
    bounds = si_yun.strongly_convex_bound(known, rule, gap, checkpoints)
    final, bound = horizons.last(gaps), horizons.last(bounds)
    logarithms = np.log(mu**3 * gap * ends**2 / (beta**4 * RHO**2))
    scaled = final * ends**2 / logarithms**2
    # At T = 1 the lower bound is the limit itself.
    limit = float(si_yun.strongly_convex_lower_bound(known, RHO, 1))
    cycle = limit / (1 - beta * etas / 2) ** 2
    data = {"horizon": ends, "eta": etas, "gap": final, "bound": bound}
    data |= {"scaled": scaled, "limit": limit}
    checks = claims.Checks()
    checks.close(f"gap T^2 / log^2 at T = {ends[-1]:,}", scaled[-1], limit, rtol=0.02)
    checks.close("gap T^2 / log^2, all T: the 2-cycle", scaled, cycle, rtol=1e-3)
    checks.at_most("gap, all runs: its bound", gaps, bounds)
    picture = pictures.draw(
        data | {"2-cycle": cycle},
        pictures.Panel("horizon", "gap", "bound", "eta(T) by the rule"),
        pictures.Panel(
            "horizon", "scaled", ("2-cycle", "limit"), "gap T^2 / log^2", log="x"
        ),
    )
    return claims.Outcome(checks, picture, data)
