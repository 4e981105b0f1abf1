"""Random reshuffling and the two floors: noise and bias."""

import jax
import jax.numpy as jnp
import numpy as np

import sam_jax
from experiments.theory import claims, pictures, runs
from sam_jax.theory import descent, finite_sums, sampling

CLAIM = claims.Claim(
    title="Reshuffling lowers the floor of SGD and does not change the bias of SAM",
    source="ours",
    statement=r"""On parabolas $(x - b_i)^2 / 2$, between the two centers next to the
mean, a step of m-SAM is a step of SGD on parabolas at
$c_i = b_i - \rho \operatorname{sign}(x - b_i)$. So both methods have closed forms. With
a new order in each epoch of $n$ steps, $x$ at the end of an epoch has the mean of the
$c_i$, which is $-\rho/3$ as with replacement, and the variance

$$
\frac{\sum_j (a_j - \bar a)^2 \sum_i (c_i - \bar c)^2}{(n - 1)\,(1 - (1 - \eta)^{2n})},
\qquad a_j = \eta (1 - \eta)^{n - j},
$$

where $\bar a$ and $\bar c$ are the means. The variance is of order $\eta^3$, and of
order $\eta$ with replacement. The gap of SGD falls with the variance; that of m-SAM
stops at $\rho^2/18$.""",
    recipe="""n = 12: eight parabolas at -1 and four at 2; rho = 0.3; single components,
with replacement or reshuffled; eta = 0.02, 0.01, 0.005. 200 chains from the predicted
mean, each with 40 ends of epochs between steps 800 and 1,600.""",
    criterion="""The mean squared distance to the predicted mean agrees with the
variance within four standard errors (of the chains), and the means of m-SAM with the
prediction likewise. At the smallest eta the mean gap of reshuffled m-SAM is rho^2/18 to
3 %.""",
)

RHO = 0.3
CENTERS = np.array([-1.0] * 8 + [2.0] * 4)
ETAS = (0.02, 0.01, 0.005)
METHODS = {"SGD": 0.0, "m-SAM": RHO}
BIAS = -np.array(list(METHODS.values())) / 3


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes fewer chains."""
    problem = finite_sums.parabolas(CENTERS.tolist())
    uniform, chains = sampling.uniform(problem.size), 60 if quick else 200
    orders = {
        "with replacement": descent.same_sample(problem, uniform),
        "reshuffled": descent.reshuffled(problem),
    }
    variance = {"with replacement": _with_replacement(), "reshuffled": _reshuffled()}
    means, squares, gaps, within = {}, {}, {}, claims.Checks()
    for name, oracle in orders.items():
        # [eta, method, chain, moment], about the predicted mean
        moments = _moments(problem, oracle, chains)
        first, squares[name] = moments[..., 0].mean(-1), moments[..., 1].mean(-1)
        errors = moments.std(2) / np.sqrt(chains)
        means[name] = BIAS + first
        # E (x - 0)^2 / 2, from the moments about the predicted mean.
        gaps[name] = (squares[name] + 2 * BIAS * first + BIAS**2) / 2
        of_mean = np.abs(first) / errors[..., 0]
        of_square = np.abs(squares[name] - variance[name]) / errors[..., 1]
        for what, off in (("mean", of_mean), ("variance", of_square)):
            text = f"|{what} - prediction| in standard errors, {name}"
            within.at_most(text, off, 4.0)
    noise, spread = (
        of["reshuffled"][-1, 0] / of["with replacement"][-1, 0]
        for of in (gaps, variance)
    )
    last, floor = gaps["reshuffled"][-1, 1], RHO**2 / 18
    shown = "gap of reshuffled SGD / with replacement, eta = 0.005"
    data = {"eta": ETAS, "methods": list(METHODS), "gap": gaps, "mean": means}
    data |= {"variance": squares, "predicted_variance": variance}
    of_method = [{name: gap[:, j] for name, gap in gaps.items()} for j in range(2)]
    closed = [
        {name: (of[:, j] + BIAS[j] ** 2) / 2 for name, of in variance.items()}
        for j in range(2)
    ]
    checks = claims.Checks()
    checks.close("gap of reshuffled m-SAM, eta = 0.005", last, floor, rtol=0.03)
    checks.at_most(shown, noise, 1.5 * spread)
    picture = pictures.row(
        {"step size eta": ETAS, "E f(x) - f*": of_method, "closed form": closed},
        dict(enumerate(METHODS)),
        "step size eta",
        "E f(x) - f*",
        "closed form",
        width=4.2,
    )
    return claims.Outcome(checks + within, picture, data)


def _moments(
    problem: finite_sums.FiniteSum, oracle: descent.Oracle, chains: int
) -> np.ndarray:
    """First two moments about the predicted mean, [eta, method, chain, moment]."""
    epochs = np.unique(np.linspace(800, 1600, 40).astype(int) // problem.size)

    def of_chain(key: jax.Array) -> jax.Array:
        def moments(eta: jax.Array, rho: jax.Array) -> jax.Array:
            x = runs.descend(
                problem,
                sam_jax.sam(rho),
                eta,
                problem.size * epochs,
                lambda x: x[0] + rho / 3,
                start=jnp.reshape(-rho / 3, 1),
                oracle=oracle,
                key=key,
            ).recorded
            return jnp.stack([x.mean(), (x**2).mean()])

        # The orders do not depend on eta and rho: drawn once for all of them.
        over_etas = jax.vmap(moments, (0, None))
        radii = jnp.array(list(METHODS.values()))
        return jax.vmap(over_etas, (None, 0), out_axes=1)(jnp.array(ETAS), radii)

    found = runs.each(of_chain, jax.random.split(jax.random.key(0), chains))
    return np.moveaxis(found, 0, 2)


def _centers() -> np.ndarray:
    """The centers c_i, [method, n]."""
    rho = np.array(list(METHODS.values()))
    return CENTERS + rho[:, None] * np.sign(CENTERS)


def _with_replacement() -> np.ndarray:
    eta = np.array(ETAS)[:, None]
    return eta**2 * _centers().var(1) / (1 - (1 - eta) ** 2)


def _reshuffled() -> np.ndarray:
    n, eta = len(CENTERS), np.array(ETAS)[:, None]
    weights = eta * (1 - eta) ** np.arange(n)[::-1]
    # The variance of a weighted sum over a random order of the c_i.
    spread = n * weights.var(1) * n / (n - 1)
    return spread[:, None] * _centers().var(1) / (1 - (1 - eta) ** (2 * n))
