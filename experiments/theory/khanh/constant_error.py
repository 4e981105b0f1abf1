"""Example 3.4: a constant error leads to the wrong limit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments.theory import claims, pictures, runs
from sam_jax import schedules
from sam_jax.theory import descent, problems

CLAIM = claims.Claim(
    title="Descent with a constant error converges to a nonstationary point",
    source="Khanh et al. 2024, Example 3.4",
    statement=r"""On $f(x) = x^2$ the inexact gradient
$f'(x - \rho \operatorname{sign} x)$, a perturbation *down* the gradient, with
diminishing step sizes and a constant $\rho$ leads to $\rho$:

$$
x_{k+1} - \rho = (1 - 2 t_k)(x_k - \rho).
$$

Theorem 3.3 needs $\sum t_k e_k < \infty$. SAM's perturbation goes up the gradient and
is harmless here, because $f$ is convex (Theorem 3.2).""",
    recipe="""t_k = 0.5/(k + 1), rho = 0.3, x_1 = 1, 200,000 steps; then rho_k = 0.3/k,
for which the sum is finite; then SAM with rho = 0.3.""",
    criterion="""Every iterate is rho + (x_1 - rho)/(N + 1) to 1e-9 (ours: the product
in closed form). With rho_k = 0.3/k the limit is 0: every iterate is
(x_1 + sum_k rho_k)/(N + 1) to 1e-9 (ours). SAM ends within 2 t_k rho of 0 (ours: the
distance that one step from 0 covers).""",
)

RHO = 0.3


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes 20,000 steps."""
    count = 20_000 if quick else 200_000
    problem = problems.quadratic([2.0], [1.0])
    checkpoints = descent.geometric(count)
    decay = schedules.power_decay(0.5, 1.0)

    def step_size(k: Any) -> Any:
        return decay(k + 1)  # the paper's, k from 1: 0.5/2, 0.5/3, ...

    def iterates(method: optax.GradientTransformation) -> jax.Array:
        return runs.descend(problem, method, step_size, checkpoints, jnp.sum).recorded

    def downwards(radius: optax.ScalarOrSchedule) -> optax.GradientTransformation:
        blocks = sam_jax.normalize(), sam_jax.scale(radius), optax.scale(-1.0)
        return sam_jax.sharpness_aware(optax.chain(*blocks))

    methods = {
        "constant_radius": downwards(RHO),
        "summable": downwards(schedules.power_decay(RHO, 1.0)),
        "sam": sam_jax.sam(RHO),
    }
    found = runs.once(lambda: {name: iterates(tx) for name, tx in methods.items()})
    constant, summable, sam = (found[name] for name in methods)
    predicted = RHO + (1 - RHO) / (checkpoints + 1)
    radii = RHO * np.cumsum(1 / np.arange(1, count + 1))
    vanishing = (1 + np.r_[0.0, radii][checkpoints]) / (checkpoints + 1)
    reached = 2 * 0.5 / (count + 1) * RHO
    data = {"steps": checkpoints, "constant_radius": constant, "predicted": predicted}
    data |= {"summable": summable, "sam": sam}
    shown = {"k": checkpoints + 1, "|x_k|": {n: np.abs(v) for n, v in found.items()}}
    title = "f(x) = x^2, t_k = 0.5/(k + 1)"
    checks = claims.Checks()
    checks.close("last iterate", constant[-1], predicted[-1], rtol=1e-9)
    checks.close("all iterates", constant, predicted, rtol=1e-9)
    checks.close("rho / k: all iterates", summable, vanishing, rtol=1e-9)
    checks.at_most("SAM: last |x_k|", abs(sam[-1]), reached)
    picture = pictures.draw(
        shown | {"closed form": predicted},
        pictures.Panel("k", "|x_k|", "closed form", title),
        width=5.2,
    )
    return claims.Outcome(checks, picture, data)
