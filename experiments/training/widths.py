"""Does the best radius stay where it is when a network gets wider?

    python -m experiments.training.widths
    python -m experiments.training.widths --widths=16,32 --seeds=2 --epochs=10

The MLP of the trainer on the digits with 40 % wrong training labels, at widths from 8
to 64, by SGD with momentum. SAM's perturbation as it is (``sam``), layer by layer
(``layers``: `sam_jax.normalize_by_fans`), and with the learning rates scaled likewise
(``both``: `sam_jax.scale_by_fans`) and a head that starts smaller in proportion. All
three are the same at the width 16. Of each width all radii and seeds train in one
compiled program. The result is the test error after the last epoch, on true labels.
"""

import argparse
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments import commands
from experiments.benchmarks import measure
from sam_jax import data, models
from sam_jax.train import figures, files

RESULTS = pathlib.Path(__file__).parent / "results" / "widths"
BASE = 16
FORMS = ("sam", "layers", "both")
RADII = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
BATCH, LEARNING_RATE = 50, 0.1


def network(width: int) -> models.Model:
    """The MLP of two hidden layers."""
    return models.build("mlp", num_classes=10, width=width)


def optimizer(form: str, rho: Any) -> optax.GradientTransformationExtraArgs:
    """SAM and SGD, of one of the forms."""
    image = jnp.zeros((1, 8, 8, 1))
    base, _ = jax.eval_shape(network(BASE).init, jax.random.key(0), image)
    block = sam_jax.normalize() if form == "sam" else sam_jax.normalize_by_fans(base)
    ascent = optax.chain(block, optax.scale(rho))  # traced: any number
    rates = sam_jax.scale_by_fans(base) if form == "both" else optax.identity()
    return optax.chain(
        sam_jax.without_diagnostics(sam_jax.sharpness_aware(ascent)),
        optax.sgd(LEARNING_RATE, momentum=0.9),
        rates,
    )


def errors(form: str, width: int, seeds: int, epochs: int) -> np.ndarray:
    """Test errors in per cent, [radii, seeds]."""
    model = network(width)
    dataset = data.load("digits", validation=297, label_noise=0.4)
    x, y, test_x, test_y = (
        jnp.asarray(array)
        for source in (dataset.train, dataset.test)
        if isinstance(source, data.ArraySource)
        for array in (
            (source.split.images / 255.0 - dataset.mean) / dataset.std,
            source.split.labels,
        )
    )
    steps = epochs * (len(x) // BATCH)

    def trained(rho: jax.Array, seed: jax.Array) -> jax.Array:
        start, order = jax.random.split(jax.random.key(seed))
        params, model_state = model.init(start, x[:1])
        if form == "both":
            head = max(params)  # Dense_2, the last one
            smaller = jax.tree.map(lambda w: w * (BASE / width) ** 0.5, params[head])
            params = {**params, head: smaller}
        tx = optimizer(form, rho)
        orders = jax.vmap(lambda key: jax.random.permutation(key, len(x)))(
            jax.random.split(order, epochs)
        )

        def step(carry: Any, rows: jax.Array) -> tuple[Any, None]:
            params, state = carry

            def loss(params: Any) -> jax.Array:
                logits, _ = model.apply(
                    params, model_state, x[rows], train=True, key=None
                )
                return optax.softmax_cross_entropy_with_integer_labels(
                    logits, y[rows]
                ).mean()

            updates, state = tx.update(
                jax.grad(loss)(params), state, params, grad_fn=jax.grad(loss)
            )
            return (optax.apply_updates(params, updates), state), None

        batches = orders[:, : steps // epochs * BATCH].reshape(steps, BATCH)
        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), batches)
        logits, _ = model.apply(params, model_state, test_x, train=False, key=None)
        return 100 * jnp.mean(logits.argmax(-1) != test_y)

    each = jax.vmap(jax.vmap(trained, (None, 0)), (0, None))
    return np.asarray(jax.jit(each)(jnp.asarray(RADII), jnp.arange(seeds)))


def best(found: np.ndarray) -> tuple[float, float]:
    """The radius of the least mean error, and that error."""
    means = found.mean(1)
    return RADII[int(means.argmin())], float(means.min())


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Best radius and its error, a row for each form."""
    rows = [
        [form, *(f"{rho:g}: {least:.1f} %" for rho, least in map(best, found.values()))]
        for form, found in results.items()
    ]
    widths = next(iter(results.values()))
    return measure.markdown(["best radius: error", *map(str, widths)], rows)


TITLES = {
    "sam": "sam: one norm over all layers",
    "layers": "layers: each layer by its widths",
    "both": "both: layers and learning rates by their widths",
}


def draw(results: Mapping[str, Mapping[str, Any]], path: pathlib.Path) -> None:
    """Errors over the radius of every width, and the best radius over the width."""
    figure = figures.empty((10.0, 7.0), "The best radius over the width of a network")
    panels = figure.subplots(2, 2).ravel()
    places = np.arange(len(RADII))
    names = [f"{rho:g}" for rho in RADII]
    widths = sorted(results[FORMS[0]], key=int)
    looks = [*zip(figures.LINES, figures.MARKS, strict=False)]
    for panel, form in zip(panels, FORMS, strict=False):
        for i, width in enumerate(widths):
            found = results[form][width]
            color, (dashes, mark) = figures.COLORS[2 + i % 5], looks[i % len(looks)]
            style: dict = {"color": color, "linestyle": dashes, "marker": mark}
            style |= {"ms": 5, "lw": figures.WIDTH, "elinewidth": 1, "capsize": 2}
            beside = places + 0.06 * (i - 1.5)  # bars do not cover each other
            means, bars = found.mean(1), found.std(1, ddof=1)
            panel.errorbar(beside, means, bars, label=f"width {width}", **style)
        panel.set(ylim=(0, 100), xlabel="radius rho", ylabel="test error (%)")
        panel.set_xticks(places, names)
        panel.set_title(TITLES[form], fontsize=10)
        panel.legend(frameon=False, fontsize=9, loc="upper left")
    last = panels[-1]
    for slot, form, (dashes, mark) in zip(
        figures.slots(FORMS), FORMS, looks, strict=False
    ):
        chosen = [RADII.index(best(results[form][width])[0]) for width in widths]
        style = {"color": figures.COLORS[slot], "linestyle": dashes, "marker": mark}
        last.plot(widths, chosen, label=form, ms=11 - 2 * slot, lw=4 - slot, **style)
    last.set(xlabel="width", ylabel="best radius rho")
    last.set_title("radius of the smallest mean error", fontsize=10)
    last.set_yticks(places, names)
    last.legend(frameon=False, fontsize=9)
    for panel in panels:
        panel.grid(alpha=0.3)
    figure.supxlabel("means over the seeds; bars: standard deviations", fontsize=9)
    figures.save(figure, path)


@commands.ends
def main(argv: Sequence[str]) -> int:
    """Runs the command line; the exit code."""
    parser = commands.parser(__doc__, prog="python -m experiments.training.widths")
    numbers = commands.several(commands.count)
    parser.add_argument("--widths", type=numbers, default=[8, 16, 32, 64])
    parser.add_argument("--seeds", type=commands.count, default=3)
    parser.add_argument("--epochs", type=commands.count, default=30)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="of results")
    args: argparse.Namespace = parser.parse_args(argv)
    files.make_folder(args.out, "--out")  # before the work
    results: dict[str, dict[str, np.ndarray]] = {form: {} for form in FORMS}
    for width in args.widths:
        for form, found in results.items():
            found[str(width)] = errors(form, width, args.seeds, args.epochs)
            print(form, width, *found[str(width)].mean(1).round(1), flush=True)
    lists = jax.tree.map(np.ndarray.tolist, results)
    record = {"radii": RADII, "errors": lists, "seeds": args.seeds}
    record |= {"epochs": args.epochs, "versions": measure.versions()}
    files.replace(args.out / "widths.json", files.to_lines(record) + "\n")
    text = table(results)
    files.replace(args.out / "table.md", text + "\n")
    draw(results, args.out / "widths.png")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
