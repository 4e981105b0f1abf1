"""Example 3.1 and Figure 1: constant step size and radius, no convergence."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments.theory import claims, pictures
from sam_jax.theory import descent, problems
from sam_jax.theory.step_sizes import khanh

CLAIM = claims.Claim(
    title="SAM with constant step size and radius ends in a 2-cycle",
    source="Khanh et al. 2024, Example 3.1 and Figure 1",
    statement="""On a strongly convex quadratic SAM with a constant step size t < 2/l
and a constant radius rho does not converge: it ends in the cycle x -> -x along the top
eigenvector, at the distance **t rho l / (2 - t l)** from the minimizer (closed form:
ours). Gradient descent converges.""",
    recipe="""f(x) = (x_1^2 + 1.5 x_2^2) / 2, start (1, 1), 5,000 steps; t = 1/3 and
four radii, then rho = 0.1 and four step sizes.""",
    criterion="""The distance of the last iterate is the closed form to 1e-9, the
iterates alternate, and gradient descent is below 1e-12.""",
)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` changes nothing here."""
    del quick
    problem = problems.quadratic([1.0, 1.5], [1.0, 1.0])
    checkpoints = np.r_[np.arange(120), 5000, 5001]

    @jax.jit
    @jax.vmap
    def descend(step_size: jax.Array, rho: jax.Array) -> descent.Trace:
        tx = optax.chain(sam_jax.sam(rho), optax.sgd(step_size))
        return descent.descend(
            tx,
            descent.exact(problem),
            problem.start,
            checkpoints,
            record=lambda x: {"x": x, "gap": problem.gap(x)},
        )

    steps = np.array([1 / 3] * 5 + [0.05, 0.2, 0.6, 1.0])
    radii = np.array([0.0, 0.01, 0.05, 0.1, 0.3] + [0.1] * 4)
    trace = descend(jnp.asarray(steps), jnp.asarray(radii))
    before, last = trace.recorded["x"][:, -2], trace.recorded["x"][:, -1]
    cycle = khanh.two_cycle(steps, radii, 1.5)
    distance = jnp.linalg.norm(last, axis=1)

    picture, (left, right) = pictures.panels(2)
    for i in range(5):
        name = "GD" if i == 0 else f"SAM, rho = {radii[i]:g}"
        left.plot(trace.recorded["gap"][i, :-2], label=name)
    for i in range(1, 5):
        pictures.bound(
            left, None, 0.75 * cycle[i] ** 2, "closed form" if i == 1 else ""
        )
    left.set_ylim(1e-14, 3)
    pictures.log_y(left, "iteration", "f(x) - f*", "t = 1/3")
    right.plot(steps[5:], distance[5:], "o", label="measured, rho = 0.1")
    grid = np.linspace(0.02, 1.1, 100)
    predicted = khanh.two_cycle(grid, 0.1, 1.5)
    pictures.bound(right, grid, predicted, "t rho l / (2 - t l)")
    pictures.linear(right, "step size t", "distance to the minimizer", "5,000 steps")
    pictures.legends([left, right])
    return claims.Outcome(
        checks=[
            claims.close(
                "distance, t = 1/3, rho = 0.1", distance[3], cycle[3], rtol=1e-9
            ),
            claims.close("distance, all settings", distance[1:], cycle[1:], rtol=1e-9),
            claims.close("x_{k+1} + x_k", last + before, 0.0, atol=1e-12),
            claims.at_most("distance of gradient descent", distance[0], 1e-12),
        ],
        picture=picture,
        data={
            "step_size": steps,
            "rho": radii,
            "distance": distance,
            "predicted": cycle,
            "gap": trace.recorded["gap"][:5, :-2],
        },
    )
