"""The bias of m-SAM on parabolas, in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments.theory import claims, pictures
from experiments.theory.si_yun import _family
from sam_jax.theory import descent, finite_sums, sampling
from sam_jax.theory.step_sizes import si_yun

CLAIM = claims.Claim(
    title="m-SAM is biased by -rho(2p - 1) for every step size",
    source="Si and Yun 2023, Theorem 4.2; the functions are ours",
    statement="""Derived: on components c_i (x - b_i)^2/2 with two centers m-SAM's step
is linear between them. With equal curvatures a and a share p at the left center its
stationary mean is **-rho(2p - 1)** for every eta, the variance eta a p(1 - p) (b_2 -
b_1 + 2 rho)^2 / (2 - eta a), so that E f - f* >= a rho^2 (2p - 1)^2/2; with unequal
ones the shift is -rho (p a_1 - (1 - p) a_2)/(p a_1 + (1 - p) a_2). SGD and SAM without
normalization are unbiased, with variances of the same form; n-SAM's gap vanishes with
eta.""",
    recipe="""Centers (-1, -1, 2) with curvatures 1, and (-2, -2, 20) with (1, 1, 0.2),
minimizers 0; rho = 0.3; eta = 0.05, 0.02, 0.01, 0.005; 250 chains of 8,000 steps from 0
(80 of 4,000, without the smallest eta, in the short form), means over the second
half.""",
    criterion="""Means and gaps over the chains within 4 of their standard errors (fixed
seed) of the closed forms; n-SAM's gap at the smallest eta is below a fifth of the
floor a rho^2/18.""",
)

RHO = 0.3
ETAS = np.array([0.05, 0.02, 0.01, 0.005])
# Name -> lam of Unified SAM, its radius, which sum.
METHODS = {
    "m-SAM": (1.0, RHO, 0),
    "m-SAM, unequal": (1.0, RHO, 1),
    "SGD": (1.0, 0.0, 0),
    "USAM": (0.0, RHO, 0),
}
# Centers and curvatures of the two sums, both with the minimizer 0.
SUMS = (
    ([-1.0, -1.0, 2.0], [1.0, 1.0, 1.0]),
    ([-2.0, -2.0, 20.0], [1.0, 1.0, 0.2]),
)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` has fewer chains."""
    chains, steps = (80, 4_000) if quick else (250, 8_000)
    etas = ETAS[:3] if quick else ETAS  # the smallest one needs the most steps
    members = [finite_sums.parabolas(*constants) for constants in SUMS]
    scheme = sampling.uniform(3)

    def moments(method, eta, problem, oracle, key) -> jax.Array:
        """Mean of x and of the gap over the second half of a path."""
        means = descent.descend(
            optax.chain(method, optax.sgd(eta)),
            oracle,
            np.zeros(1),
            [steps // 2, steps],
            record=lambda x: (),
            mean_of=lambda x: jnp.stack([x[0], problem.value(x)]),
            key=key,
        ).means
        return 2 * means[1] - means[0]

    @jax.jit
    @jax.vmap
    def one_sample(lam, rho, index, eta, key) -> jax.Array:
        problem = _family.one_of_sums(members, index)
        oracle = descent.same_sample(problem, scheme)
        method = sam_jax.unified_sam(rho, lam=lam)
        return moments(method, eta, problem, oracle, key)

    @jax.jit
    @jax.vmap
    def n_sam(eta, key) -> jax.Array:
        oracle = descent.full_ascent(members[0], scheme)
        return moments(sam_jax.sam(RHO), eta, members[0], oracle, key)

    which, step, _ = np.indices((len(METHODS), len(etas), chains)).reshape(3, -1)
    lam, rho, index = np.array(list(METHODS.values())).T
    keys = jax.random.split(jax.random.key(0), which.size)
    index = index[which].astype(int)
    found = one_sample(lam[which], rho[which], index, etas[step], keys)
    keys = jax.random.split(jax.random.key(1), len(etas) * chains)
    other = n_sam(np.repeat(etas, chains), keys)
    # [method, eta, chain, (x, value)]; n-SAM is the last one.
    every = np.concatenate([found, other]).reshape(-1, len(etas), chains, 2)
    minima = [members[i].minimum for *_, i in METHODS.values()] + [members[0].minimum]
    every[..., 1] -= np.array(minima)[:, None, None]
    mean, error = every.mean(2), every.std(2) / np.sqrt(chains - 1)
    predicted = np.stack(
        [
            [_predicted(eta, *method, members) for eta in etas]
            for method in METHODS.values()
        ]
    )
    names = [*METHODS, "n-SAM"]
    floor = RHO**2 / 18

    picture, (left, right) = pictures.panels(2)
    for i, name in enumerate(names):
        color, bars = pictures.COLORS[i], {"fmt": "os^Dv"[i], "ms": 4, "label": name}
        left.errorbar(etas, mean[i, :, 0], 4 * error[i, :, 0], color=color, **bars)
        right.errorbar(etas, mean[i, :, 1], 4 * error[i, :, 1], color=color, **bars)
    for i in range(len(METHODS)):
        label = "closed form" if i == 0 else ""
        pictures.bound(left, etas, predicted[i, :, 0], label)
        pictures.bound(right, etas, predicted[i, :, 1], label)
    left.set_xscale("log")
    pictures.linear(left, "step size eta", "mean of x", "stationary mean, 4 s.e.")
    right.set_ylim(1e-4, 0.3)
    pictures.log_log(right, "step size eta", "E f - f*", "stationary gap, 4 s.e.")
    right.axhline(floor, color="k", linestyle=":", linewidth=1)
    right.text(etas[-1], floor, "a rho^2/18", va="bottom", fontsize=8)
    for panel in (left, right):
        panel.set_xticks([], minor=True)
        panel.set_xticks(etas, [f"{eta:g}" for eta in etas])
    pictures.legends([right], loc="lower right", fontsize=7)

    def agree(what: str, i: int, j: int) -> claims.Check:
        off = np.abs(mean[i, :, j] - predicted[i, :, j]) / error[i, :, j]
        return claims.at_most(f"|{what} - predicted| / s.e., {names[i]}", off, 4.0)

    return claims.Outcome(
        checks=[
            claims.close(
                f"mean of m-SAM, eta = {etas[-1]}",
                mean[0, -1, 0],
                -RHO / 3,
                atol=4 * float(error[0, -1, 0]),
            ),
            *[agree("mean", i, 0) for i in range(len(METHODS))],
            *[agree("gap", i, 1) for i in range(len(METHODS))],
            claims.at_most(
                f"gap of n-SAM, eta = {etas[-1]}", mean[-1, -1, 1], floor / 5
            ),
            claims.at_least("gap of m-SAM", mean[0, :, 1], floor),
        ],
        picture=picture,
        data={
            "method": names,
            "eta": etas,
            "mean_x_and_gap": mean,
            "standard_error": error,
            "predicted": predicted,
        },
    )


def _predicted(eta, lam, rho, index, members) -> tuple[float, float]:
    """Mean of x and of the gap; without normalization a steeper parabola's SGD."""
    centers, curvatures = np.array(SUMS[index])
    mean, variance = si_yun.stationary_moments(
        eta,
        centers=centers,
        curvatures=curvatures * (1 + (1 - lam) * rho * curvatures),
        rho=lam * rho,
    )
    problem = members[index]
    return mean, problem.smoothness / 2 * (mean**2 + variance)
