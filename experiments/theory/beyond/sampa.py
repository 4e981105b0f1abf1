"""SAMPa converges with a constant radius on convex functions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments.theory import claims, pictures, runs
from experiments.theory.si_yun import convex_rate
from sam_jax.theory import descent, problems

CLAIM = claims.Claim(
    title="SAMPa, whose ascent lags by a step, converges with a constant radius",
    source="Xie, Pethick and Cevher 2024 (convex, fixed radius); bound and cycle: ours",
    statement=r"""SAMPa takes its perturbation from the gradient at $y_t = x_{t-1} -
\eta \nabla f(y_{t-1})$ instead of $x_t$. Derived, for convex $f$ with an $L$-Lipschitz
gradient, $\eta \le 1/(2L)$ and any constant radius: **$\frac 1T \sum_{t<T} \|\nabla
f(x_t)\|^2 \le \frac43 \left(\frac{\Delta + L^2 \eta^2 \rho \|\nabla f(x_0)\|}{\eta T} +
\frac32 L^3 \eta \rho^2\right)$**, which is $O(T^{-1/2})$ for $\eta \sim T^{-1/2}$. The
$\rho^2$ term is that of SAM's bound with $\frac32$ in place of $\frac12$. The gradients
$\nabla f(x_t)$ and $\nabla f(y_t)$ differ by at most $L^2 \eta \rho / (1 - L\eta) +
(L\eta)^t \|\nabla f(x_0)\|$, since the first step is one of gradient descent. On a
quadratic with $\alpha = \eta l$ and $q = 1 - \alpha$ SAMPa has a 4-cycle,
$a, b, -a, -b$, with $a = \alpha^2 \rho / (1 + q^2)$ and $b = qa + \alpha \rho$. For
small $\alpha$ it also has longer cycles.""",
    recipe=r"""Logistic regression with 10 random examples in 5 dimensions, each with
both labels (minimum $\log 2$ at 0), $\rho = 0.5$, start with norm 4, $T$ from 100 to
30,000 (3,000 in the short form), $\eta = \min(1/(2L), (2\Delta/(3 L^3 \rho^2
T))^{1/2})$; the parabola $l = 1$, $\rho = 0.1$, $\eta$ = 0.2, 0.3, 0.4, 4,003 steps
from 1.""",
    criterion=r"""The bound holds at every checkpoint of every run. With $\eta = 1/(2L)$
kept at the largest $T$ the mean exceeds the bound without its $\rho^2$ term. The
iterates of the last four steps are the cycle to $10^{-9}$, and those of gradient
descent are below $10^{-9}$.""",
)

RHO, STEPS = 0.5, np.array([0.2, 0.3, 0.4])


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` has smaller horizons."""
    problem, start, gap = convex_rate.both_labels()
    L = problem.smoothness
    horizons = runs.horizons(100, 3_000 if quick else 30_000, 5)
    ends, checkpoints = horizons
    largest = 1 / (2 * L)
    etas = np.minimum(largest, np.sqrt(2 * gap / (3 * L**3 * RHO**2 * ends)))

    def mean(eta: jax.Array) -> jax.Array:
        squared = problem.squared_gradient
        return _descend(problem, eta, RHO, start, checkpoints, mean_of=squared).means

    means, (kept,) = np.split(runs.each(mean, [*etas, largest]), [len(etas)])
    steep = float(jnp.linalg.norm(problem.gradient(jnp.asarray(start))))
    eta = etas[:, None]
    first = gap + L**2 * eta**2 * RHO * steep
    bounds = 4 / 3 * (first / (eta * checkpoints) + 1.5 * L**3 * eta * RHO**2)
    without = 4 / 3 * (gap / largest + L**2 * largest * RHO * steep) / ends[-1]
    found, cycle, plain = _parabola()
    final, bound = horizons.last(means), horizons.last(bounds)
    data = {"horizon": ends, "eta": etas, "mean": final, "bound": bound}
    data |= {"step": np.arange(60), "x": found[:, :60], "eta_of_cycle": STEPS}
    data |= {"cycle": cycle[:, :2]}
    checks = claims.Checks()
    checks.at_most("mean, all runs: its bound", means, bounds)
    checks.at_least(
        "mean with eta = 1/(2 L), over the bound without rho", kept[-1] / without, 1.0
    )
    checks.close("the last four iterates: the cycle", found[:, -4:], cycle, atol=1e-9)
    checks.at_most("|x| of gradient descent", np.abs(plain[:, -1]), 1e-9)
    picture = pictures.draw(
        data | {"|x_t|": np.abs(data["x"]), "a, b": np.abs(data["cycle"].ravel())},
        pictures.Panel("horizon", "mean", "bound", "mean ||grad f||^2, eta(T)"),
        pictures.Panel("step", "|x_t|", "a, b", "parabola", by="eta_of_cycle", log="y"),
    )
    return claims.Outcome(checks, picture, data)


def _descend(
    problem: problems.Problem,
    eta: jax.Array,
    rho: jax.typing.ArrayLike,
    start: np.ndarray,
    checkpoints: np.ndarray,
    record: descent.Measure = runs.nothing,
    mean_of: descent.Measure | None = None,
) -> descent.Trace:
    """SAMPa without momentum; x is measured."""
    return descent.descend(
        sam_jax.sampa(eta, rho, lam=0.0, base=optax.sgd),  # pyright: ignore
        descent.exact(problem),
        start,
        checkpoints,
        weights=sam_jax.sampa_eval_params,  # pyright: ignore
        record=record,
        mean_of=mean_of,
    )


def _parabola() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paths of SAMPa, the cycle in its phase, and the paths without a radius."""
    parabola, rho = problems.quadratic([1.0], [1.0]), 0.1
    checkpoints = np.r_[np.arange(60), 4000 + np.arange(4)]

    def path(eta: jax.Array, rho: jax.Array) -> jax.Array:
        start = parabola.start
        return _descend(
            parabola, eta, rho, start, checkpoints, record=lambda x: x[0]
        ).recorded

    found, plain = runs.each(path, STEPS, np.array([[rho], [0.0]]))
    q = 1 - STEPS
    a = STEPS**2 * rho / (1 + q**2)
    b = q * a + STEPS * rho
    four = np.stack([a, b, -a, -b], axis=-1)
    phases = np.stack([np.roll(four, shift, axis=1) for shift in range(4)])
    off = np.abs(phases - found[:, -4:]).max(axis=-1)  # [phase, eta]
    return found, phases[off.argmin(axis=0), np.arange(len(STEPS))], plain
