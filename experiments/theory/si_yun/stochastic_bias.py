"""The bias of m-SAM on parabolas, in closed form."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import figure

import sam_jax
from experiments.theory import claims, pictures, runs
from sam_jax.theory import descent, finite_sums, sampling
from sam_jax.theory.step_sizes import si_yun

CLAIM = claims.Claim(
    title="m-SAM is biased by -rho(2p - 1) for every step size",
    source="Si and Yun 2023, Theorem 4.2; the functions are ours",
    statement=r"""Derived: on components $c_i (x - b_i)^2/2$ with two centers, the step
of m-SAM is linear between them. With equal curvatures $a$ and a share $p$ at the left
center, the stationary mean is $-\rho(2p - 1)$ for every $\eta$ and the variance is
$\eta a p(1 - p) (b_2 - b_1 + 2\rho)^2 / (2 - \eta a)$, so

$$
\mathrm E f - f^* \ge \frac{a \rho^2 (2p - 1)^2}{2}.
$$

With unequal curvatures the shift is
$-\rho (p a_1 - (1 - p) a_2)/(p a_1 + (1 - p) a_2)$. With equal curvatures SGD and SAM
without normalization are unbiased (SGD with any), with variances of the same form. The
gap of n-SAM vanishes with
$\eta$.""",
    recipe="""Centers (-1, -1, 2) with curvatures 1, and (-2, -2, 20) with (1, 1, 0.2),
minimizers 0; rho = 0.3; eta = 0.05, 0.02, 0.01, 0.005; 250 chains of 8,000 steps from 0
(80 of 4,000, without the smallest eta, in the short form), means over the second
half.""",
    criterion="""Means and gaps over the chains are within 4 standard errors (fixed
seed) of the closed forms. At the smallest eta the gap of n-SAM is below a fifth of the
floor a rho^2/18.""",
)

RHO, FLOOR = 0.3, 0.3**2 / 18
ETAS = np.array([0.05, 0.02, 0.01, 0.005])
# Name -> lam of Unified SAM, its radius, which sum.
METHODS = {
    "m-SAM": (1.0, RHO, 0),
    "m-SAM, unequal": (1.0, RHO, 1),
    "SGD": (1.0, 0.0, 0),
    "USAM": (0.0, RHO, 0),
}
NAMES = [*METHODS, "n-SAM"]
# Centers and curvatures of the two sums, both with the minimizer 0.
SUMS = (([-1.0, -1.0, 2.0], [1.0, 1.0, 1.0]), ([-2.0, -2.0, 20.0], [1.0, 1.0, 0.2]))
MEMBERS = [finite_sums.parabolas(*constants) for constants in SUMS]


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` has fewer chains."""
    chains, steps = (80, 4_000) if quick else (250, 8_000)
    etas = ETAS[:3] if quick else ETAS  # the smallest one needs the most steps
    every = _moments(etas, chains, steps)  # [method, eta, chain, (x, gap)]
    mean, error = every.mean(2), every.std(2) / np.sqrt(chains - 1)
    predicted = np.array(
        [[_predicted(eta, *method) for eta in etas] for method in METHODS.values()]
    )
    data = {"method": NAMES, "eta": etas, "mean_x_and_gap": mean}
    data |= {"standard_error": error, "predicted": predicted}
    off = np.abs(mean[:-1] - predicted) / error[:-1]
    checks = claims.Checks()
    checks.close(
        f"mean of m-SAM, eta = {etas[-1]}",
        mean[0, -1, 0],
        -RHO / 3,
        atol=4 * float(error[0, -1, 0]),
    )
    checks += (
        claims.at_most(f"|{what} - predicted| / s.e., {name}", of[:, j], 4.0)
        for j, what in enumerate(("mean", "gap"))
        for name, of in zip(METHODS, off, strict=True)
    )
    checks.at_most(f"gap of n-SAM, eta = {etas[-1]}", mean[-1, -1, 1], FLOOR / 5)
    checks.at_least("gap of m-SAM", mean[0, :, 1], FLOOR)
    picture = _picture(data)
    return claims.Outcome(checks, picture, data)


def _moments(etas: np.ndarray, chains: int, steps: int) -> np.ndarray:
    """The means of x and of the gap over the second half of each path."""
    scheme = sampling.uniform(3)

    def late(method, eta, problem, oracle, key) -> jax.Array:
        trace = runs.descend(
            problem,
            method,
            eta,
            [steps // 2, steps],
            mean_of=lambda x: jnp.stack([x[0], problem.value(x)]),
            start=np.zeros(1),
            oracle=oracle,
            key=key,
        )
        return runs.second_half(trace.means)

    def one_sample(lam, rho, index, eta, key) -> jax.Array:
        problem = runs.one_of(MEMBERS, index.astype(int))
        oracle = descent.same_sample(problem, scheme)
        return late(sam_jax.unified_sam(rho, lam=lam), eta, problem, oracle, key)

    def n_sam(eta, key) -> jax.Array:
        oracle = descent.full_ascent(MEMBERS[0], scheme)
        return late(sam_jax.sam(RHO), eta, MEMBERS[0], oracle, key)

    shape = len(METHODS), len(etas), chains
    constants = np.array(list(METHODS.values())).T[:, :, None, None]
    keys = jax.random.split(jax.random.key(0), shape)
    found = runs.each(one_sample, *constants, etas[:, None], keys)
    keys = jax.random.split(jax.random.key(1), shape[1:])
    every = np.concatenate([found, runs.each(n_sam, etas[:, None], keys)[None]])
    which = [int(i) for *_, i in METHODS.values()] + [0]
    every[..., 1] -= np.array([MEMBERS[i].minimum for i in which])[:, None, None]
    return every


def _predicted(eta: float, lam: float, rho: float, index: int) -> tuple[float, float]:
    """Mean of x and of the gap; SAM without normalization is SGD on a steeper one."""
    centers, curvatures = np.array(SUMS[index])
    mean, variance = si_yun.stationary_moments(
        eta,
        centers=centers,
        curvatures=curvatures * (1 + (1 - lam) * rho * curvatures),
        rho=lam * rho,
    )
    return mean, MEMBERS[index].smoothness / 2 * (mean**2 + variance)


def _picture(data: Mapping[str, Any]) -> figure.Figure:
    picture, panels = pictures.panels(2)
    etas, mean, error = data["eta"], data["mean_x_and_gap"], data["standard_error"]
    for j, (panel, label) in enumerate(
        zip(panels, ("mean of x", "E f - f*"), strict=True)
    ):
        for i, name in enumerate(NAMES):
            style = {"fmt": "os^Dv"[i], "ms": 4, "color": pictures.COLORS[i]}
            panel.errorbar(etas, mean[i, :, j], 4 * error[i, :, j], label=name, **style)
        for i, line in enumerate(data["predicted"][..., j]):
            pictures.bound(panel, etas, line, "closed form" if i == 0 else "")
        pictures.linear(panel, "step size eta", label, "stationary, 4 s.e.")
        panel.set_xscale("log")
        panel.set_xticks([], minor=True)
        panel.set_xticks(etas, [f"{eta:g}" for eta in etas])
    panels[1].set_yscale("log")
    panels[1].set_ylim(1e-4, 0.3)
    panels[1].axhline(FLOOR, color="k", linestyle=":", linewidth=1)
    panels[1].text(etas[-1], FLOOR, "a rho^2/18", va="bottom", fontsize=8)
    pictures.legends(panels[1:])
    return picture
