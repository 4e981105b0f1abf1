"""The descent inequality of each theorem, at every step of every method."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.theory import claims, pictures
from experiments.theory.khanh import _methods
from sam_jax.theory import desingularizing, problems
from sam_jax.theory.step_sizes import khanh

CLAIM = claims.Claim(
    title="Every step obeys the descent inequality of its theorem",
    source="Khanh et al. 2024, proofs of Theorems 3.2, 3.3 and 4.1, Appendix B",
    statement=r"""With $Lt \le 1$ one step of SAM on a convex function gives $f(x^+) \le
f - \frac t2 \|\nabla f\|^2 +$ **$L^3 t^2 \rho^2 / 2$** (Theorem 3.2). On a function
with Lipschitz gradient a step of SAM, F-SAM, VaSSO or RSAM, with $e = L\rho < 2$, gives
$f(x^+) \le f - c_1 t \|\nabla f\|^2 +$ **$c_2 t e$**, $c_1 = (2 - Lt - e + Lte)/2$ and
$c_2 = (1 - Lt + Lte)/2$ (Theorem 3.3), and $\|\nabla f(x^+)\| - \|\nabla f\| \le
L t \|\nabla f\| + L t e$, as Lemma B.1 requires. A step of USAM or extragradient
with $\rho = \nu/L$ and $t \le (2 - 2\nu - \delta)/(L (1 + \nu)^2)$ gives $f(x^+) \le f
-$ **$\frac t2 (2 - 2\nu - Lt (1 + \nu)^2) \|\nabla f\|^2$** (Theorem 4.1, (40)). Hence
both conditions of Propositions B.3 to B.5 hold: (H1) $f - f(x^+) \ge \sigma
\|\nabla f\| \|x^+ - x\|$ with $\sigma = (2 - 2\nu - Lt (1 + \nu)^2)/(2 + 2\nu)$, and
(H2), equal values imply equal iterates, by $\sigma \|x^+ - x\|^2 \le t (1 + \nu)
(f - f(x^+))$. With a desingularizing function the path is finite: $\sigma
\|x^+ - x\| \le \varphi(f - f^*) - \varphi(f(x^+) - f^*)$ ($\sigma$: ours).
With $t = 1/L$ the first two inequalities are attained in the 2-cycle on a quadratic
(ours), so the slack below tends to 0.""",
    recipe="""A quadratic, sums of log(1 + r^2) (n = 4) and of r^2/(1 + r^2) (8 rows),
all with a known L; 24 random starts, each with three radii (0.05, 0.5 and 0.95 of
rho = 2/L, or of nu = 1) and three step sizes (0.1, 0.5 and 1 of the largest), 200
steps; RSAM with normal noise of size 0.1; delta = 0.1 (1 - nu). The path: on the
quadratic, phi(s) = sqrt(2 s / mu).""",
    criterion="""No left-hand side exceeds its right-hand side by more than rounding
(1e-12). Control: with L/4 in place of L each inequality is violated, by more than
1e-3.""",
)

# Steps and a factor of L -> left-hand side minus right-hand side.
Excess = Callable[[_methods.Steps, float], np.ndarray]


def _inequalities(
    problem: problems.Problem, grid: _methods.Grid
) -> dict[str, tuple[list[str], Excess]]:
    """Name -> the methods that it covers, and the excess [trajectory, step]."""
    L, nu = problem.smoothness, grid.radius[:, None]
    t, relative = grid.step[:, None] / L, _relative_steps(L, grid)[:, None]

    def above(bound: Callable, s: _methods.Steps, **constants: Any) -> np.ndarray:
        return s.value[:, 1:] - bound(s.value[:, :-1], s.squared, **constants)

    def convex(s: _methods.Steps, factor: float) -> np.ndarray:
        constants = {"step_size": t, "smoothness": factor * L, "radius": nu * 2 / L}
        return above(khanh.convex_descent, s, **constants)

    def absolute(s: _methods.Steps, factor: float) -> np.ndarray:
        constants = {"step_size": t, "smoothness": factor * L, "error": factor * nu * 2}
        return above(khanh.absolute_error_descent, s, **constants)

    def growth(s: _methods.Steps, factor: float) -> np.ndarray:
        norm = np.sqrt(s.squared)
        allowed = factor * L * t * (norm + factor * nu * 2)
        return np.diff(norm, axis=1) - allowed[:, :-1]

    def descent(s: _methods.Steps, factor: float) -> np.ndarray:
        constants = {"smoothness": factor * L, "nu": factor * nu}
        return above(khanh.relative_error_descent, s, step_size=relative, **constants)

    def length(s: _methods.Steps, factor: float) -> np.ndarray:
        sigma = khanh.sufficient_decrease(relative, factor * L, factor * nu)
        return sigma * relative * np.linalg.norm(s.direction, axis=-1)

    def sufficient(s: _methods.Steps, factor: float) -> np.ndarray:
        return np.sqrt(s.squared) * length(s, factor) + np.diff(s.value, axis=1)

    def equal(s: _methods.Steps, factor: float) -> np.ndarray:
        moved = relative * np.linalg.norm(s.direction, axis=-1)
        fall = relative * (1 + factor * nu) * np.diff(s.value, axis=1)
        return moved * length(s, factor) + fall

    def path(s: _methods.Steps, factor: float) -> np.ndarray:
        phi = desingularizing.power(np.sqrt(2 / problem.pl), 0.5)
        gaps = np.maximum(s.value - problem.minimum, 0.0)
        return length(s, factor) + np.diff(phi.value(gaps), axis=1)

    normalized, others = sorted(_methods.NORMALIZED), sorted(_methods.UNNORMALIZED)
    return {
        "Theorem 3.2": (["SAM"] if problem.convex else [], convex),
        "Theorem 3.3": (normalized, absolute),
        "Lemma B.1": (normalized, growth),
        "Theorem 4.1": (others, descent),
        "(H1)": (others, sufficient),
        "(H2)": (others, equal),
        "finite path": (others if problem.pl else [], path),
    }


def _relative_steps(smoothness: float, grid: _methods.Grid) -> np.ndarray:
    largest = [
        khanh.relative_error_step_size(smoothness, nu, delta=0.1 * (1 - nu))
        for nu in grid.radius
    ]
    return grid.step * np.array(largest)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes 4 starts and 50 steps."""
    starts, count = (4, 50) if quick else (24, 200)
    chosen, grid = _methods.known_smoothness(), _methods.grid(starts)
    found = _methods.every_step(
        chosen,
        grid.starts,
        count,
        lambda L: (grid.radius * 2 / L, grid.step / L),
        lambda L: (grid.radius / L, _relative_steps(L, grid)),
    )
    worst, control = _excess(chosen, found, grid)
    everything = {
        f"{name}, {method}: excess": values.max()
        for name, of in worst.items()
        for method, values in of.items()
    }
    slack = {
        name: {method: np.maximum(-values, 1e-17) for method, values in of.items()}
        for name, of in worst.items()
        if "Theorem" in name
    }
    every = list(everything.values())
    checks = claims.Checks()
    checks.at_most("left - right, all inequalities and methods", every, 1e-12)
    for name, value in everything.items():
        checks.at_most(name, value, 1e-12)
    for name, violated in control.items():
        checks.at_least(f"{name} with L/4: excess", violated, 1e-3)
    picture = pictures.row(
        {"step k": np.arange(1, count + 1), "smallest slack": slack},
        list(slack),
        "step k",
        "smallest slack",
    )
    return claims.Outcome(
        checks,
        picture,
        {
            "largest_excess_per_step": worst,
            "largest_excess_with_a_quarter_of_L": control,
        },
    )


def _excess(
    chosen: Mapping[str, problems.Problem],
    found: Mapping[str, Mapping[str, _methods.Steps]],
    grid: _methods.Grid,
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, float]]:
    """Inequality -> the worst excess of each method, [step]; and that with L/4."""
    worst: dict[str, dict[str, np.ndarray]] = {}
    control: dict[str, float] = {}
    for problem, of in zip(chosen.values(), found.values(), strict=True):
        for name, (methods, excess) in _inequalities(problem, grid).items():
            here = worst.setdefault(name, {})
            for method in methods:
                over = excess(of[method], 1.0).max(axis=0)
                here[method] = (
                    np.maximum(here[method], over) if method in here else over
                )
                violated = float(excess(of[method], 0.25).max())
                control[name] = max(control.get(name, violated), violated)
    return worst, control
