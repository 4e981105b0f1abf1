"""A desingularizing function that is not a power: the flattest minimum."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import integrate, optimize

from experiments.theory import claims, pictures, runs
from experiments.theory.khanh import _methods
from sam_jax.theory import descent, desingularizing, problems
from sam_jax.theory.step_sizes import khanh

CLAIM = claims.Claim(
    title="General desingularizing functions: on exp(-1/|x|) x_k falls like 1/log k",
    source="Khanh et al. 2024, Theorem 4.1 (iv), Definition 2.1 and Assumption 2.3",
    statement=r"""Theorem 4.1 (iv) holds for every desingularizing function, but its
rates hold only for the powers $M t^{1-q}$. At the minimum of $f(x) = e^{-1/|x|}$ no
power is a desingularizing function, but $\varphi(t) = 1 / \log(1/t)$ is (ours):
$\varphi'(f(x)) |f'(x)| = 1$, and Assumption 2.3 holds with $C = 1$. USAM and
extragradient converge more slowly than any power of $k$:
**$t k = \int e^u u^{-4}\, du$ from $1/x_1$ to $1/x_k$** in the limit of
$x' = -t f'(x)$, so $x_k \log k \to 1$.""",
    recipe=r"""$L = \max |f''|$, at $1/x = 3 + \sqrt 3$; $\nu = 0.5$, $\rho = \nu / L$,
$t$ the largest with $\delta = 0.1$; start 0.4, $10^6$ steps ($10^5$ in the short
form).""",
    criterion=r"""$\varphi' |f'|$ is 1 to $10^{-9}$ along the path; the largest $C$ over
200 points is at least 1 for this $\varphi$ and for the powers $q = 0.2, 0.5, 0.9$. The
integral equals $tk$ to 1 % over the last decade, where the local exponent of $x_k$ is
below 0.1. The first hundred iterates agree with those of a NumPy program to
$10^{-12}$.""",
)

START = 0.4


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes fewer steps."""
    count = 100_000 if quick else 1_000_000
    steepest = 3 + np.sqrt(3)
    L = float(np.exp(-steepest) * (steepest**4 - 2 * steepest**3))
    problem = problems.Problem(
        value=lambda x: jnp.sum(jnp.exp(-1 / jnp.abs(x))),
        start=np.array([START]),
        smoothness=L,
        minimum=0.0,
    )
    t = khanh.relative_error_step_size(L, 0.5, 0.1)
    rho = khanh.unnormalized_radius(L, 0.5)
    checkpoints = np.union1d(np.arange(101), descent.geometric(count))

    def descend() -> dict[str, jax.Array]:
        return {
            name: runs.descend(
                problem, make(rho), t, checkpoints, lambda x: x[0]
            ).recorded
            for name, make in _methods.UNNORMALIZED.items()
        }

    found = runs.once(descend)
    x = np.stack(list(found.values()))
    phi, late = desingularizing.LOGARITHMIC, checkpoints >= count / 10
    inside = np.exp(-1 / x) < phi.end
    kl = (phi.slope(np.exp(-1 / x)) * _gradient(x))[inside]
    passed = [[_time(of) for of in curve[late]] for curve in x]
    slopes = np.diff(np.log(x[:, late])) / np.diff(np.log(checkpoints[late]))
    points = np.geomspace(1e-30, 0.06, 200)
    functions = [phi, *(desingularizing.power(1.0, q) for q in (0.2, 0.5, 0.9))]
    program = np.stack([_program(t, sign * rho) for sign in (1, -1)])
    data = {"k": checkpoints[1:], "x_k": {n: of[1:] for n, of in found.items()}}
    data["x' = -t f'(x)"] = [_after(t * k) for k in checkpoints[1:]]
    checks = claims.Checks()
    checks.close(
        "integral / (t k), the last decade",
        np.array(passed) / (t * checkpoints[late]),
        1.0,
        rtol=0.01,
    )
    checks.close("phi'(f) |f'| along the path", kl, 1.0, rtol=1e-9)
    checks.at_least(
        "C of Assumption 2.3, logarithmic and powers",
        [of.assumption_2_3(points) for of in functions],
        1 - 1e-12,
    )
    checks.at_most("local exponent of x_k", -slopes, 0.1)
    checks.close(
        "first hundred iterates against NumPy", x[:, :101], program, rtol=1e-12
    )
    picture = pictures.draw(
        data, pictures.Panel("k", "x_k", "x' = -t f'(x)"), width=5.2
    )
    return claims.Outcome(checks, picture, data)


def _gradient(x: Any) -> Any:
    return np.exp(-1 / x) / x**2


def _program(t: float, rho: float) -> np.ndarray:
    """101 iterates of USAM, of extragradient with a negative radius."""
    path = [np.float64(START)]
    for _ in range(100):
        x = path[-1]
        path.append(x - t * _gradient(x + rho * _gradient(x)))
    return np.array(path)


def _time(x: float) -> float:
    """The time t k at which the path of x' = -f'(x) is at x."""
    return integrate.quad(lambda u: np.exp(u) / u**4, 1 / START, 1 / x)[0]


def _after(tk: float) -> float:
    """The point of that path at the time ``tk``."""
    return optimize.brentq(lambda x: _time(x) - tk, 0.02, START)  # pyright: ignore
