"""Figure 3: constant and almost constant radii on sums of log(1 + r^2)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments.theory import claims, pictures
from experiments.theory.khanh import _pictures
from sam_jax import schedules
from sam_jax.theory import descent, problems

CLAIM = claims.Claim(
    title="Constant and almost constant radius coincide on the toy problem",
    source="Khanh et al. 2024, Appendix E and Figure 3",
    statement="""On f(x) = sum_i log(1 + (Ax - b)_i^2) with t_k = (0.1/n)/k SAM with the
constant radius 0.1 and with the almost constant **rho_k = 0.1/k^0.001** have the same
curves, for n = 2, 20, 50 and 100.""",
    recipe="""A [n, n], then b [n], standard normal from `numpy.random.default_rng(0)`
(the paper leaves the distribution open); x_1 = A^-1 b + (0.1/n^2) ones; 100 n steps;
gradient descent, SAM with rho = 0.1 and with 0.1/k^p, p = 1, 0.1, 0.001.""",
    criterion="""At every checkpoint the two values of f differ by at most 5 %, what a
figure over six decades cannot show; at the end by at most 1 - (100 n)^-0.002, since
near the minimum f goes with rho^2 (ours). The last values of all five agree to 1 % with
those of a separate NumPy program.""",
)
SIZES = (2, 20, 50, 100)
NAMES = ("GD", "constant", "p = 1", "p = 0.1", "p = 0.001")
# Last f of the methods above, for each size, of the NumPy program.
SEPARATE = [
    [2.12e-4, 9.990e-6, 1.18e-4, 1.69e-5, 9.998e-6],
    [1.04e-6, 7.609e-8, 3.48e-7, 6.63e-8, 7.594e-8],
    [1.26e-7, 1.210e-8, 3.59e-6, 5.64e-9, 1.195e-8],
    [3.39e-8, 8.060e-9, 4.40e-6, 4.43e-9, 8.000e-9],
]


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` changes nothing here."""
    del quick
    curves = {n: _curves(n) for n in SIZES}
    last = np.array([f[:, -1] for _, f in curves.values()])
    apart = [np.abs(f[4] / f[1] - 1).max() for _, f in curves.values()]

    picture, panels = pictures.panels(4, width=2.9)
    for panel, (n, (k, f)) in zip(panels, curves.items(), strict=True):
        for name, curve in zip(NAMES, f, strict=True):
            dashed = "--" if name == "p = 0.001" else "-"
            panel.plot(k + 1, curve, dashed, label=name)
        pictures.log_log(panel, "iteration k", "f(x_k)" if n == 2 else "", f"n = {n}")
    _pictures.legend_below(picture, panels[0])
    checks = [
        claims.at_most(f"n = {n}: |f(p = 0.001) / f(constant) - 1|", share, 0.05)
        for n, share in zip(SIZES, apart, strict=True)
    ]
    checks.append(
        claims.at_most(
            "the same at the end, every n",
            np.abs(last[:, 4] / last[:, 1] - 1),
            1 - (100.0 * np.array(SIZES)) ** -0.002,
        )
    )
    checks += [
        claims.close(f"n = {n}: last f, all methods", found, expected, rtol=0.01)
        for n, found, expected in zip(SIZES, last, SEPARATE, strict=True)
    ]
    return claims.Outcome(
        checks=checks,
        picture=picture,
        data={
            "methods": NAMES,
            "largest_relative_difference": dict(zip(SIZES, apart, strict=True)),
            "curves": {n: {"steps": k, "f": f} for n, (k, f) in curves.items()},
        },
    )


def _curves(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Checkpoints, and f at them for each method."""
    generator = np.random.default_rng(0)
    matrix, target = generator.normal(size=(n, n)), generator.normal(size=n)
    start = np.linalg.solve(matrix, target) + 0.1 / n**2
    problem = problems.log_residuals(matrix, target, start)
    checkpoints = descent.geometric(100 * n)

    @jax.jit
    @jax.vmap
    def descend(first_radius: jax.Array, power: jax.Array) -> jax.Array:
        radius = schedules.power_decay(first_radius, power)  # pyright: ignore
        return descent.descend(
            optax.chain(
                sam_jax.sam(radius), optax.sgd(schedules.power_decay(0.1 / n, 1.0))
            ),
            descent.exact(problem),
            problem.start,
            checkpoints,
            record=problem.value,
        ).recorded

    radii = jnp.array([0.0, 0.1, 0.1, 0.1, 0.1])
    return checkpoints, np.asarray(descend(radii, jnp.array([0, 0, 1, 0.1, 0.001])))
