"""The edge of stability of SAM on a small network."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import figure
from sklearn import datasets

from experiments.theory import claims, pictures, runs
from sam_jax import sharpness
from sam_jax.theory import problems

CLAIM = claims.Claim(
    title="On a network the largest curvature is at SAM's edge, not at 2/eta",
    source="Long and Bartlett 2024 (edge of stability), beside Si and Yun 2023",
    statement=r"""Gradient descent is stable on a quadratic while the curvature is
below $2/\eta$. For SAM the edge depends on the gradient:

$$
\frac{\|g\|}{2 \rho} \left(\sqrt{1 + \frac{8 \rho}{\eta \|g\|}} - 1\right),
$$

which is below $2/\eta$ and falls with $\|g\|$. While the loss still falls fast,
$\lambda_{\max}$ of the Hessian follows this edge.""",
    recipe="""Full batch, cross-entropy of 200 digits at 4 x 4 pixels, one layer of 16
tanh units, d = 442; (eta, rho) = (1, 1), (2, 0.6), (2, 1), (4, 0.3), (4, 0.6), 400
steps; lambda_max by 24 Lanczos iterations at 41 checkpoints (11 in the short form).
Control: gradient descent with the same eta, compared with the edge that SAM would have
at the same point.""",
    criterion="""In iterations 100 to 300 the median of lambda_max over the edge is
within 15 % of 1 for all settings, and lambda_max is below 60 % of 2/eta. For gradient
descent the median over the same edge is above 1.3.""",
)

ETAS = np.array([1.0, 2.0, 2.0, 4.0, 4.0])
RHOS = np.array([1.0, 0.6, 1.0, 0.3, 0.6])


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` measures at fewer checkpoints."""
    images, labels = datasets.load_digits(return_X_y=True)
    pooled = images[:200].reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(200, 16) / 16
    problem = problems.perceptron(pooled - pooled.mean(0), labels[:200], 16)
    checkpoints = np.linspace(0, 400, 11 if quick else 41).round().astype(int)

    def measure(x: jax.Array) -> dict[str, jax.Array]:
        top = sharpness.top_eigenvalues(problem.value, x, steps=24)
        return {
            "loss": problem.value(x),
            "gradient": jnp.linalg.norm(problem.gradient(x)),
            "curvature": top.values[0],
        }

    # [SAM and gradient descent, setting, checkpoint]
    seen = runs.sam(problem, [RHOS, np.zeros(5)], ETAS, checkpoints, measure).recorded
    # Gradient descent has no edge that depends on rho; it is compared with SAM's.
    edge = _edge(seen["gradient"], ETAS[:, None], RHOS[:, None])
    window = (checkpoints >= 100) & (checkpoints <= 300)
    medians = np.median((seen["curvature"] / edge)[..., window], axis=-1)
    share = (seen["curvature"][0] * ETAS[:, None] / 2)[:, window]
    data = {"checkpoint": checkpoints, "eta": ETAS, "rho": RHOS, "edge": edge}
    data |= {"median_ratio": medians, **seen}
    checks = claims.Checks()
    checks.close("median of lambda_max / edge, SAM", medians[0], 1.0, atol=0.15)
    checks.at_least("median of lambda_max / edge, GD", medians[1], 1.3)
    checks.at_most("lambda_max eta / 2, SAM, iterations 100 to 300", share, 0.6)
    picture = _picture(data)
    return claims.Outcome(checks, picture, data)


def _edge(gradient: np.ndarray, eta: np.ndarray, rho: np.ndarray) -> np.ndarray:
    return gradient / (2 * rho) * (np.sqrt(1 + 8 * rho / (eta * gradient)) - 1)


def _picture(data: Mapping[str, Any]) -> figure.Figure:
    picture, panels = pictures.panels(3, width=3.4)
    for panel, i in zip(panels, (0, 2, 4), strict=True):
        for name, curve in zip(("SAM", "GD"), data["curvature"][:, i], strict=True):
            panel.plot(data["checkpoint"], curve, label=name)
        pictures.bound(panel, data["checkpoint"], data["edge"][0, i], "SAM's edge")
        panel.axhline(2 / ETAS[i], color="k", linestyle=":", lw=1, label="2 / eta")
        title = f"eta = {ETAS[i]:g}, rho = {RHOS[i]:g}"
        pictures.log_y(panel, "iteration", "largest curvature", title)
    pictures.legends(panels)
    return picture
