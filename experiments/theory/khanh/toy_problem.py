"""Figure 3: constant and almost constant radii on sums of log(1 + r^2)."""

import jax
import numpy as np

import sam_jax
from experiments.theory import claims, pictures, runs
from sam_jax import schedules
from sam_jax.theory import descent, problems

CLAIM = claims.Claim(
    title="Constant and almost constant radius coincide on the toy problem",
    source="Khanh et al. 2024, Appendix E and Figure 3",
    statement=r"""On $f(x) = \sum_i \log(1 + (Ax - b)_i^2)$ with $t_k = (0.1/n)/k$, SAM
with the constant radius 0.1 and with the almost constant $\rho_k = 0.1/k^{0.001}$ have
the same curves, for $n = 2, 20, 50$ and $100$.""",
    recipe="""A [n, n], then b [n], standard normal from `numpy.random.default_rng(0)`
(the paper leaves the distribution open); x_1 = A^-1 b + (0.1/n^2) ones; 100 n steps;
gradient descent, SAM with rho = 0.1 and with 0.1/k^p, p = 1, 0.1, 0.001.""",
    criterion="""At every checkpoint the two values of f differ by at most 5 %, which is
invisible in a figure over six decades. At the end they differ by at most
1 - (100 n)^-0.002, since near the minimum f is proportional to rho^2 (ours). The last
values of all five methods agree to 1 % with those of a separate NumPy program.""",
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
    steps = {n: descent.geometric(100 * n) for n in SIZES}
    curves = {n: _curves(n, checkpoints) for n, checkpoints in steps.items()}
    last = np.array([f[:, -1] for f in curves.values()])
    apart = {n: np.abs(f[4] / f[1] - 1).max() for n, f in curves.items()}
    at_end = np.abs(last[:, 4] / last[:, 1] - 1)
    data = {"methods": NAMES, "largest_relative_difference": apart}
    data["curves"] = {n: {"steps": steps[n], "f": f} for n, f in curves.items()}
    shown = {f"k, n = {n}": k + 1 for n, k in steps.items()}
    checks = claims.Checks()
    for n, share in apart.items():
        checks.at_most(f"n = {n}: |f(p = 0.001) / f(constant) - 1|", share, 0.05)
    checks.at_most(
        "at the end, every n: |f(p = 0.001) / f(constant) - 1|",
        at_end,
        1 - (100.0 * np.array(SIZES)) ** -0.002,
    )
    for n, found, other in zip(SIZES, last, SEPARATE, strict=True):
        checks.close(f"n = {n}: last f, all methods", found, other, rtol=0.01)
    picture = pictures.draw(
        shown | {"f(x_k)": curves, "method": NAMES},
        *(pictures.Panel(f"k, n = {n}", "f(x_k)", by="method", of=(n,)) for n in SIZES),
        width=2.9,
    )
    return claims.Outcome(checks, picture, data)


def _curves(n: int, checkpoints: np.ndarray) -> np.ndarray:
    """The value f at the checkpoints, for each method."""
    generator = np.random.default_rng(0)
    matrix, target = generator.normal(size=(n, n)), generator.normal(size=n)
    start = np.linalg.solve(matrix, target) + 0.1 / n**2
    problem = problems.log_residuals(matrix, target, start)

    def descend(first_radius: jax.Array, power: jax.Array) -> jax.Array:
        method = sam_jax.sam(schedules.power_decay(first_radius, power))  # pyright: ignore
        step_size = schedules.power_decay(0.1 / n, 1.0)
        return runs.descend(
            problem, method, step_size, checkpoints, problem.value
        ).recorded

    return runs.each(descend, [0.0, 0.1, 0.1, 0.1, 0.1], [0, 0, 1, 0.1, 0.001])
