"""Figure 1: full gradients, eleven values of lambda, plateaus in closed form."""

import numpy as np

from experiments.theory import claims, pictures, runs
from experiments.theory.oikonomou import _chains, _figures
from sam_jax.theory import descent, finite_sums
from sam_jax.theory.step_sizes import unified

CLAIM = claims.Claim(
    title="The plateau of full-gradient Unified SAM rises with lambda",
    source="Oikonomou and Loizou 2025, Figure 1 and Corollary 3.4",
    statement=r"""With full gradients and the theorem's constants, $\lambda = 0$ (USAM)
converges linearly to the minimizer, and every $\lambda > 0$ to a plateau that rises
with $\lambda$. Derived: the plateau is that of a 2-cycle along the top eigenvector,

$$
\frac L2 c^2, \qquad
c = \frac{\gamma L \rho \lambda}{2 - \gamma L (1 + L \rho (1 - \lambda))},
$$

and $\lambda = 0$ is the linear map $1 - \gamma l (1 + \rho l)$ in each
eigendirection.""",
    recipe="""f(x) = ||Ax - b||^2 / 2, n = d = 100, condition number 10, consistent;
matrix, solution and start are those of the authors' code with its seed. 10,000 steps,
lambda = 0, 0.1, .. 1; the simplified rule of the last version of the code, which the
figure shows, and rho = rho*/2, gamma = gamma*.""",
    criterion="""All plateaus are the closed form to 1e-4 and rise with lambda. The gap
of lambda = 0 is that of the linear map to 1e-6. The bound of Theorem 3.2 holds at every
checkpoint.""",
)

LAMS = np.arange(11) / 10
RULES = {"simplified rule": unified.simplified, "rho*/2, gamma*": unified.default}


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` changes nothing here."""
    del quick
    problem = _figures.figure_1()
    known, first = unified.deterministic(problem), runs.first_gap(problem)
    checkpoints = np.r_[0, np.geomspace(10, 10_000, 60).round().astype(int)]
    settings = [(lam, make(known, lam)) for make in RULES.values() for lam in LAMS]
    program = _chains.constant(descent.exact(problem))
    gaps = _chains.descend(program, settings, problem, checkpoints)[:, 0]
    plateaus = np.array([unified.two_cycle(known.L, *setting) for setting in settings])
    bounds = np.array([unified.bound(known, *s, first, checkpoints) for s in settings])
    linear = [_linear(problem, settings[i][1], checkpoints) for i in (0, 11)]
    lams, ends = np.tile(LAMS, 2), gaps[:, -1]
    rise = bool((np.diff(ends.reshape(2, 11)) > 0).all())
    data = {"lam": lams, "rho": [rule.rho for _, rule in settings]}
    data |= {"gamma": [rule.gamma for _, rule in settings], "steps": checkpoints}
    data |= {"relative_gap": gaps / first, "plateau": plateaus / first}
    data["floor"] = [unified.floor(known, *setting) / first for setting in settings]
    checks = claims.Checks()
    checks.close(
        "plateau / closed form, lambda = 0.1 .. 1, both rules",
        ends[lams > 0] / plateaus[lams > 0],
        1.0,
        rtol=1e-4,
    )
    checks.close(
        "gap at lambda = 0, both rules, all checkpoints, linear map",
        gaps[[0, 11]] / first,
        np.array(linear) / first,
        rtol=1e-6,
        atol=1e-22,
    )
    checks.says("plateaus rise with lambda", rise, True)
    # At the start both sides are the same number, except for rounding.
    checks.at_most("gap, all settings, all steps", gaps[:, 1:], bounds[:, 1:])
    checks.close("f(x_0), the authors' draw", first, 257.366338, rtol=1e-8)
    picture = pictures.row(
        data
        | {"lambda": LAMS, "relative_gap": data["relative_gap"].reshape(2, 11, -1)},
        dict(enumerate(RULES)),
        "steps",
        "relative_gap",
        by="lambda",
        log="y",
        ylim=(1e-17, 30),
        width=4.2,
    )
    return claims.Outcome(checks, picture, data)


def _linear(
    problem: finite_sums.FiniteSum, rule: unified.Rule, steps: np.ndarray
) -> np.ndarray:
    """Gap of USAM after each number of steps, in the eigenbasis of the Hessian."""
    matrix, solution, _ = _figures.consistent()
    eigenvalues, basis = np.linalg.eigh(matrix.T @ matrix)
    offset = basis.T @ (problem.start - solution)
    factors = 1 - rule.gamma * eigenvalues * (1 + rule.rho * eigenvalues)
    return (eigenvalues * (offset * factors ** steps[:, None]) ** 2).sum(1) / 2
