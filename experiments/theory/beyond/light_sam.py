"""LightSAM converges with every radius and every learning rate."""

import jax.numpy as jnp
import numpy as np

from experiments.theory import claims, pictures, runs
from sam_jax import contrib
from sam_jax.theory import descent, problems

CLAIM = claims.Claim(
    title="LightSAM converges with every radius and every learning rate",
    source="Cheng et al. 2025 (LightSAM: any radius and learning rate); bound: ours",
    statement=r"""LightSAM divides both of its steps by accumulated norms
(AdaGrad-Norm):
$u_t = u_{t-1} + \|g_t\|^2$, $w_t = x_t + \rho g_t / \sqrt{u_t}$, $s_t = \nabla f(w_t)$,
$v_t = v_{t-1} + \|s_t\|^2$, $x_{t+1} = x_t - \eta s_t / \sqrt{v_t}$. Derived, for full
gradients of any $f$ that is bounded below and has an $L$-Lipschitz gradient, **for
every $\rho$ and every $\eta$: $\sum_t \|\nabla f(x_t)\|^2 \le U$ for all $T$**, so the
gradient vanishes. With $\ell(z, z_0) = 1 + \log(z / z_0)$, $V$ and $U$ are the largest
solution of $\sqrt V = \frac{2\Delta}{\eta} + \frac{L^2 \rho^2}{\sqrt{v_1}} \ell(U, u_1)
+ L \eta\, \ell(V, v_1)$ and $U = 2V + 2 L^2 \rho^2 \ell(U, u_1)$. SAM with the same
constants stalls or diverges.""",
    recipe=r"""The stalling sinusoid of radius $\rho_0$ = 0.3 ($L = 1$, start 0.02) and
$\log(1 + r^2)$ residuals in two dimensions; all pairs of $\rho$ = 0.03, 0.3, 3 and
$\eta$ = 0.1, 1, 10, 20,000 steps. The parabola $x^2 / 2$ from
0.01 with $\rho = 3$, $\eta = 1$. SAM with $\rho = \rho_0$ on the sinusoid, $\eta$ =
0.1 and 1, and on the parabola with $\eta = 2.5$.""",
    criterion=r"""The sum of the squared gradients is at most $U$ at every checkpoint,
and for $\eta \le 1$ the last decade adds less than 1 % to it. On the parabola the sum
exceeds $U$ without its $\rho$ terms. The first iterates agree with those of a NumPy
program to $10^{-6}$ (the accumulators have single precision). SAM on the sinusoid ends
where $\|\nabla f\|^2 = 27 (L \rho)^2 / (100 \pi^2)$, to $10^{-6}$, and diverges on the
parabola.""",
)

RHOS, ETAS = np.array([0.03, 0.3, 3.0]), np.array([0.1, 1.0, 10.0])


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` changes nothing here."""
    del quick
    count = 20_000
    checkpoints = np.unique(np.r_[descent.geometric(count)[1:], count // 10])
    chosen = _problems()
    sums = {  # [radius, learning rate, checkpoint]
        name: _sums(problem, RHOS[:, None], ETAS, checkpoints)
        for name, problem in chosen.items()
    }
    limits = {
        name: np.array([[_limit(problem, r, eta) for eta in ETAS] for r in RHOS])
        for name, problem in chosen.items()
    }
    shares = [sums[name] / limits[name][..., None] for name in chosen]
    tenth = int(np.searchsorted(checkpoints, count // 10))
    grows = [of[:, :2, -1] / of[:, :2, tenth] for of in sums.values()]
    parabola = problems.quadratic([1.0], [0.01])
    needed = _sums(parabola, np.array([3.0]), np.array([1.0]), np.array([count]))
    without = _limit(parabola, 3.0, 1.0, part=0.0)
    stall, runaway = _sam(chosen["sinusoid"], parabola)
    data = {"T": checkpoints, "rho": RHOS, "eta": ETAS, "sum": sums, "U": limits}
    shown = {n: of[1] for n, of in sums.items()}
    checks = claims.Checks()
    checks.at_most("sum of ||grad f||^2 / U, all settings", shares, 1.0)
    checks.at_most("growth of the sum in the last decade", grows, 1.01)
    checks.at_least("parabola: the sum over U without rho", needed / without, 1.0)
    checks.close("first iterates against NumPy", *_first(), rtol=1e-6)
    checks.close(
        "SAM, sinusoid: ||grad f||^2 / (L rho)^2",
        stall**2 / 0.09,
        27 / (100 * np.pi**2),
        rtol=1e-6,
    )
    checks.at_least("SAM, parabola: last |x|", runaway, 1e6)
    picture = pictures.row(
        data | {"sum of ||grad f||^2": shown},
        {name: f"{name}, rho = 0.3" for name in chosen},
        "T",
        "sum of ||grad f||^2",
        by="eta",
    )
    return claims.Outcome(checks, picture, data)


def _problems() -> dict[str, problems.Problem]:
    matrix = np.array([[1.04, -0.04], [0.19, 1.03]])
    residuals = problems.log_residuals(matrix, np.array([1.0, -1.0]), np.full(2, 2.0))
    return {"sinusoid": problems.sinusoid(1.0, 0.3, 0.02), "log(1 + r^2)": residuals}


def _sums(
    problem: problems.Problem, rho: np.ndarray, eta: np.ndarray, checkpoints: np.ndarray
) -> np.ndarray:
    """Sums of the squared gradients before the checkpoints."""
    squared, make = problem.squared_gradient, contrib.light_sam
    found = runs.sam(problem, rho, eta, checkpoints, make=make, mean_of=squared)
    return found.means * checkpoints


def _limit(
    problem: problems.Problem, rho: float, eta: float, part: float = 1.0
) -> float:
    """U, by iteration from above; ``part`` 0 drops the terms in rho."""
    x, L = jnp.asarray(problem.start), problem.smoothness
    gradient = np.asarray(problem.gradient(x))
    ahead = x + rho * gradient / np.linalg.norm(gradient)
    u, v = (float(problem.squared_gradient(jnp.asarray(y))) for y in (x, ahead))
    error, high, gap = part * (L * rho) ** 2, 1e12, runs.first_gap(problem)
    limit = high
    for _ in range(1_000):
        of_u, of_v = 1 + np.log(limit / u), 1 + np.log(high / v)
        root = 2 * gap / eta + error / np.sqrt(v) * of_u
        high = float(root + L * eta * of_v) ** 2
        limit = 2 * high + 2 * error * of_u
    return limit


def _sam(
    wave: problems.Problem, parabola: problems.Problem
) -> tuple[np.ndarray, np.ndarray]:
    """SAM's last gradients on the sinusoid, and the last |x| on the parabola."""
    stalled = runs.sam(wave, 0.3, [0.1, 1.0], [1_000], lambda x: wave.gradient(x)[0])
    return stalled.recorded, np.abs(runs.sam(parabola, 0.3, 2.5, [1_000]).x)


def _first() -> tuple[np.ndarray, np.ndarray]:
    """Ten iterates on the parabola, and those of a separate program."""
    parabola, rho, eta = problems.quadratic([1.0], [2.0]), 0.5, 0.7
    found = runs.sam(
        parabola, rho, eta, np.arange(11), lambda x: x[0], make=contrib.light_sam
    ).recorded
    x, u, v, path = 2.0, 0.0, 0.0, [2.0]
    for _ in range(10):
        u += x**2
        ahead = x + rho * x / np.sqrt(u)
        v += ahead**2
        x -= eta * ahead / np.sqrt(v)
        path.append(x)
    return found, np.array(path)
