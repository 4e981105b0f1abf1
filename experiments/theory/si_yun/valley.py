"""Figure 1: SAM drifts along the valley xy = 1 to its flattest point."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sam_jax
from experiments.theory import claims, pictures, runs
from sam_jax.theory import descent, problems

CLAIM = claims.Claim(
    title="Figure 1: SAM drifts along the valley of (xy - 1)^2 to the flattest minimum",
    source="Si and Yun 2023, Figure 1",
    statement=r"""On $f(x, y) = (xy - 1)^2$ SAM with a constant radius and
normalization drifts along the valley $xy = 1$ to the flattest minimum $(1, 1)$, where
the trace of the Hessian, $2 (x^2 + y^2)$, is 4. Gradient descent, SAM without
normalization and SAM with a decaying radius stop near the first minimum that they
reach.""",
    recipe="""eta = 0.01, rho = 0.1 (we do not know the figure's own constants);
starts (3, 0.2) and (2, 0.25); 200,000 steps (30,000 in the short form).""",
    criterion="""SAM ends within 0.01 of (1, 1) with a trace within 1 % of 4. All other
methods end within 0.1 of the end of gradient descent, with a trace above 8.""",
)

# Name -> lam of Unified SAM, radius, exponent of its decay.
METHODS = {
    "SAM": (1.0, 0.1, 0.0),
    "GD": (1.0, 0.0, 0.0),
    "USAM": (0.0, 0.1, 0.0),
    "rho/sqrt(t+1)": (1.0, 0.1, 0.5),
    "rho/(t+1)": (1.0, 0.1, 1.0),
}


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes fewer steps."""
    problem, starts = problems.hyperbola(), np.array([[3.0, 0.2], [2.0, 0.25]])
    checkpoints = descent.geometric(30_000 if quick else 200_000, 150)

    def measure(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return x, jnp.trace(jax.hessian(problem.value)(x))

    def descend(
        lam: jax.Array, rho: jax.Array, exponent: jax.Array, place: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return runs.descend(
            problem,
            sam_jax.unified_sam(lambda t: rho / (t + 1.0) ** exponent, lam=lam),
            0.01,
            checkpoints,
            measure,
            start=jnp.asarray(starts)[place],
        ).recorded

    # [method, start, checkpoint]
    constants = np.array(list(METHODS.values())).T[..., None]
    paths, traces = runs.each(descend, *constants, np.arange(2))
    last = paths[:, :, -1]
    data: dict[str, Any] = {"checkpoint": checkpoints}
    for name, values in {
        "path": paths[:, 0, ::2],
        "trace": traces[:, 0],
        "last": last,
    }.items():
        data[name] = dict(zip(METHODS, values, strict=True))

    picture, (left, right) = pictures.panels(2)
    hyperbola = np.linspace(0.28, 3.4, 200)
    pictures.bound(left, hyperbola, 1 / hyperbola, "minima, xy = 1")
    for i, name in enumerate(METHODS):
        left.plot(*paths[i, 0].T, ".-"[: 1 if i else 2], ms=5 if i else 2, label=name)
        right.plot(checkpoints + 1, traces[i, 0], label=name)
    pictures.linear(left, "x", "y", "from (3, 0.2)")
    left.set_ylim(0, 1.6)
    pictures.bound(right, None, 4.0, "flattest, 4")
    pictures.log_log(right, "iteration + 1", "trace of the Hessian", "sharpness")
    pictures.legends([left, right])
    checks = claims.Checks()
    checks.close("trace of the Hessian, SAM", traces[0, :, -1], 4.0, rtol=0.01)
    checks.close("SAM's (x, y)", last[0], 1.0, atol=0.01)
    checks.close("(x, y) of the others - GD's", last[2:] - last[1], 0.0, atol=0.1)
    checks.at_least("trace of the others", traces[1:, :, -1], 8.0)
    return claims.Outcome(checks, picture, data)
