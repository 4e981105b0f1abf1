"""Does the best radius stay where it is when a network gets wider?

    python -m experiments.training.widths --network=resnet
    python -m experiments.training.widths --widths=16,32 --seeds=2 --epochs=10

The MLP, ResNet or ViT of the trainer on the digits with 40 % wrong training labels, at
widths from 8 to 64, by SGD with momentum. SAM's perturbation as it is (``sam``), layer
by layer (``layers``: `sam_jax.normalize_by_fans`), and with the learning rates scaled
likewise (``both``: `sam_jax.scale_by_fans`) and a start in proportion to them. All
three are the same at the width 16. Of each width all radii and seeds train in one
compiled program. The result is the test error after the last epoch, on true labels.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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
BATCH = 50


class Network(NamedTuple):
    """One of the trainer's networks, and how it trains on the digits.

    Attributes:
        together: runs side by side; None for one after the other, as kernels side by
            side would be grouped convolutions, which are slow.
    """

    model: str
    options: Mapping[str, Any]
    learning_rate: float
    epochs: int
    radii: tuple[float, ...]
    together: int | None = None

    def build(self, width: int) -> models.Model:
        """The network in a width."""
        return models.build(self.model, num_classes=10, width=width, **self.options)


NETWORKS = {
    "mlp": Network("mlp", {}, 0.1, 30, (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4), 21),
    "resnet": Network("resnet_small", {}, 0.05, 10, (0, 0.1, 0.2, 0.4, 0.8, 1.6)),
    # Patches of 4, as with those of 2 it learns much slower.
    "vit": Network("vit_ti4", {"depth": 2}, 0.05, 20, (0, 0.02, 0.05, 0.1, 0.2, 0.4)),
}


def optimizer(
    network: Network, form: str, rho: Any
) -> optax.GradientTransformationExtraArgs:
    """SAM and SGD, of one of the forms."""
    image = jnp.zeros((1, 8, 8, 1))
    base, _ = jax.eval_shape(network.build(BASE).init, jax.random.key(0), image)
    block = sam_jax.normalize() if form == "sam" else sam_jax.normalize_by_fans(base)
    ascent = optax.chain(block, optax.scale(rho))  # traced: any number
    rates = sam_jax.scale_by_fans(base) if form == "both" else optax.identity()
    return optax.chain(
        sam_jax.without_diagnostics(sam_jax.sharpness_aware(ascent)),
        optax.sgd(network.learning_rate, momentum=0.9),
        rates,
    )


def in_proportion(params: Any, width: int) -> Any:
    """The start that goes with learning rates that scale with the width.

    The head starts smaller. The stem of a ResNet has fan-out initialization, so it
    starts smaller in a wide network; this undoes it.
    """
    head = max(name for name in params if name.startswith("Dense"))  # the last one

    def scaled(path: Any, w: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name == f"{head}/kernel":
            return w * (BASE / width) ** 0.5
        return w * (width / BASE) ** 0.5 if name == "CifarStem_0/Conv_0/kernel" else w

    return jax.tree_util.tree_map_with_path(scaled, params)


def errors(
    network: Network, form: str, width: int, seeds: int, epochs: int
) -> np.ndarray:
    """Test errors in per cent, [radii, seeds]."""
    model = network.build(width)
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
            params = in_proportion(params, width)
        tx = optimizer(network, form, rho)
        orders = jax.vmap(lambda key: jax.random.permutation(key, len(x)))(
            jax.random.split(order, epochs)
        )

        def step(carry: Any, rows: jax.Array) -> tuple[Any, None]:
            params, model_state, state = carry

            def loss(params: Any) -> Any:
                logits, moved = model.apply(
                    params, model_state, x[rows], train=True, key=None
                )
                return optax.softmax_cross_entropy_with_integer_labels(
                    logits, y[rows]
                ).mean(), moved

            grad_fn = jax.grad(loss, has_aux=True)
            grads, moved = grad_fn(params)
            updates, state = tx.update(
                grads, state, params, grad_fn=lambda params: grad_fn(params)[0]
            )
            return (optax.apply_updates(params, updates), moved, state), None

        batches = orders[:, : steps // epochs * BATCH].reshape(steps, BATCH)
        carry = (params, model_state, tx.init(params))
        (params, model_state, _), _ = jax.lax.scan(step, carry, batches)
        logits, _ = model.apply(params, model_state, test_x, train=False, key=None)
        return 100 * jnp.mean(logits.argmax(-1) != test_y)

    runs = np.repeat(network.radii, seeds), np.tile(range(seeds), len(network.radii))
    runs = jax.tree.map(jnp.asarray, runs)
    found = jax.jit(
        lambda: jax.lax.map(
            lambda run: trained(*run), runs, batch_size=network.together
        )
    )()
    return np.asarray(found).reshape(-1, seeds)


def best(record: Mapping[str, Any], form: str, width: str) -> tuple[float, float]:
    """The radius of the least mean error, and that error."""
    means = np.mean(record["errors"][form][width], 1)
    return record["radii"][int(means.argmin())], float(means.min())


def table(record: Mapping[str, Any]) -> str:
    """Best radius and its error, a row for each form."""
    widths = sorted(record["errors"][FORMS[0]], key=int)
    rows = [
        [form, *("{:g}: {:.1f} %".format(*best(record, form, x)) for x in widths)]
        for form in FORMS
    ]
    return measure.markdown(["best radius: error", *widths], rows)


CHOSEN = "Each error is the least of all radii on the test set, so it is too low.\n"


def tables(folder: pathlib.Path) -> str:
    """Those of all networks that have been measured."""
    parts = []
    for path in (folder / f"{name}.json" for name in NETWORKS):
        if not path.exists():
            continue
        record = json.loads(path.read_text())
        title = f"## {path.stem}: {record['seeds']} seeds, {record['epochs']} epochs"
        parts.append(f"{title}\n\n{table(record)}\n")
    return "\n".join([CHOSEN, *parts])


TITLES = {
    "sam": "sam: one norm over all layers",
    "layers": "layers: each layer by its widths",
    "both": "both: layers and learning rates by their widths",
}


def draw(record: Mapping[str, Any], path: pathlib.Path) -> None:
    """Errors over the radius of every width, and the best radius over the width."""
    figure = figures.empty((10.0, 7.0), f"The best radius over the width: {path.stem}")
    panels = figure.subplots(2, 2).ravel()
    results, radii = record["errors"], list(record["radii"])
    places = np.arange(len(radii))
    names = [f"{rho:g}" for rho in radii]
    widths = sorted(results[FORMS[0]], key=int)
    looks = [*zip(figures.LINES, figures.MARKS, strict=False)]
    for panel, form in zip(panels, FORMS, strict=False):
        for i, width in enumerate(widths):
            found = np.asarray(results[form][width])
            color, (dashes, mark) = figures.COLORS[2 + i % 5], looks[i % len(looks)]
            style: dict = {"color": color, "linestyle": dashes, "marker": mark}
            style |= {"ms": 5, "lw": figures.WIDTH, "elinewidth": 1, "capsize": 2}
            beside = places + 0.06 * (i - 1.5)  # bars do not cover each other
            means, bars = found.mean(1), found.std(1, ddof=min(1, len(found[0]) - 1))
            panel.errorbar(beside, means, bars, label=f"width {width}", **style)
        panel.set(ylim=(0, 100), xlabel="radius rho", ylabel="test error (%)")
        panel.set_xticks(places, names)
        panel.set_title(TITLES[form], fontsize=10)
        panel.legend(frameon=False, fontsize=9, loc="upper left")
    last = panels[-1]
    for slot, form, (dashes, mark) in zip(
        figures.slots(FORMS), FORMS, looks, strict=False
    ):
        chosen = [radii.index(best(record, form, width)[0]) for width in widths]
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
    parser.add_argument("--network", choices=NETWORKS, default="mlp")
    parser.add_argument("--widths", type=numbers, default=[8, 16, 32, 64])
    parser.add_argument("--seeds", type=commands.count, default=3)
    parser.add_argument("--epochs", type=commands.count, help="those of the network")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="of results")
    args: argparse.Namespace = parser.parse_args(argv)
    files.make_folder(args.out, "--out")  # before the work
    network = NETWORKS[args.network]
    epochs = args.epochs or network.epochs
    results: dict[str, dict[str, list]] = {form: {} for form in FORMS}
    for width in map(str, args.widths):
        for form in FORMS:
            if int(width) == BASE and form != "sam":  # the same
                results[form][width] = results["sam"][width]
                continue
            found = errors(network, form, int(width), args.seeds, epochs)
            results[form][width] = found.tolist()
            print(form, width, *found.mean(1).round(1), flush=True)
    record = {"radii": network.radii, "errors": results, "seeds": args.seeds}
    record |= {"epochs": epochs, "versions": measure.versions()}
    files.replace(args.out / f"{args.network}.json", files.to_lines(record) + "\n")
    files.replace(args.out / "table.md", tables(args.out))
    draw(record, args.out / f"{args.network}.png")
    print(table(record))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
