"""Random reshuffling in front of the two floors: noise and bias."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments.theory import claims, pictures
from sam_jax.theory import descent, finite_sums, sampling

CLAIM = claims.Claim(
    title="Reshuffling lowers the floor of SGD and leaves the bias of SAM",
    source="ours",
    statement="""On parabolas (x - b_i)^2 / 2 a step of m-SAM is, between the two
centers next to the mean, a step of SGD on parabolas at c_i = b_i - rho sign(x - b_i).
So both have closed forms. With a new order in each epoch of n steps, x at the epochs'
ends has the mean of the c_i, which is **-rho/3 as with replacement**, and the variance
sum_j (a_j - a)^2 sum_i (c_i - c)^2 / ((n - 1) (1 - (1 - eta)^(2n))), with
a_j = eta (1 - eta)^(n - j), a and c the means: of order eta^3, against eta with
replacement. The gap of SGD falls with it, that of m-SAM stops at **rho^2/18**.""",
    recipe="""n = 12: eight parabolas at -1 and four at 2; rho = 0.3; single components,
with replacement or reshuffled; eta = 0.02, 0.01, 0.005. 200 chains from the predicted
mean, 40 epochs' ends each between steps 800 and 1,600.""",
    criterion="""Mean squares of the distance to the predicted mean within four standard
errors (of the chains) of the variance; means of m-SAM likewise; mean gap of reshuffled
m-SAM at the smallest eta rho^2/18 to 3 %.""",
)

RHO = 0.3
CENTERS = np.array([-1.0] * 8 + [2.0] * 4)
ETAS = (0.02, 0.01, 0.005)
METHODS = {"SGD": 0.0, "m-SAM": RHO}


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes fewer chains."""
    problem = finite_sums.parabolas(CENTERS.tolist())
    uniform = sampling.uniform(problem.size)
    orders = {
        "with replacement": descent.same_sample(problem, uniform),
        "reshuffled": descent.reshuffled(problem),
    }
    chains = 60 if quick else 200
    found = {
        name: _moments(problem, oracle, chains) for name, oracle in orders.items()
    }  # order -> [eta, method, chain, moment], about the predicted mean
    bias = -np.array(list(METHODS.values())) / 3
    variance = {
        "with replacement": _with_replacement(ETAS),
        "reshuffled": _reshuffled(ETAS),
    }
    means = {name: bias + values[..., 0].mean(-1) for name, values in found.items()}
    squares = {name: values[..., 1].mean(-1) for name, values in found.items()}
    # E (x - 0)^2 / 2, from the moments about the predicted mean.
    gaps = {
        name: (squares[name] + 2 * bias * (means[name] - bias) + bias**2) / 2
        for name in found
    }

    picture, (left, right) = pictures.panels(2)
    for panel, j, method in ((left, 0, "SGD"), (right, 1, "m-SAM")):
        for marker, name in zip("os", found, strict=True):
            panel.plot(ETAS, gaps[name][:, j], marker, label=name)
            label = "closed form" if name == "reshuffled" else ""
            line = (variance[name][:, j] + bias[j] ** 2) / 2
            pictures.bound(panel, ETAS, line, label)
        pictures.log_log(panel, "step size eta", "E f(x) - f*", method)
    right.axhline(RHO**2 / 18, color="#999999", linewidth=0.8)
    right.text(0.012, RHO**2 / 18 * 0.86, "rho^2/18", fontsize=8)
    right.set_ylim(0.003, 0.05)
    pictures.legends([left, right])

    checks = [
        claims.close(
            "gap of reshuffled m-SAM, eta = 0.005",
            gaps["reshuffled"][-1, 1],
            RHO**2 / 18,
            rtol=0.03,
        ),
        claims.at_most(
            "gap of reshuffled SGD / with replacement, eta = 0.005",
            gaps["reshuffled"][-1, 0] / gaps["with replacement"][-1, 0],
            1.5 * variance["reshuffled"][-1, 0] / variance["with replacement"][-1, 0],
        ),
    ]
    for name, values in found.items():
        errors = values.std(2) / np.sqrt(chains)
        checks += [
            claims.at_most(
                f"|mean - prediction| in standard errors, {name}",
                np.abs(means[name] - bias) / errors[..., 0],
                4.0,
            ),
            claims.at_most(
                f"|variance - prediction| in standard errors, {name}",
                np.abs(squares[name] - variance[name]) / errors[..., 1],
                4.0,
            ),
        ]
    return claims.Outcome(
        checks=checks,
        picture=picture,
        data={
            "eta": ETAS,
            "methods": list(METHODS),
            "gap": gaps,
            "mean": means,
            "variance": squares,
            "predicted_variance": variance,
        },
    )


def _moments(
    problem: finite_sums.FiniteSum, oracle: descent.Oracle, chains: int
) -> np.ndarray:
    """First two moments about the predicted mean, [eta, method, chain, moment]."""
    epochs = np.unique(np.linspace(800, 1600, 40).astype(int) // problem.size)

    def chain(eta: jax.Array, rho: jax.Array, key: jax.Array) -> jax.Array:
        tx = optax.chain(sam_jax.sam(rho), optax.sgd(eta))
        found = descent.descend(
            tx,
            oracle,
            jnp.reshape(-rho / 3, 1),
            problem.size * epochs,
            record=lambda x: x[0] + rho / 3,
            key=key,
        )
        return jnp.stack([found.recorded.mean(), (found.recorded**2).mean()])

    # The orders do not depend on eta and rho: drawn once for all of them.
    over_etas = jax.vmap(chain, (0, None, None))
    over_methods = jax.vmap(over_etas, (None, 0, None), out_axes=1)
    over_chains = jax.vmap(over_methods, (None, None, 0), out_axes=2)
    radii = jnp.array(list(METHODS.values()))
    keys = jax.random.split(jax.random.key(0), chains)
    return np.asarray(jax.jit(over_chains)(jnp.array(ETAS), radii, keys))


def _centers() -> np.ndarray:
    """The centers c_i, [method, n]."""
    rho = np.array(list(METHODS.values()))
    return CENTERS + rho[:, None] * np.sign(CENTERS)


def _with_replacement(etas: tuple[float, ...]) -> np.ndarray:
    eta = np.array(etas)[:, None]
    return eta**2 * _centers().var(1) / (1 - (1 - eta) ** 2)


def _reshuffled(etas: tuple[float, ...]) -> np.ndarray:
    n = len(CENTERS)
    eta = np.array(etas)[:, None]
    weights = eta * (1 - eta) ** np.arange(n)[::-1]
    # The variance of a weighted sum over a random order of the c_i.
    spread = n * weights.var(1) * n / (n - 1)
    return spread[:, None] * _centers().var(1) / (1 - (1 - eta) ** (2 * n))
