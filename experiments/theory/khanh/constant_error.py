"""Example 3.4: a constant error, and the wrong limit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments.theory import claims, pictures
from sam_jax import schedules
from sam_jax.theory import descent, problems

CLAIM = claims.Claim(
    title="Descent with a constant error ends at a point that is not stationary",
    source="Khanh et al. 2024, Example 3.4",
    statement="""On f(x) = x^2 the inexact gradient f'(x - rho sign x), a perturbation
*down* the gradient, with diminishing step sizes and a constant rho leads to **rho**:
x_{k+1} - rho = (1 - 2 t_k)(x_k - rho). Theorem 3.3 needs sum t_k e_k < inf. SAM's
perturbation, up the gradient, is harmless here: f is convex (Theorem 3.2).""",
    recipe="""t_k = 0.5/(k + 1), rho = 0.3, x_1 = 1, 200,000 steps; then rho_k = 0.3/k,
for which the sum is finite; then SAM with rho = 0.3.""",
    criterion="""Every iterate is rho + (x_1 - rho)/(N + 1) to 1e-9 (ours: the product
in closed form). With rho_k = 0.3/k the limit is 0: every iterate is
(x_1 + sum_k rho_k)/(N + 1) to 1e-9 (ours). SAM ends within 2 t_k rho of 0 (ours: what
one step from 0 reaches).""",
)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes 20,000 steps."""
    count, rho = 20_000 if quick else 200_000, 0.3
    problem = problems.quadratic([2.0], [1.0])
    checkpoints = descent.geometric(count)
    decay = schedules.power_decay(0.5, 1.0)

    def descend(method: optax.GradientTransformation) -> jax.Array:
        # The paper's t_k with k from 1: 0.5/2, 0.5/3, ...
        tx = optax.chain(method, optax.sgd(lambda k: decay(k + 1)))
        return descent.descend(
            tx, descent.exact(problem), problem.start, checkpoints, record=jnp.sum
        ).recorded

    def downwards(radius: optax.ScalarOrSchedule) -> optax.GradientTransformation:
        blocks = sam_jax.normalize(), sam_jax.scale(radius), optax.scale(-1.0)
        return sam_jax.sharpness_aware(optax.chain(*blocks))

    @jax.jit
    def all_three() -> tuple[jax.Array, jax.Array, jax.Array]:
        shrinking = schedules.power_decay(rho, 1.0)
        return (
            descend(downwards(rho)),
            descend(downwards(shrinking)),
            descend(sam_jax.sam(rho)),
        )

    constant, summable, sam = map(np.asarray, all_three())
    predicted = rho + (1 - rho) / (checkpoints + 1)
    radii = rho * np.cumsum(1 / np.arange(1, count + 1))
    vanishing = (1 + np.r_[0.0, radii][checkpoints]) / (checkpoints + 1)

    picture, (panel,) = pictures.panels(1, width=5.2)
    k = checkpoints + 1
    panel.plot(k, constant, label="down, rho constant")
    panel.plot(k, np.abs(summable), label="down, rho / k")
    panel.plot(k, np.abs(sam), label="SAM (up), rho constant")
    pictures.bound(panel, k, predicted, "closed form")
    pictures.log_log(panel, "iteration k", "|x_k|", "f(x) = x^2, t_k = 0.5/(k + 1)")
    pictures.legends([panel])
    return claims.Outcome(
        checks=[
            claims.close("last iterate", constant[-1], predicted[-1], rtol=1e-9),
            claims.close("all iterates", constant, predicted, rtol=1e-9),
            claims.close("rho / k: all iterates", summable, vanishing, rtol=1e-9),
            claims.at_most(
                "SAM: last |x_k|", abs(sam[-1]), 2 * 0.5 / (count + 1) * rho
            ),
        ],
        picture=picture,
        data={
            "steps": checkpoints,
            "constant_radius": constant,
            "predicted": predicted,
            "summable": summable,
            "sam": sam,
        },
    )
