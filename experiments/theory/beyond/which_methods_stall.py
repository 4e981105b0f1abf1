"""Which methods stall where: all methods with an ascent step, on four problems."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib import axes, colors

import sam_jax
from experiments.theory import claims, pictures
from sam_jax.theory import descent, finite_sums, problems
from sam_jax.theory.step_sizes import khanh

CLAIM = claims.Claim(
    title="Which methods stall where",
    source="ours; after Example 3.1 of Khanh et al. 2024, Theorems 3.5 and 4.2 of Si "
    "and Yun 2023",
    statement=r"""With a constant radius, **SAM stalls in all four ways:** in a 2-cycle
of size $t \rho l/(2 - t l)$ on a parabola; where $\|\nabla f\| = 0.1654 \beta \rho$ on
the sinusoid; at a mean of $-\rho/3$ on skewed parabolas, one drawn in each step; and at
$-\rho/3$ where the noise vanishes. Gradient descent, USAM and extragradient do not
stall on the first three problems (a step of USAM is biased on the fourth). SAM with the
ascent along the full gradient (n-SAM) does not stall on the last two. The other methods
are measured without a prediction.""",
    recipe="""rho = 0.3, t = 0.02, 3,000 steps. Parabola with l = 1.5; the sinusoid with
beta = 1; parabolas at -1, -1, 2; the vanishing noise with a = 1; 48 chains for the last
two, the mean of |the mean of x| over the second half. The methods' other coefficients
have their defaults.""",
    criterion="""In units of rho (beta rho for gradients): SAM's four values agree to
1 % (the third to five standard errors). Where no stall is predicted, the value is below
1e-6 without noise, and below t plus five standard errors with noise.""",
)

RHO, RATE = 0.3, 0.02
METHODS: dict[str, Callable[[float], optax.GradientTransformation]] = {
    "SGD": lambda rho: sam_jax.sam(0.0),
    "USAM": sam_jax.usam,
    "extragradient": sam_jax.extragradient,
    "SAM": sam_jax.sam,
    "n-SAM": sam_jax.sam,
    "Unified SAM 1/2": functools.partial(sam_jax.unified_sam, lam=0.5),
    "Unified SAM 1-1/t": functools.partial(sam_jax.unified_sam, lam="1-1/t"),
    "VaSSO": functools.partial(sam_jax.vasso, theta=0.1),
    "F-SAM": sam_jax.friendly_sam,
    "ASAM": sam_jax.asam,
    "Fisher SAM": sam_jax.fisher_sam,
    "GSAM": sam_jax.gsam,
    "GNP": sam_jax.gnp,
    "Stable SAM": sam_jax.stable_sam,
    "LookSAM": sam_jax.looksam,
    "every 5th SAM": lambda rho: sam_jax.every_k(sam_jax.sam(rho), k=5),
}
PROBLEMS = ("parabola", "sinusoid", "skewed parabolas", "vanishing noise")


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` takes fewer chains."""
    chains = 16 if quick else 48
    measured, errors = _measure(chains)  # [method, problem]
    row = {name: i for i, name in enumerate(METHODS)}
    stalls = np.array(
        [khanh.two_cycle(RATE, 1.0, 1.5), np.sqrt(27 / 100) / np.pi, 1 / 3, 1 / 3],
        float,
    )
    exact = [row[name] for name in ("SGD", "USAM", "extragradient")]
    unbiased = [(row["SGD"], 2), (row["SGD"], 3), (row["n-SAM"], 2), (row["n-SAM"], 3)]
    unbiased += [(row["USAM"], 2), (row["extragradient"], 2)]
    rows, columns = (list(indices) for indices in zip(*unbiased, strict=True))
    predicted = np.full(measured.shape, np.nan)
    predicted[row["SAM"]] = stalls
    predicted[np.ix_(exact, [0, 1])] = 0.0
    predicted[rows, columns] = 0.0

    picture, (panel,) = pictures.panels(width=6.6, height=5.4)
    _heat_map(panel, measured, predicted)
    checks = claims.Checks()
    checks.close(
        "SAM: parabola, sinusoid, vanishing noise",
        measured[row["SAM"], [0, 1, 3]],
        stalls[[0, 1, 3]],
        rtol=0.01,
    )
    checks.close(
        "SAM: skewed parabolas",
        measured[row["SAM"], 2],
        stalls[2],
        atol=float(5 * errors[row["SAM"], 2]),
    )
    checks.at_most(
        "SGD, USAM, extragradient: parabola, sinusoid",
        measured[np.ix_(exact, [0, 1])],
        1e-6,
    )
    checks.at_most(
        "SGD, n-SAM, USAM, extragradient with noise, over t + 5 errors",
        measured[rows, columns] / (RATE + 5 * errors[rows, columns]),
        1.0,
    )
    return claims.Outcome(
        checks,
        picture,
        {
            "methods": list(METHODS),
            "problems": PROBLEMS,
            "measured": measured,
            "standard_errors": errors,
            "predicted": predicted,
        },
    )


def _side_by_side() -> optax.GradientTransformationExtraArgs:
    """Each coordinate by its own method: one program for all of them."""
    chains = [
        optax.with_extra_args_support(optax.chain(make(RHO), optax.sgd(RATE)))
        for make in METHODS.values()
    ]

    def init(params: optax.Params) -> optax.OptState:
        x = jnp.asarray(params)
        return tuple(tx.init(x[i : i + 1]) for i, tx in enumerate(chains))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        found = [
            tx.update(updates[i : i + 1], state[i], params[i : i + 1], **extra)
            for i, tx in enumerate(chains)
        ]
        directions, states = zip(*found, strict=True)
        return jnp.concatenate(directions), states

    return optax.GradientTransformationExtraArgs(init, update)


def _measure(chains: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the methods' ends from the goals, [method, problem], and errors."""
    parabola = problems.quadratic([1.5], [1.0])
    sinusoid = problems.sinusoid(1.0, RHO, 0.05 * RHO)
    skewed = finite_sums.parabolas([-1.0, -1.0, 2.0], start=0.0)
    noise = finite_sums.vanishing_noise(1.0, RHO, 0.0)
    starts = np.array([part.start[0] for part in (parabola, sinusoid, skewed, noise)])
    full_ascent = np.array([name == "n-SAM" for name in METHODS])

    def losses(x: jax.Array, rows: jax.Array) -> jax.Array:
        """Of a number, on each problem."""
        return jnp.stack(
            [
                parabola.value(x),
                sinusoid.value(x),
                skewed.component_values(x, rows).mean(),
                noise.component_values(x, rows).mean(),
            ]
        )

    def chain(problem: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        def oracle(
            key: jax.Array, count: jax.Array
        ) -> tuple[problems.Value, problems.Value]:
            row = jax.random.randint(jax.random.fold_in(key, count), (1,), 0, 3)

            def each(x: jax.Array, rows: jax.Array) -> jax.Array:
                return jax.vmap(lambda number: losses(number, rows)[problem])(x)

            def sampled(x: jax.Array) -> jax.Array:
                return each(x, row).sum()

            def given(x: jax.Array) -> jax.Array:
                return jnp.where(
                    full_ascent, each(x, jnp.arange(3)), each(x, row)
                ).sum()

            return given, sampled

        found = descent.descend(
            _side_by_side(),
            oracle,
            jnp.full(len(METHODS), jnp.asarray(starts)[problem]),
            [1500, 3000],
            record=lambda x: (),
            mean_of=lambda x: x,
            key=key,
        )
        return found.x, 2 * found.means[1] - found.means[0]

    over_problems = jax.vmap(chain, (0, None))
    keys = jax.random.split(jax.random.key(0), chains)
    last, means = jax.jit(jax.vmap(over_problems, (None, 0)))(jnp.arange(4), keys)
    slopes = jax.vmap(lambda x: sinusoid.gradient(x[None])[0])(last[0, 1])
    mean, spread = means.mean(0), means.std(0) / np.sqrt(chains)
    goals = jnp.abs(jnp.stack([last[0, 0], slopes, mean[2], mean[3]]))
    return np.asarray(goals.T / RHO), np.asarray(spread.T / RHO)


def _heat_map(panel: axes.Axes, measured: np.ndarray, predicted: np.ndarray) -> None:
    floor = 1e-4
    image = panel.imshow(
        np.maximum(measured, floor),
        norm=colors.LogNorm(floor, 1.0),
        cmap="YlOrBr",
        aspect="auto",
    )
    for (i, j), value in np.ndenumerate(measured):
        text = f"{value:.3f}" if value >= 5e-4 else "0"
        known = np.isfinite(predicted[i, j])
        panel.text(
            j,
            i,
            f"{text} ({predicted[i, j]:.3g})" if known else text,
            ha="center",
            va="center",
            size=8,
            weight="bold" if known else "normal",
            color="white" if value > 0.2 else "black",
        )
    units = ("|x| / rho", "|f'| / (beta rho)", "|mean of x| / rho", "|mean of x| / rho")
    labels = [f"{name}\n{unit}" for name, unit in zip(PROBLEMS, units, strict=True)]
    panel.set_xticks(range(4), labels)
    panel.set_yticks(range(len(METHODS)), list(METHODS))
    panel.grid(False)
    panel.set_title("where it ends (predicted), rho = 0.3, t = 0.02")
    bar = panel.get_figure().colorbar(image, ax=panel)  # pyright: ignore[reportOptionalMemberAccess]
    bar.set_label("distance or gradient, in units of rho")
