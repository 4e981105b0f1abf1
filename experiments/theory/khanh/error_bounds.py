"""The methods are gradient descent with an absolute or a relative error."""

import numpy as np

from experiments.theory import claims, pictures
from experiments.theory.khanh import _methods

CLAIM = claims.Claim(
    title="SAM's error is absolute, that of USAM and extragradient relative",
    source="Khanh et al. 2024, proofs of Corollary 3.5 and Theorems 3.2, 4.1 and 4.2",
    statement=r"""With a Lipschitz gradient, the gradient $g$ that a method uses has one
of two errors:

$$
\|g - \nabla f\| \le L \rho, \qquad \|g - \nabla f\| \le \nu \|\nabla f\|.
$$

The first bound holds for SAM, F-SAM, VaSSO and RSAM, whatever the direction of their
perturbation. The second holds for USAM and extragradient with $\rho = \nu/L$. It
implies $(1 - \nu) \|\nabla f\| \le \|g\| \le (1 + \nu) \|\nabla f\|$ (39). On a convex
function SAM and USAM also have $\langle g, \nabla f \rangle \ge \|\nabla f\|^2$. Near a
minimum the absolute error stays and the relative error vanishes.""",
    recipe="""A quadratic, sums of log(1 + r^2) (n = 4) and of r^2/(1 + r^2) (8 rows),
all with a known L; 24 random starts, three radii (0.05, 0.5 and 0.95 of rho = 2/L, or
of nu = 1) and three step sizes, 200 steps; g is read off the steps.""",
    criterion="""No step exceeds a bound by more than rounding: 1e-9 relative for steps
with ||grad f|| > 1e-4. On the quadratic both bounds are attained along the top
eigenvector: the largest ratio is 1 to 1e-3.""",
)

LARGE = 1e-4  # below, rounding of x_k - x_{k+1} shows in the ratios


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes 4 starts and 50 steps."""
    starts, count = (4, 50) if quick else (24, 200)
    chosen, grid = _methods.known_smoothness(), _methods.grid(starts)
    nu = grid.radius[:, None]
    found = _methods.every_step(
        chosen,
        grid.starts,
        count,
        lambda L: (grid.radius * 2 / L, grid.step / L),
        lambda L: (grid.radius / L, grid.step / L),
    )
    absolute: dict[str, dict[str, float]] = {}
    relative: dict[str, dict[str, float]] = {}
    descending, shorter, longer = [], [], []
    for label, problem in chosen.items():
        of = {name: _ratios(steps, nu) for name, steps in found[label].items()}
        absolute[label] = {n: of[n]["absolute"] for n in of if n in _methods.NORMALIZED}
        others = {n: of[n] for n in of if n in _methods.UNNORMALIZED}
        relative[label] = {name: ratios["relative"] for name, ratios in others.items()}
        shorter += [ratios["shorter"] for ratios in others.values()]
        longer += [ratios["longer"] for ratios in others.values()]
        if problem.convex:
            descending += [of[name]["descending"] for name in ("SAM", "USAM")]
    curves = {}
    for name in ("SAM", "USAM"):
        steps = found["quadratic"][name]
        curves[name] = {"gradient": np.sqrt(steps.squared[4]), "error": steps.error[4]}
    data = {"error_over_L_rho": absolute, "error_over_nu_gradient": relative}
    data["curves"] = curves
    bounds = {"SAM": {"L rho": 1.0}}  # of the fifth trajectory, half of the largest
    bounds["USAM"] = {"nu ||grad f||": 0.5 * curves["USAM"]["gradient"]}
    every_absolute, every_relative = (
        [v for of in errors.values() for v in of.values()]
        for errors in (absolute, relative)
    )
    quadratic = absolute["quadratic"]["SAM"], relative["quadratic"]["USAM"]
    most = "on the quadratic: largest error"
    checks = claims.Checks()
    checks.at_most("error / (L rho), all methods", every_absolute, 1 + 1e-9)
    checks.at_most("error / (nu ||grad f||)", every_relative, 1 + 1e-9)
    checks.at_most("(1 - nu) ||grad f|| / ||g||", shorter, 1 + 1e-9)
    checks.at_most("||g|| / ((1 + nu) ||grad f||)", longer, 1 + 1e-9)
    checks.at_most("||grad f||^2 / <g, grad f>, convex", descending, 1 + 1e-9)
    checks.close(f"SAM {most} / (L rho)", quadratic[0], 1.0, atol=1e-3)
    checks.close(f"USAM {most} / (nu ||grad f||)", quadratic[1], 1.0, atol=1e-3)
    picture = pictures.row(
        {"step k": np.arange(1, count + 1), "norm": curves, "bound": bounds},
        {name: f"{name}, quadratic" for name in curves},
        "step k",
        "norm",
        "bound",
        log="y",
    )
    return claims.Outcome(checks, picture, data)


def _ratios(steps: _methods.Steps, nu: np.ndarray) -> dict[str, float]:
    """The largest value of each ratio that some theorem bounds by 1."""
    norm, length = np.sqrt(steps.squared), np.linalg.norm(steps.direction, axis=-1)
    seen = norm > LARGE
    product = (steps.direction * steps.gradient).sum(-1)
    ratios = {
        "relative": steps.error / (nu * norm),
        "shorter": (1 - nu) * norm / length,
        "longer": length / ((1 + nu) * norm),
        "descending": steps.squared / product,
    }
    found = {name: float(ratio[seen].max()) for name, ratio in ratios.items()}
    return found | {"absolute": float((steps.error / (2 * nu)).max())}
