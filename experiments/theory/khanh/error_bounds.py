"""What makes the methods gradient descent with an absolute or a relative error."""

import numpy as np

from experiments.theory import claims, pictures
from experiments.theory.khanh import _methods
from sam_jax.theory.step_sizes import khanh

CLAIM = claims.Claim(
    title="SAM's error is absolute, that of USAM and extragradient relative",
    source="Khanh et al. 2024, proofs of Corollary 3.5 and Theorems 3.2, 4.1 and 4.2",
    statement="""With a Lipschitz gradient, ||g - grad f|| <= **L rho** for SAM, F-SAM,
VaSSO and RSAM, whatever the direction of their perturbation, and <= **nu ||grad f||**
for USAM and extragradient with rho = nu/L, whence (1 - nu) ||grad f|| <= ||g|| <=
(1 + nu) ||grad f|| (39). On a convex function SAM and USAM also have
<g, grad f> >= ||grad f||^2. Near a minimum the first error stays, the second
vanishes.""",
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
    absolute: dict[str, dict[str, float]] = {}
    relative: dict[str, dict[str, float]] = {}
    descending, shorter, longer = [], [], []
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    chosen, grid = _methods.known_smoothness(), _methods.grid(starts)
    nu = grid.radius[:, None]
    step_sizes = {n: grid.step / problem.smoothness for n, problem in chosen.items()}
    radii = {n: grid.radius * 2 / problem.smoothness for n, problem in chosen.items()}
    relative_radii = {
        name: np.array(
            [khanh.unnormalized_radius(problem.smoothness, v) for v in grid.radius]
        )
        for name, problem in chosen.items()
    }
    normalized = _methods.every_step(
        chosen, _methods.NORMALIZED, grid.starts, radii, step_sizes, count
    )
    unnormalized = _methods.every_step(
        chosen, _methods.UNNORMALIZED, grid.starts, relative_radii, step_sizes, count
    )
    for label, problem in chosen.items():
        absolute[label] = {
            name: float((steps.error / (2 * nu)).max())
            for name, steps in normalized[label].items()
        }
        relative[label] = {}
        for name, steps in unnormalized[label].items():
            norm, length = (
                np.sqrt(steps.squared),
                np.linalg.norm(steps.direction, axis=-1),
            )
            seen = norm > LARGE
            relative[label][name] = float((steps.error / (nu * norm))[seen].max())
            shorter.append(((1 - nu) * norm / length)[seen].max())
            longer.append((length / ((1 + nu) * norm))[seen].max())
        for name, steps in (normalized[label] | unnormalized[label]).items():
            if problem.convex and name in ("SAM", "USAM"):
                product = (steps.direction * steps.gradient).sum(-1)
                seen = steps.squared > LARGE**2
                descending.append((steps.squared / product)[seen].max())
            if label == "quadratic" and name in ("SAM", "USAM"):
                curves[name] = np.sqrt(steps.squared[4]), steps.error[4]

    picture, panels = pictures.panels(2)
    smoothness = chosen["quadratic"].smoothness
    for panel, name, share in zip(panels, curves, (0.5 * 2, 0.5), strict=True):
        norm, error = curves[name]
        k = np.arange(1, count + 1)
        panel.plot(k, norm, label="||grad f||")
        panel.plot(k, error, label="||g - grad f||")
        right = share if name == "SAM" else share * norm
        text = "L rho" if name == "SAM" else "nu ||grad f||"
        pictures.bound(panel, k, right, text)
        pictures.log_y(
            panel, "step k", "norm", f"{name}, quadratic, L = {smoothness:g}"
        )
    pictures.legends(panels)
    every_absolute = [v for found in absolute.values() for v in found.values()]
    every_relative = [v for found in relative.values() for v in found.values()]
    return claims.Outcome(
        checks=[
            claims.at_most("error / (L rho), all methods", every_absolute, 1 + 1e-9),
            claims.at_most("error / (nu ||grad f||)", every_relative, 1 + 1e-9),
            claims.at_most("(1 - nu) ||grad f|| / ||g||", shorter, 1 + 1e-9),
            claims.at_most("||g|| / ((1 + nu) ||grad f||)", longer, 1 + 1e-9),
            claims.at_most("||grad f||^2 / <g, grad f>, convex", descending, 1 + 1e-9),
            claims.close(
                "SAM on the quadratic: largest error / (L rho)",
                absolute["quadratic"]["SAM"],
                1.0,
                atol=1e-3,
            ),
            claims.close(
                "USAM on the quadratic: largest error / (nu ||grad f||)",
                relative["quadratic"]["USAM"],
                1.0,
                atol=1e-3,
            ),
        ],
        picture=picture,
        data={
            "error_over_L_rho": absolute,
            "error_over_nu_gradient": relative,
            "curves": {
                name: {"gradient": norm, "error": error}
                for name, (norm, error) in curves.items()
            },
        },
    )
