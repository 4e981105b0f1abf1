"""Example 3.1 and Figure 1: constant step size and radius, no convergence."""

import jax
import numpy as np

from experiments.theory import claims, pictures, runs
from sam_jax.theory import problems
from sam_jax.theory.step_sizes import khanh

CLAIM = claims.Claim(
    title="SAM with constant step size and radius ends in a 2-cycle",
    source="Khanh et al. 2024, Example 3.1 and Figure 1",
    statement=r"""On a strongly convex quadratic SAM with a constant step size $t < 2/l$
and a constant radius $\rho$ does not converge: it ends in the cycle $x \to -x$ along
the top eigenvector, at the distance **$t \rho l / (2 - t l)$** from the minimizer
(closed form: ours). Gradient descent converges. The paper quotes a bound from Dai et
al. 2023: linear convergence to a neighbourhood. We derive it for convex $f$ and
$t \le 1/L$ in the form **$f(x^k) - f^* \le (1 - t\mu(2 - Lt))^k (f(x^1) - f^*) +
\frac{L^3 t \rho^2}{2\mu(2 - Lt)}$**. With $L^2$, as quoted, the cycle at $t = 1/L$
exceeds the bound if $L > 1$.""",
    recipe=r"""$f(x) = (x_1^2 + 1.5 x_2^2) / 2$, start (1, 1), 5,000 steps; $t = 1/3$
and four radii, then $\rho = 0.1$ and four step sizes. For the bound: $t \le 1/L$, and
the parabola $0.75 x^2$ with $t = 1/L$.""",
    criterion=r"""The distance of the last iterate is the closed form to $10^{-9}$, the
iterates alternate, and gradient descent is below $10^{-12}$. The gap obeys the derived
bound at every checkpoint. On the parabola it ends at the second term of the bound to
$10^{-9}$, 1.5 times that term with $L^2$.""",
)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` changes nothing here."""
    del quick
    problem = problems.quadratic([1.0, 1.5], [1.0, 1.0])
    checkpoints = np.r_[np.arange(120), 5000, 5001]

    def measure(x: jax.Array) -> dict[str, jax.Array]:
        return {"x": x, "gap": problem.gap(x)}

    steps = np.array([1 / 3] * 5 + [0.05, 0.2, 0.6, 1.0])
    L = problem.smoothness
    radii = np.array([0.0, 0.01, 0.05, 0.1, 0.3] + [0.1] * 4)
    found = runs.sam(problem, radii, steps, checkpoints, measure).recorded
    before, last = found["x"][:, -2], found["x"][:, -1]
    cycle = khanh.two_cycle(steps, radii, 1.5)
    distance = np.linalg.norm(last, axis=1)
    known = {"smoothness": L, "pl": problem.pl, "gap": found["gap"][0, 0]}
    bound = khanh.neighbourhood(
        steps[:8, None], radii[:8, None], steps=checkpoints, **known
    )
    data = {"step_size": steps, "rho": radii, "distance": distance}
    data |= {"predicted": cycle, "gap": found["gap"][:5, :-2]}
    shown = {"iteration": checkpoints[:-2], "rho": radii[:5], "f, t = 1/3": data["gap"]}
    shown["its cycle"] = np.outer(0.75 * cycle[:5] ** 2, np.ones(120))
    shown |= {"step size t": steps[5:], "distance": distance[5:]}
    shown["t rho l / (2 - t l)"] = cycle[5:]
    checks = claims.Checks()
    checks.close("distance, t = 1/3, rho = 0.1", distance[3], cycle[3], rtol=1e-9)
    checks.close("distance, all settings", distance[1:], cycle[1:], rtol=1e-9)
    checks.close("x_{k+1} + x_k", last + before, 0.0, atol=1e-12)
    checks.at_most("distance of gradient descent", distance[0], 1e-12)
    checks.at_most("gap, the bound, t <= 1/L", found["gap"][:8], bound + 1e-15)
    checks.close(
        "parabola, t = 1/L: last gap over the bound, over that as quoted",
        _attained(),
        [1.0, L],
        rtol=1e-9,
    )
    picture = pictures.draw(
        shown,
        pictures.Panel(
            "iteration", "f, t = 1/3", "its cycle", by="rho", log="y", ylim=(1e-14, 3)
        ),
        pictures.Panel(
            "step size t", "distance", "t rho l / (2 - t l)", "5,000 steps", log=""
        ),
    )
    return claims.Outcome(checks, picture, data)


def _attained() -> list[float]:
    """The cycle's gap at t = 1/L over the bound's second term, with L^3 and L^2."""
    parabola, rho = problems.quadratic([1.5], [1.0]), 0.1
    t, L = 1 / parabola.smoothness, parabola.smoothness
    found = runs.sam(parabola, rho, t, [2_000], parabola.gap).recorded[0]
    floor = float(khanh.neighbourhood(t, rho, L, L, 0.0, 0))
    return [found / floor, found / (floor / L)]
