"""The inequality behind each theorem, at every step of every method."""

from collections.abc import Callable

import numpy as np

from experiments.theory import claims, pictures
from experiments.theory.khanh import _methods
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
    # Theorem -> per method f(x+) minus the right-hand side, worst of all trajectories.
    excess: dict[str, dict[str, list[np.ndarray]]] = {"3.2": {}, "3.3": {}, "4.1": {}}
    control: dict[str, float] = dict.fromkeys(excess, -np.inf)

    def note(theorem: str, name: str, steps: _methods.Steps, right: Bound) -> None:
        after = steps.value[:, 1:]
        worst = (after - right(steps, 1.0)).max(axis=0)
        excess[theorem].setdefault(name, []).append(worst)
        violated = float((after - right(steps, 0.25)).max())
        control[theorem] = max(control[theorem], violated)

    chosen, grid = _methods.known_smoothness(), _methods.grid(starts)
    constants = {name: problem.smoothness for name, problem in chosen.items()}
    normalized = _methods.every_step(
        chosen,
        _methods.NORMALIZED,
        grid.starts,
        {name: grid.radius * 2 / constant for name, constant in constants.items()},
        {name: grid.step / constant for name, constant in constants.items()},
        count,
    )
    unnormalized = _methods.every_step(
        chosen,
        _methods.UNNORMALIZED,
        grid.starts,
        {name: grid.radius / constant for name, constant in constants.items()},
        {name: _relative_steps(constant, grid) for name, constant in constants.items()},
        count,
    )
    for name, problem in chosen.items():
        for method, steps in normalized[name].items():
            note("3.3", method, steps, _absolute(problem.smoothness, grid))
        for method, steps in unnormalized[name].items():
            note("4.1", method, steps, _relative(problem.smoothness, grid))
        if problem.convex:
            right = _convex(problem.smoothness, grid)
            note("3.2", "SAM", normalized[name]["SAM"], right)

    picture, panels = pictures.panels(3, width=3.4)
    checks = []
    for panel, theorem in zip(panels, excess, strict=True):
        for name, worst in excess[theorem].items():
            slack = -np.max(worst, axis=0)
            panel.plot(np.arange(1, count + 1), np.maximum(slack, 1e-17), label=name)
            checks.append(
                claims.at_most(
                    f"Theorem {theorem}, {name}: excess", np.max(worst), 1e-12
                )
            )
        pictures.log_log(
            panel, "step k", "smallest slack, bound - f(x+)", f"Theorem {theorem}"
        )
    pictures.legends(panels)
    everything = [
        np.max(worst) for of_theorem in excess.values() for worst in of_theorem.values()
    ]
    first = claims.at_most("f(x+) - bound, all theorems and methods", everything, 1e-12)
    controls = [
        claims.at_least(f"Theorem {theorem} with L/4: excess", violated, 1e-3)
        for theorem, violated in control.items()
    ]
    return claims.Outcome(
        checks=[first, *checks, *controls],
        picture=picture,
        data={
            "largest_excess_per_step": {
                theorem: {n: np.max(worst, axis=0) for n, worst in of_theorem.items()}
                for theorem, of_theorem in excess.items()
            },
            "largest_excess_with_a_quarter_of_L": control,
        },
    )
