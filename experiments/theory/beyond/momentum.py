"""Heavy-ball momentum in front of the floors of both kinds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments.theory import claims, pictures
from sam_jax.theory import descent, finite_sums, problems, sampling

CLAIM = claims.Claim(
    title="Momentum adds longer cycles to SAM's and leaves its bias where it is",
    source="ours",
    statement="""With heavy-ball momentum b (a trace m = b m + g, x - eta m) and
s = eta l: on a parabola of curvature l SAM's 2-cycle stays stable and has the amplitude
**s rho / (2 (1 + b) - s)**, for 0 < s < 2 (1 + b); above that limit SAM diverges. It is
no longer the only one: there are cycles x_{t+p} = -x_t for p = 2, 3, .. too, larger and
just as stable, so that the start decides. Between two changes of sign the iteration is
linear, which gives all of them by a linear system. Where SAM stalls at a zero of its
own gradient field (the sinusoid), momentum changes nothing. The bias of m-SAM stays
too: between the centers its mean gradient is affine, so the stationary mean of the
parabolas is **-rho/3 for every b**, and the variance is
(1 + b) eta V / ((1 - b) (2 (1 + b) - eta)), V = 2 (3 + 2 rho)^2 / 9, that of a
second-order autoregression.""",
    recipe="""rho = 0.3. Parabola, l = 1, 4,000 steps: b = 0, 0.5, 0.9 and nine s each,
started 1 % beside the 2-cycle; s = 0.1 (1 + b), from rest at 40 points in [0.01, 1].
Sinusoid, beta = 1, eta = 0.1, 4,000 steps. Parabolas at -1, -1, 2, one drawn a step,
eta = 0.02 (1 - b), b = 0, 0.5, 0.9, 0.95: 2,000 steps, means over the second half of
2,000 chains.""",
    criterion="""Amplitudes to 1e-6 (from rest: of one of the cycles p <= 20), and the
sinusoid's ||grad f||^2 = 27 beta^2 rho^2 / (100 pi^2) to 1e-6; means to four standard
errors of the chains, variances to 5 %.""",
)

RHO = 0.3
SHARES = (0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 1.05)  # of the limit 2 (1 + b)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes fewer chains."""
    decay = np.array([0.0, 0.5, 0.9])
    shares = np.array(SHARES)
    s = shares * 2 * (1 + decay[:, None])
    below, limit = s[:, :-1], 2 * (1 + decay[:, None])
    predicted = below * RHO / (limit - below)
    # Beyond the limit there is no cycle; any start will do.
    starts = 1.01 * np.c_[predicted, np.ones(3)]
    amplitude = _ends(s, np.broadcast_to(decay[:, None], s.shape), starts, moving=True)
    grid = np.geomspace(0.01, 1.0, 40)
    from_rest = _ends(
        np.broadcast_to(0.1 * (1 + decay[:, None]), (3, 40)),
        np.broadcast_to(decay[:, None], (3, 40)),
        np.broadcast_to(grid, (3, 40)),
        moving=False,
    )
    known = [_cycles(0.1 * (1 + value), value) for value in decay]
    distance = [
        np.abs(ends[:, None] / np.array(list(cycles.values())) - 1).min(1)
        for ends, cycles in zip(from_rest, known, strict=True)
    ]
    stall = _stall(decay)
    b = np.array([0.0, 0.5, 0.9, 0.95])
    chains = 300 if quick else 2000
    means, errors, variances = _stationary(b, chains)
    eta = 0.02 * (1 - b)
    noise = 2 * (3 + 2 * RHO) ** 2 / 9
    variance = (1 + b) * eta * noise / ((1 - b) * (2 * (1 + b) - eta))

    picture, (left, middle, right) = pictures.panels(3, width=3.8)
    part = np.geomspace(0.01, 0.97, 100)
    for i, value in enumerate(decay):
        left.plot(s[i, :-1], amplitude[i, :-1], "o", label=f"b = {value:g}")
        line = 2 * (1 + value) * part
        label = "s rho / (2 (1 + b) - s)" if i == 0 else ""
        pictures.bound(left, line, line * RHO / (2 * (1 + value) - line), label)
        middle.plot(grid, from_rest[i], "o", markersize=3, label=f"b = {value:g}")
    for i, height in enumerate({c for cycles in known for c in cycles.values()}):
        pictures.bound(middle, None, height, "closed forms" if i == 0 else "")
    pictures.log_log(left, "s = eta l", "largest |x|", "2-cycle")
    pictures.log_log(middle, "start, at rest", "largest |x|", "cycles, s = 0.1 (1 + b)")
    middle.set_ylim(0.012, 1.5)
    for label, j, marker in (("m-SAM", 1, "o"), ("SGD", 0, "s")):
        right.errorbar(
            b, means[:, j], 4 * errors[:, j], fmt=marker, capsize=3, label=label
        )
    pictures.bound(right, None, -RHO / 3, "-rho/3")
    right.set_ylim(-0.14, 0.05)
    pictures.linear(right, "momentum b", "stationary mean", "parabolas at -1, -1, 2")
    pictures.legends([left], loc="upper left")
    pictures.legends([right], loc="center left")
    pictures.legends([middle], loc="upper left", ncols=2)
    return claims.Outcome(
        checks=[
            claims.close(
                "stationary mean of m-SAM, b = 0.9",
                means[2, 1],
                -RHO / 3,
                atol=float(4 * errors[2, 1]),
            ),
            claims.at_most(
                "|mean + rho/3| of m-SAM in standard errors, all b",
                np.abs(means[:, 1] + RHO / 3) / errors[:, 1],
                4.0,
            ),
            claims.at_most(
                "|mean| of SGD in standard errors, all b",
                np.abs(means[:, 0]) / errors[:, 0],
                4.0,
            ),
            claims.close(
                "variance of m-SAM, all b", variances[:, 1], variance, rtol=0.05
            ),
            claims.close(
                "amplitude of the cycle, b = 0.9, s = 0.38",
                amplitude[2, 2],
                predicted[2, 2],
                rtol=1e-6,
            ),
            claims.close(
                "amplitude of the cycle, all b and s below the limit",
                amplitude[:, :-1],
                predicted,
                rtol=1e-6,
            ),
            claims.at_most(
                "from rest: relative distance to the nearest cycle, all b",
                np.concatenate(distance),
                1e-6,
            ),
            claims.close(
                "from rest, b = 0: largest |x|", from_rest[0], known[0][1], rtol=1e-6
            ),
            claims.at_least(
                "from rest, b = 0.9: largest |x| over that of the 2-cycle",
                from_rest[2].max() / known[2][1],
                2.0,
            ),
            claims.at_least(
                "distance 5 % above the limit", _capped(amplitude[:, -1]), 1e6
            ),
            claims.close(
                "||grad f||^2 of the sinusoid, all b",
                stall,
                27 * RHO**2 / (100 * np.pi**2),
                rtol=1e-6,
            ),
        ],
        picture=picture,
        data={
            "momentum": decay,
            "s": s,
            "amplitude": amplitude,
            "predicted": predicted,
            "starts_from_rest": grid,
            "amplitude_from_rest": from_rest,
            "cycles_by_half_period": known,
            "stochastic_momentum": b,
            "means_of_sgd_and_sam": means,
            "standard_errors": errors,
            "variances": variances,
            "predicted_variance_of_sam": variance,
        },
    )


def _chain(
    rho: jax.typing.ArrayLike, eta: jax.typing.ArrayLike, b: jax.typing.ArrayLike
) -> optax.GradientTransformation:
    sgd = optax.chain(optax.trace(decay=b), optax.scale_by_learning_rate(eta))  # pyright: ignore[reportArgumentType]
    return optax.chain(sam_jax.sam(rho), sgd)  # pyright: ignore[reportArgumentType]


def _ends(
    s: np.ndarray, decay: np.ndarray, starts: np.ndarray, *, moving: bool
) -> np.ndarray:
    """Largest |x| of the last 120 steps on x^2 / 2; all arrays of one shape.

    ``moving`` starts with the trace that a step has which jumps over the minimum.
    """
    problem = problems.quadratic([1.0], [1.0])

    @jax.jit
    @jax.vmap
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

    arrays = (jnp.ravel(jnp.asarray(values)) for values in (s, decay, starts))
    return np.asarray(largest(*arrays)).reshape(s.shape)


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


def _stall(decay: np.ndarray) -> np.ndarray:
    """||grad f||^2 at the end on the sinusoid."""
    problem = problems.sinusoid(1.0, RHO, 0.05 * RHO)

    @jax.jit
    @jax.vmap
    def last(b: jax.Array) -> jax.Array:
        found = descent.descend(
            _chain(RHO, 0.1, b),
            descent.exact(problem),
            problem.start,
            [4000],
            record=lambda x: (),
        )
        return problem.gradient(found.x)[0] ** 2

    return np.asarray(last(jnp.asarray(decay)))


def _stationary(
    b: np.ndarray, chains: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, their standard errors and variances, [b, SGD and SAM]."""
    problem = finite_sums.parabolas([-1.0, -1.0, 2.0], start=0.0)
    scheme, half = sampling.uniform(problem.size), 1000

    def moments(b: jax.Array, rho: jax.Array, key: jax.Array) -> jax.Array:
        found = descent.descend(
            _chain(rho, 0.02 * (1 - b), b),
            descent.same_sample(problem, scheme),
            problem.start,
            [half, 2 * half],
            record=lambda x: (),
            mean_of=lambda x: jnp.stack([x[0], x[0] ** 2]),
            key=key,
        )
        return 2 * found.means[1] - found.means[0]  # of the second half

    over_chains = jax.vmap(moments, (None, None, 0))
    over_methods = jax.vmap(over_chains, (None, 0, None))
    keys = jax.random.split(jax.random.key(0), chains)
    radii = jnp.array([0.0, RHO])
    found = np.asarray(
        jax.jit(jax.vmap(over_methods, (0, None, None)))(jnp.asarray(b), radii, keys)
    )
    means = found[..., 0].mean(-1)
    errors = found[..., 0].std(-1) / np.sqrt(chains)
    return means, errors, found[..., 1].mean(-1) - means**2


def _capped(distance: np.ndarray) -> np.ndarray:
    """Infinity and NaN, the ends of a divergence, as a large number."""
    return np.nan_to_num(distance, nan=1e300, posinf=1e300)
