"""``sam-jax evaluate``: scores of a run on labelled data."""

import dataclasses
from collections.abc import Sequence

from sam_jax import commands, storage


@commands.ends
def main(arguments: Sequence[str]) -> int:
    """Evaluates a run and prints its scores."""
    made = commands.parser(
        "evaluate",
        "Accuracy, top-5, loss, calibration error and scores of each class.",
        "sam-jax evaluate runs/cifar --split=validation --out=scores.json",
    )
    commands.add_run(made)
    made.add_argument("--data", help="another data set than the run's, by its name")
    commands.add_data_dir(made)
    made.add_argument("--split", default="test", help="test, validation or train")
    made.add_argument("--out", help="also a JSON file, with the confusion matrix")
    given = made.parse_args(arguments)
    commands.start_jax(given.run)

    from sam_jax.train import build, files, loaded, report

    if given.out:
        files.check_new(storage.path(given.out))
    run = loaded.load_run(given.run, given.step, own_code=given.own_code)
    if given.data:
        other = run.config.data.elsewhere(given.data_dir, given.data)
        if given.split != "validation":  # what it holds out may be more than there is
            other = dataclasses.replace(other, validation=0)
        dataset = build.load_data(other)
    else:
        dataset = run.own_data(given.data_dir)
    scores = run.evaluate(dataset, given.split)
    if given.out:
        files.replace(given.out, files.to_json(scores.plain(), indent=2) + "\n")
    rows = [
        {key: f"{x:.4f}" if isinstance(x, float) else x for key, x in row.items()}
        for row in scores.per_class()
    ]
    totals = {
        "run": f"{given.run}, step {run.step}",
        "data": f"{dataset.name}, {given.split}: {scores.examples} images",
        "accuracy": report.percent(scores.accuracy),
        "top-5": report.percent(scores.top_5),
        "loss": report.number(scores.loss),
        "ECE": report.number(scores.ece),
        **{name: report.number(x) for name, x in scores.metrics.items()},
    }
    with report.Report() as out:
        out.summary(rows, totals)
    return 0
