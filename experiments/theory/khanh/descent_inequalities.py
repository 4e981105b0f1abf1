"""The inequality behind each theorem, at every step of every method."""

from collections.abc import Callable, Mapping

import numpy as np

from experiments.theory import claims, pictures
from experiments.theory.khanh import _methods
from sam_jax.theory import problems
from sam_jax.theory.step_sizes import khanh

CLAIM = claims.Claim(
    title="Every step obeys the descent inequality of its theorem",
    source="Khanh et al. 2024, proofs of Theorems 3.2, 3.3 and 4.1",
    statement="""With L t <= 1 one step of SAM on a convex function gives
f(x+) <= f - (t/2) ||grad f||^2 + **L^3 t^2 rho^2 / 2** (Theorem 3.2). On a function
with Lipschitz gradient a step of SAM, F-SAM, VaSSO or RSAM, with e = L rho < 2, gives
f(x+) <= f - c1 t ||grad f||^2 + **c2 t e**, c1 = (2 - Lt - e + Lte)/2 and
c2 = (1 - Lt + Lte)/2 (Theorem 3.3). A step of USAM or extragradient with rho = nu/L
and t <= (2 - 2nu - delta)/(L (1 + nu)^2) gives f(x+) <= f - **(t/2)(2 - 2nu -
Lt (1 + nu)^2) ||grad f||^2** (Theorem 4.1, (40)). With t = 1/L the first two are
attained in SAM's 2-cycle on a quadratic (ours), so that the slack below tends to 0.""",
    recipe="""A quadratic, sums of log(1 + r^2) (n = 4) and of r^2/(1 + r^2) (8 rows),
all with a known L; 24 random starts, each with three radii (0.05, 0.5 and 0.95 of
rho = 2/L, or of nu = 1) and three step sizes (0.1, 0.5 and 1 of the largest), 200
steps; RSAM with normal noise of size 0.1; delta = 0.1 (1 - nu).""",
    criterion="""f(x+) exceeds no right-hand side by more than rounding (1e-12).
Control: with L/4 in place of L each inequality is violated, by more than 1e-3.""",
)

# Steps and a factor of L -> the right-hand side at each step.
Bound = Callable[[_methods.Steps, float], np.ndarray]


def _convex(smoothness: float, grid: _methods.Grid) -> Bound:
    return lambda steps, factor: khanh.convex_descent(
        steps.value[:, :-1],
        steps.squared,
        step_size=grid.step[:, None] / smoothness,
        smoothness=factor * smoothness,
        radius=grid.radius[:, None] * 2 / smoothness,
    )


def _absolute(smoothness: float, grid: _methods.Grid) -> Bound:
    return lambda steps, factor: khanh.absolute_error_descent(
        steps.value[:, :-1],
        steps.squared,
        step_size=grid.step[:, None] / smoothness,
        smoothness=factor * smoothness,
        error=factor * grid.radius[:, None] * 2,
    )


def _relative_steps(smoothness: float, grid: _methods.Grid) -> np.ndarray:
    largest = [
        khanh.relative_error_step_size(smoothness, nu, delta=0.1 * (1 - nu))
        for nu in grid.radius
    ]
    return grid.step * np.array(largest)


def _relative(smoothness: float, grid: _methods.Grid) -> Bound:
    return lambda steps, factor: khanh.relative_error_descent(
        steps.value[:, :-1],
        steps.squared,
        step_size=_relative_steps(smoothness, grid)[:, None],
        smoothness=factor * smoothness,
        nu=factor * grid.radius[:, None],
    )


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
        f"Theorem {theorem}, {name}: excess": values.max()
        for theorem, of_theorem in worst.items()
        for name, values in of_theorem.items()
    }
    slack = {
        theorem: {name: np.maximum(-values, 1e-17) for name, values in of.items()}
        for theorem, of in worst.items()
    }
    every = list(everything.values())
    return claims.Outcome(
        [
            claims.at_most("f(x+) - bound, all theorems and methods", every, 1e-12),
            *(claims.at_most(name, value, 1e-12) for name, value in everything.items()),
            *(
                claims.at_least(f"Theorem {theorem} with L/4: excess", violated, 1e-3)
                for theorem, violated in control.items()
            ),
        ],
        pictures.row(
            {"step k": np.arange(1, count + 1), "smallest slack": slack},
            {theorem: f"Theorem {theorem}" for theorem in slack},
            "step k",
            "smallest slack",
        ),
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
    """Theorem -> per method f(x+) minus the right-hand side, worst of all, [step].

    And theorem -> the largest excess with a quarter of L.
    """
    excess: dict[str, dict[str, list[np.ndarray]]] = {"3.2": {}, "3.3": {}, "4.1": {}}
    control: dict[str, float] = dict.fromkeys(excess, -np.inf)
    for name, problem in chosen.items():
        bounds = [
            ("3.3", _absolute, _methods.NORMALIZED),
            ("4.1", _relative, _methods.UNNORMALIZED),
            ("3.2", _convex, ["SAM"] if problem.convex else []),
        ]
        for theorem, form, methods in bounds:
            right = form(problem.smoothness, grid)
            for method in sorted(methods):
                steps = found[name][method]
                over, violated = (
                    steps.value[:, 1:] - right(steps, factor) for factor in (1.0, 0.25)
                )
                excess[theorem].setdefault(method, []).append(over.max(axis=0))
                control[theorem] = max(control[theorem], float(violated.max()))
    worst = {
        theorem: {name: np.max(of, axis=0) for name, of in of_theorem.items()}
        for theorem, of_theorem in excess.items()
    }
    return worst, control
