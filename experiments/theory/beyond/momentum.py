"""Heavy-ball momentum and the two kinds of floors: cycles and bias."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib import figure

import sam_jax
from experiments.theory import claims, pictures, runs
from sam_jax.theory import descent, finite_sums, problems, sampling

CLAIM = claims.Claim(
    title="Momentum adds longer cycles to SAM and does not change its bias",
    source="ours",
    statement=r"""With heavy-ball momentum $b$ (a trace $m = b m + g$, $x - \eta m$)
and $s = \eta l$: on a parabola of curvature $l$ SAM's 2-cycle stays stable and has the
amplitude

$$
\frac{s \rho}{2 (1 + b) - s}, \qquad 0 < s < 2 (1 + b).
$$

Above this limit SAM diverges. The 2-cycle is not the only cycle: there are also cycles
$x_{t+p} = -x_t$ for $p = 2, 3, \ldots$, which are larger and also stable, so the start
decides where SAM ends. Between two sign changes the iteration is linear, so each cycle
solves a linear system. Where SAM stalls at a zero of its own gradient field (the
sinusoid), momentum changes nothing. The bias of m-SAM also stays: between the centers
its mean gradient is affine, so the stationary mean of the parabolas is $-\rho/3$ for
every $b$. The variance is that of a second-order autoregression, with
$V = 2 (3 + 2 \rho)^2 / 9$:

$$
\frac{(1 + b)\, \eta V}{(1 - b)\, (2 (1 + b) - \eta)}.
$$""",
    recipe="""rho = 0.3. Parabola, l = 1, 4,000 steps: b = 0, 0.5, 0.9 and nine s each,
started 1 % off the 2-cycle; s = 0.1 (1 + b), from rest at 40 points in [0.01, 1].
Sinusoid, beta = 1, eta = 0.1, 4,000 steps. Parabolas at -1, -1, 2, one drawn in each
step, eta = 0.02 (1 - b), b = 0, 0.5, 0.9, 0.95: 2,000 steps, means over the second half
of 2,000 chains.""",
    criterion="""The closed forms hold for amplitudes to 1e-6 (from rest: for one of the
cycles p <= 20), for the sinusoid's ||grad f||^2 = 27 beta^2 rho^2 / (100 pi^2) to 1e-6,
for means within four standard errors of the chains, and for variances to 5 %.""",
)

RHO = 0.3
SHARES = (0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 1.05)  # of the limit 2 (1 + b)
DECAY = np.array([0.0, 0.5, 0.9])
B = np.array([0.0, 0.5, 0.9, 0.95])  # of the stochastic part


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes fewer chains."""
    cycles, data = _deterministic()
    means, errors, variances = _stationary(300 if quick else 2000)
    eta, noise = 0.02 * (1 - B), 2 * (3 + 2 * RHO) ** 2 / 9
    variance = (1 + B) * eta * noise / ((1 - B) * (2 * (1 + B) - eta))
    data |= {"stochastic_momentum": B, "means_of_sgd_and_sam": means}
    data |= {"standard_errors": errors, "variances": variances}
    data["predicted_variance_of_sam"] = variance
    off = np.abs(means - [0, -RHO / 3]) / errors
    stall = 27 * RHO**2 / (100 * np.pi**2)
    checks = claims.Checks()
    checks.close(
        "stationary mean of m-SAM, b = 0.9",
        means[2, 1],
        -RHO / 3,
        atol=float(4 * errors[2, 1]),
    )
    checks.at_most("|mean + rho/3| of m-SAM in standard errors, all b", off[:, 1], 4.0)
    checks.at_most("|mean| of SGD in standard errors, all b", off[:, 0], 4.0)
    checks.close("variance of m-SAM, all b", variances[:, 1], variance, rtol=0.05)
    checks += cycles
    checks.close("||grad f||^2 of the sinusoid, all b", _stall(), stall, rtol=1e-6)
    return claims.Outcome(checks, _picture(data), data)


def _deterministic() -> tuple[list[claims.Check], dict[str, Any]]:
    """The cycles of the parabola: from starts near the 2-cycle, and from rest."""
    limit = 2 * (1 + DECAY[:, None])
    s = np.array(SHARES) * limit
    below = s[:, :-1]
    predicted = below * RHO / (limit - below)
    # Beyond the limit there is no cycle; any start works.
    starts = 1.01 * np.c_[predicted, np.ones(3)]
    amplitude = _ends(s, starts, moving=True)
    grid = np.geomspace(0.01, 1.0, 40)
    rest = _ends(0.05 * limit, grid, moving=False)
    known = [_cycles(0.1 * (1 + value), value) for value in DECAY]
    distance = [
        np.abs(ends[:, None] / np.array(list(cycles.values())) - 1).min(1)
        for ends, cycles in zip(rest, known, strict=True)
    ]
    # Infinity and NaN, the ends of a divergence, as a large number.
    beyond = np.nan_to_num(amplitude[:, -1], nan=1e300, posinf=1e300)
    longer = rest[2].max() / known[2][1]
    within = amplitude[:, :-1]
    what = "amplitude of the cycle, all b and s below the limit"
    one, nearest = "amplitude of the cycle, b = 0.9, s = 0.38", np.concatenate(distance)
    checks = claims.Checks()
    checks.close(one, within[2, 2], predicted[2, 2], rtol=1e-6)
    checks.close(what, within, predicted, rtol=1e-6)
    checks.at_most(
        "from rest: relative distance to the nearest cycle, all b", nearest, 1e-6
    )
    checks.close("from rest, b = 0: largest |x|", rest[0], known[0][1], rtol=1e-6)
    checks.at_least(
        "from rest, b = 0.9: largest |x| over that of the 2-cycle", longer, 2.0
    )
    checks.at_least("distance 5 % above the limit", beyond, 1e6)
    data = {"momentum": DECAY, "s": s, "amplitude": amplitude, "predicted": predicted}
    data |= {"starts_from_rest": grid, "amplitude_from_rest": rest}
    return checks, data | {"cycles_by_half_period": known}


def _chain(
    rho: jax.typing.ArrayLike, eta: jax.typing.ArrayLike, b: jax.typing.ArrayLike
) -> optax.GradientTransformation:
    sgd = optax.chain(optax.trace(decay=b), optax.scale_by_learning_rate(eta))  # pyright: ignore[reportArgumentType]
    return optax.chain(sam_jax.sam(rho), sgd)  # pyright: ignore[reportArgumentType]


def _ends(s: np.ndarray, starts: np.ndarray, *, moving: bool) -> np.ndarray:
    """Largest |x| of the last 120 steps on x^2 / 2, [b, ..] with the starts.

    ``moving`` starts with the trace of a step that jumps over the minimum.
    """
    problem = problems.quadratic([1.0], [1.0])

    def largest(eta: jax.Array, b: jax.Array, start: jax.Array) -> jax.Array:
        tx = _chain(RHO, eta, b)
        trace = jnp.reshape(-2 * start / eta if moving else jnp.zeros([]), 1)

        def init(params: optax.Params) -> optax.OptState:
            return optax.tree.set(tx.init(params), trace=trace)

        found = descent.descend(
            optax.GradientTransformationExtraArgs(init, tx.update),  # pyright: ignore[reportArgumentType]
            descent.exact(problem),
            jnp.reshape(start, 1),
            np.arange(3881, 4001),
            record=lambda x: jnp.abs(x[0]),
        )
        return found.recorded.max()

    return runs.each(largest, s, DECAY[:, None], starts)


def _cycles(s: float, b: float, longest: int = 20) -> dict[int, float]:
    """Half period p -> largest |x| of the cycle x_{t+p} = -x_t with one sign for p."""
    found = {}
    for p in range(1, longest + 1):
        matrix = np.zeros((p, p))
        # x_{t+1} - (1 + b - s) x_t + b x_{t-1} = -s rho, with x_{t+p} = -x_t.
        for t in range(p):
            for place, factor in ((t + 1, 1.0), (t, s - 1 - b), (t - 1, b)):
                turns, row = divmod(place, p)
                matrix[t, row] += factor * (-1) ** turns
        x = np.linalg.solve(matrix, np.full(p, -s * RHO))
        if (x > 0).all():
            found[p] = float(x.max())
    return found


def _stall() -> np.ndarray:
    """||grad f||^2 at the end on the sinusoid."""
    problem = problems.sinusoid(1.0, RHO, 0.05 * RHO)

    def last(b: jax.Array) -> jax.Array:
        tx, oracle = _chain(RHO, 0.1, b), descent.exact(problem)
        found = descent.descend(tx, oracle, problem.start, [4000], record=runs.nothing)
        return problem.gradient(found.x)[0] ** 2

    return runs.each(last, DECAY)


def _stationary(chains: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, their standard errors and variances, [b, SGD and SAM]."""
    problem = finite_sums.parabolas([-1.0, -1.0, 2.0], start=0.0)
    oracle = descent.same_sample(problem, sampling.uniform(problem.size))

    def moments(b: jax.Array, rho: jax.Array, key: jax.Array) -> jax.Array:
        found = descent.descend(
            _chain(rho, 0.02 * (1 - b), b),
            oracle,
            problem.start,
            [1000, 2000],
            record=runs.nothing,
            mean_of=lambda x: jnp.stack([x[0], x[0] ** 2]),
            key=key,
        )
        return runs.second_half(found.means)

    keys = jax.random.split(jax.random.key(0), chains)
    found = runs.each(moments, B[:, None, None], np.array([[0.0], [RHO]]), keys)
    means = found[..., 0].mean(-1)
    errors = found[..., 0].std(-1) / np.sqrt(chains)
    return means, errors, found[..., 1].mean(-1) - means**2


def _picture(data: Mapping[str, Any]) -> figure.Figure:
    picture, (left, middle, right) = pictures.panels(3, width=3.8)
    part = np.geomspace(0.01, 0.97, 100)
    for i, b in enumerate(DECAY):
        name, line = f"b = {b:g}", 2 * (1 + b) * part
        left.plot(data["s"][i, :-1], data["amplitude"][i, :-1], "o", label=name)
        label = "s rho / (2 (1 + b) - s)" if i == 0 else ""
        pictures.bound(left, line, part * RHO / (1 - part), label)
        rest = data["starts_from_rest"], data["amplitude_from_rest"][i]
        middle.plot(*rest, "o", markersize=3, label=name)
    cycles = [c for of in data["cycles_by_half_period"] for c in of.values()]
    for i, height in enumerate(cycles):
        pictures.bound(middle, None, height, "closed forms" if i == 0 else "")
    pictures.log_log(left, "s = eta l", "largest |x|", "2-cycle")
    pictures.log_log(middle, "start, at rest", "largest |x|", "cycles, s = 0.1 (1 + b)")
    middle.set_ylim(0.012, 1.5)
    means, errors = data["means_of_sgd_and_sam"], 4 * data["standard_errors"]
    for j, label in enumerate(("SGD", "m-SAM")):
        style = {"fmt": "so"[j], "capsize": 3, "label": label}
        right.errorbar(B, means[:, j], errors[:, j], **style)
    pictures.bound(right, None, -RHO / 3, "-rho/3")
    right.set_ylim(-0.14, 0.05)
    pictures.linear(right, "momentum b", "stationary mean", "parabolas at -1, -1, 2")
    pictures.legends([left, middle, right])
    return picture
