"""SAM with a Polyak step size: exact convergence, and where SAM stops."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sam_jax
from experiments.theory import claims, pictures
from experiments.theory.oikonomou import _chains, _figures
from sam_jax.theory import descent, finite_sums, sampling
from sam_jax.theory.step_sizes import unified

CLAIM = claims.Claim(
    title="With a Polyak step USAM converges exactly under interpolation; SAM does not",
    source="Oikonomou and Loizou 2026, SAM-SPS",
    statement=r"""At the perturbed point $e$, without a cap, let

$$
\gamma = \frac{[f(e) - f^* - \langle \nabla f(e), e - x \rangle]_+}{\|\nabla f(e)\|^2}.
$$

For USAM ($\lambda = 0$), $\rho \le 1/L$ and strongly convex $f$, the convergence is
linear and exact with full gradients or under interpolation, and to a neighbourhood
otherwise. Derived: for convex $f$ and *every* $\lambda$ the distance to a common
minimizer never grows. SAM on a quadratic stops once
$f(x) - f^* \le \rho^2\, g^\top H g / (2 \|g\|^2)$, hence at a gap of at most
$L \rho^2 / 2$.""",
    recipe="""Full gradients: f(x) = ||Ax - b||^2 / (2n), n = d = 100, condition number
10 of A (the authors' seed), 3,000 steps (quick: 2,000); USAM with rho = 1 / (2L) and a
Polyak step, and with the rules of Unified SAM, of Andriushchenko and Flammarion 2022
and of Khanh et al. 2024 (rho = 1 / (2L), gamma = 2 / (9L)); SAM with rho = 0.1.
Samples: Gaussian A, n = 50, d = 10, subsets of 10, with and without noise in b,
rho = 1 / (2 L_max), 8 chains, f_min = 0. The method's cap of gamma is 1e6, so it has no
effect.""",
    criterion="""USAM's last gap is below 1e-20 with full gradients and with
interpolated samples, and above 1e-6 with noise. After 500 steps USAM's gap is below
that of every fixed rule. SAM's last gap is rho^2 g'Hg / (2 ||g||^2) at its last iterate
to 1 %, and below L rho^2 / 2. Between checkpoints the distance grows by no more than
rounding.""",
)

SAM_RADIUS = 0.1


def run(quick: bool) -> claims.Outcome:
    """Runs the claim."""
    checkpoints = np.arange(0, (2_000 if quick else 3_000) + 1, 10)
    matrix, solution, start = _figures.consistent()
    full = finite_sums.least_squares(matrix, matrix @ solution, start=start)
    L, oracle = full.smoothness, descent.exact(full)
    polyak = _run(full, oracle, (0.5 / L, SAM_RADIUS), checkpoints)
    rules = {
        "Unified SAM": unified.usam_rule(L),
        "rho = gamma = 1/(2L)": unified.andriushchenko(L),
        "rho = 1/(2L), gamma = 2/(9L)": unified.Rule(0.5 / L, 2 / (9 * L)),
    }
    settings = [(0.0, rule) for rule in rules.values()]
    program = _chains.constant(oracle)
    fixed = _chains.descend(program, settings, full, checkpoints)[:, 0]
    sampled = {}
    for name, noise in (("interpolated", 0.0), ("noisy", 0.1)):
        problem = _gaussian(noise)
        oracle = descent.same_sample(problem, sampling.Nice(problem.size, 10))
        radius = 0.5 / problem.largest_smoothness
        sampled[name] = _run(problem, oracle, (radius, radius), checkpoints, 8)
    interpolated, noisy = sampled.values()
    usam, sam = polyak["gap"][:, 0]
    last = [usam[-1], interpolated["gap"][0, :, -1].mean()]
    growth = [np.diff(t["distance"], axis=2).max() for t in (polyak, interpolated)]
    neighbourhood = L * SAM_RADIUS**2 / 2
    share = sam[-1] / polyak["stop"][1, 0, -1]
    data = {"steps": checkpoints, "polyak": polyak["gap"][:, 0], "rules": rules}
    data |= {"fixed": fixed, "interpolated": interpolated["gap"].mean(1)}
    data["noisy"] = noisy["gap"].mean(1)
    checks = claims.Checks()
    checks.at_most(
        "last gap, USAM, full gradients and interpolated samples", last, 1e-20
    )
    checks.at_most("last gap, SAM, full gradients", sam[-1], neighbourhood)
    checks.close(
        "last gap, SAM, over rho^2 g'Hg / (2 ||g||^2) there", share, 1.0, rtol=0.01
    )
    checks.at_least("last mean gap, noise", noisy["gap"][:, :, -1].mean(1), 1e-6)
    checks.at_most(
        "gap of USAM, Polyak step, after 500 steps / of each fixed rule",
        usam[50] / fixed[:, 50],
        1.0,
    )
    checks.at_most("growth of the distance to the minimizer", growth, 1e-12)
    names = ("USAM", "SAM")
    full_batch = {"USAM": usam, "SAM": sam, **dict(zip(rules, fixed, strict=True))}
    samples = {
        f"{method}, {name}": curve
        for name in sampled
        for method, curve in zip(names, data[name], strict=True)
    }
    picture = pictures.draw(
        data | {"gap": full_batch, "mean gap": samples, "L rho^2 / 2": neighbourhood},
        pictures.Panel("steps", "gap", "L rho^2 / 2", "full gradients", log="y"),
        pictures.Panel("steps", "mean gap", title="subsets of 10", log="y"),
    )
    return claims.Outcome(checks, picture, data)


def _run(
    problem: finite_sums.FiniteSum,
    oracle: descent.Oracle,
    radii: tuple[float, float],
    checkpoints: np.ndarray,
    chains: int = 1,
) -> dict[str, np.ndarray]:
    """Of USAM and SAM with a Polyak step, [method, chain, checkpoint]."""

    def program(lam: Any, rho: Any):
        return sam_jax.sam_sps(1e6, rho, lam=lam, f_min=0.0), oracle

    def measure(x: jax.Array) -> dict[str, jax.Array]:
        gradient = problem.gradient(x)
        image = jax.jvp(problem.gradient, (x,), (gradient,))[1]
        # The gap below which SAM's Polyak step is zero on a quadratic.
        stop = SAM_RADIUS**2 / 2 * (gradient @ image) / (gradient @ gradient)
        distance = jnp.linalg.norm(x - jnp.asarray(problem.minimizer))
        return {"gap": problem.gap(x), "distance": distance, "stop": stop}

    settings = list(zip((0.0, 1.0), radii, strict=True))
    return _chains.descend(
        program, settings, problem, checkpoints, measure, chains=chains
    )


def _gaussian(noise: float) -> finite_sums.FiniteSum:
    generator = np.random.default_rng(3)
    matrix = generator.normal(size=(50, 10))
    target = matrix @ generator.normal(size=10) + noise * generator.normal(size=50)
    return finite_sums.least_squares(matrix, target)
