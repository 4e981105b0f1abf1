"""Interpolation and full gradients: only lambda = 0 converges all the way."""

import numpy as np

from experiments.theory import claims, pictures, runs
from experiments.theory.oikonomou import _chains
from sam_jax.theory import descent, finite_sums, sampling
from sam_jax.theory.step_sizes import unified

CLAIM = claims.Claim(
    title="Under interpolation USAM converges exactly, but lambda > 0 does not",
    source="Oikonomou and Loizou 2025, corollaries of Theorem 3.2 (3.4: full batch)",
    statement=r"""If all components share their minimizer ($C = 0$), the floor of
Theorem 3.2 is

$$
\frac L\mu \lambda^2 \rho \left(1 + 2 \gamma L^2 \rho\right).
$$

With constant $\rho$ and $\gamma$, $\lambda = 0$ converges linearly to the minimizer
even with single samples, and $\lambda > 0$ to a neighbourhood. Corollary 3.4 states the
same for full gradients, where $\rho^* = 1 / (L (1 + 2 (1 - \lambda)^2))$.""",
    recipe="""Consistent least squares, n = 12, d = 3, rows of length sqrt(3), start at
the origin; uniform single samples, 20 chains, and full gradients; lambda = 0, 0.1, 0.5,
1, rho*/2 and gamma*, 6,000 steps (quick: 3,000, 5 chains).""",
    criterion="""The gap ends below 1e-20 for lambda = 0, and between 1e-12 and N for
every lambda > 0. The bound of Theorem 3.2 with C = 0 holds at every checkpoint (plus
1e-25 for rounding). With full gradients the plateau is the closed form of the 2-cycle
to 1e-4.""",
)

LAMS = (0.0, 0.1, 0.5, 1.0)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim."""
    steps, chains = (3_000, 5) if quick else (6_000, 20)
    problem = _consistent()
    scheme, first = sampling.uniform(problem.size), runs.first_gap(problem)
    checkpoints = np.union1d(
        np.arange(0, 600, 10), np.linspace(0, steps, 101, dtype=int)
    )
    single = unified.interpolated(unified.constants(problem, scheme))
    full = unified.deterministic(problem)
    cases = {
        "single samples": (single, descent.same_sample(problem, scheme), chains),
        "full gradients": (full, descent.exact(problem), 1),
    }
    gaps, bounds, floors = [], [], []
    for known, oracle, count in cases.values():
        settings = [(lam, unified.default(known, lam)) for lam in LAMS]
        program = _chains.constant(oracle)
        found = _chains.descend(program, settings, problem, checkpoints, chains=count)
        gaps.append(found.mean(1))
        bounds.append([unified.bound(known, *s, first, checkpoints) for s in settings])
        floors.append([unified.floor(known, *s) for s in settings])
    cycles = [
        unified.two_cycle(full.L, lam, unified.default(full, lam)) for lam in LAMS[1:]
    ]
    seen, limits, floor = np.array(gaps), np.array(bounds), np.array(floors)
    plain, rest = seen[:, 0, -1], seen[:, 1:, -1]
    data = {"lam": LAMS, "cases": list(cases), "steps": checkpoints, "gap": seen}
    data["floor"] = floor
    checks = claims.Checks()
    checks.at_most("last gap, lambda = 0, both", plain, 1e-20)
    checks.at_least("last gap, lambda > 0, both", rest, 1e-12)
    checks.at_most("last gap, lambda > 0: N", rest, floor[:, 1:])
    checks.at_most("gap, all checkpoints", seen, limits + 1e-25)
    checks.close("plateau, full gradients, lambda > 0", rest[1], cycles, rtol=1e-4)
    picture = pictures.row(
        data | {"bound, lambda = 0": limits[:, 0]},
        dict(enumerate(cases)),
        "steps",
        "gap",
        "bound, lambda = 0",
        by="lam",
        log="y",
        ylim=(1e-27, 1e2),
    )
    return claims.Outcome(checks, picture, data)


def _consistent() -> finite_sums.FiniteSum:
    generator = np.random.default_rng(2)
    matrix = generator.normal(size=(12, 3))
    matrix *= np.sqrt(3) / np.linalg.norm(matrix, axis=1, keepdims=True)
    return finite_sums.least_squares(matrix, matrix @ generator.normal(size=3))
