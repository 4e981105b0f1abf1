"""The kept weights of a table, measured again: test errors, and how flat they are.

    python -m experiments.training.weights small_stage2 --config.data.data_dir=DIR

The files ``results/*/weights/RUN.safetensors`` are those of each row's first seed, in
half precision; tables share them as they share runs. Of each the test error is computed
again, beside the recorded one, and the sharpness, on ``--examples`` of the training set
with the labels trained on.
Writes ``sharpness.md`` and ``sharpness.json`` beside the table.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments import commands
from experiments.training import __main__ as program
from experiments.training import engine, written
from experiments.training import table as table_lib
from sam_jax import data, errors
from sam_jax.train import (
    data_record,
    files,
    loaded,
    losses,
    names,
    network,
    pretrained,
    report,
    settings,
    shared,
    sharpness,
)
from sam_jax.train.subject import Asked, Losses, Subject, drawn

MEASURES = ("loss", "lambda_max", "trace", "worst_case", "m_sharpness", "sam_sharpness")

_ABOUT = (
    "Of the first seed of each row, from the weights in half precision: the test error "
    "of the run and of these weights; on examples of the training set, with the labels "
    "trained on and BatchNorm as in evaluation, the loss, the largest eigenvalue and "
    "the trace of the Hessian, and how much the loss rises within a radius of {rho:g}: "
    "at worst, at worst for groups of 128, and after SAM's step. Where losses differ, "
    "sharpness compares little."
)
Row = dict[str, Any]


def load(
    path: pathlib.Path, config: settings.Settings, dataset: data.Dataset
) -> loaded.LoadedRun:
    """A run as `loaded.load_run` gives it, of kept weights.

    Args:
        path: of the file.
        config: settings of the run.
        dataset: that it was trained on.

    Raises:
        UserError: if the file is not of this network.
    """
    record = data_record.DataRecord.of(dataset, config.batch_size)
    model = network.network(config, record.num_classes, None)
    images = jax.ShapeDtypeStruct((1, *record.image_shape), record.input_dtype)
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, model_state = jax.eval_shape(model.init, key, images)
    found = pretrained.read(dataclasses.replace(config, init_from=str(path))).arrays

    def array(place: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        kept = found.get(names.name(place))
        if kept is None or kept.shape != leaf.shape:
            raise errors.UserError(f"{path} is not of this network: move it away")
        return jnp.asarray(kept, leaf.dtype)

    tree = {"params": params, **model_state}
    model_state = jax.tree_util.tree_map_with_path(array, tree)
    params = model_state.pop("params")
    measure = losses.make_losses(config, record.num_classes, None).measure
    return loaded.LoadedRun(
        path, -1, config, record, model, params, model_state, measure
    )


def measured(job: engine.Job, asked: Asked) -> Iterator[Row]:
    """A row for each file of weights, in the order of the table."""
    table, runs, _ = job.state()
    plan = table_lib.planned(table, job.changes)
    kept = {path.stem: path for path in job.out.glob("*/weights/*.safetensors")}
    programs, compiled = shared.Shared(), dict[str, Losses]()
    for part, groups in written.parts(table, runs).items():
        every = [(group.label, run) for group in groups for run in group.runs]
        for label, run in every:
            if (path := kept.get(run.name)) is None:  # tables share runs
                continue
            config = plan[run.name]
            dataset = programs.dataset(config.data)
            found = load(path, config, dataset)
            # Runs of one network are measured by the same programs.
            of_network = compiled.setdefault(repr(config.model), Losses.of_run(found))
            few = drawn(dataset.train, asked.examples, asked.seed)
            chosen = {name: sharpness.MEASURES[name] for name in MEASURES}
            subject = Subject(found, few, of_network, asked)
            made = {
                "part": part,
                "run": label,
                "recorded test error (%)": run.error("last"),
                "test error (%)": 100 * (1 - found.evaluate(dataset).accuracy),
                **{
                    name: record["value"]
                    for name, record in sharpness.measure(subject, chosen)
                },
            }
            print(f"{run.name}: test error {made['test error (%)']:.2f} %", flush=True)
            yield made


def markdown(table: table_lib.Table, rows: Sequence[Row], rho: float) -> str:
    """The page of the rows, a table for each part."""
    command = f"python -m experiments.training.weights {table.name}"
    about = f"Made by `{command}`. {_ABOUT.format(rho=rho)}"
    lines = [f"# Sharpness: {table.title}", "", about]
    for part in dict.fromkeys(row["part"] for row in rows):
        of = [
            {k: x for k, x in row.items() if k != "part"}
            for row in rows
            if row["part"] == part
        ]
        cells = [
            [x if isinstance(x, str) else f"{x:.4g}" for x in row.values()]
            for row in of
        ]
        lines += ["", f"## {part}", "", report.markdown([[*of[0]], *cells])[:-1]]
    return "\n".join(lines) + "\n"


@commands.ends
def main(argv: Sequence[str]) -> int:
    """Measures, prints and writes."""
    parser = commands.parser(__doc__, prog="python -m experiments.training.weights")
    parser.add_argument("table", help="its name")
    parser.add_argument("--out", type=pathlib.Path, default=program.RESULTS)
    parser.add_argument("--examples", type=commands.count, default=1000)
    parser.add_argument("--rho", type=commands.positive, default=0.05)
    args, changes = commands.with_settings(parser, argv)
    job = engine.Job(args.table, changes, args.out, args.out)
    asked = Asked(examples=args.examples, rho=args.rho)
    rows = list(measured(job, asked))
    table = table_lib.load(args.table)
    folder = args.out / table.name
    if not rows:
        raise errors.UserError(f"{folder} has no weights of finished runs")
    about = {"examples": args.examples, "rho": args.rho, "rows": rows}
    files.replace(folder / "sharpness.json", files.to_json(about, indent=1) + "\n")
    files.replace(folder / "sharpness.md", markdown(table, rows, args.rho))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
