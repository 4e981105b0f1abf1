"""``sam-jax predict``: a table of predictions for image files."""

from collections.abc import Sequence

from sam_jax import commands


@commands.ends
def main(arguments: Sequence[str]) -> int:
    """Writes the table."""
    made = commands.parser(
        "predict",
        "Writes a CSV file: path, class, and the probability of each class.",
        "sam-jax predict runs/cifar photos/ --out=predictions.csv",
    )
    commands.add_run(made)
    made.add_argument(
        "files", metavar="FILE|DIR", nargs="+", help="images, and folders of images"
    )
    made.add_argument("--out", required=True, help="the CSV file, a new one")
    given = made.parse_args(arguments)
    commands.start_jax(given.run)

    from sam_jax.train import loaded, predictions

    run = loaded.load_run(given.run, given.step, own_code=given.own_code)
    found = predictions.predict_to_csv(run, given.files, given.out)
    print(f"{given.out}: {len(found)} images, by {given.run}, step {run.step}")
    return 0
