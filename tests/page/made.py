"""Folders of runs as the trainer leaves them, written without training."""

import json

import numpy as np

from sam_jax.train import data_record, examined, files, scores, settings

DIGITS = tuple("0123456789")


def run(
    folder,
    method="sam",
    seed=0,
    *,
    names=DIGITS,
    epochs=6,
    done=None,
    shape=(8, 8, 1),
    dtype="uint8",
    data="digits",
    examined_too=True,
    sharp=False,
    **changes,
):
    """A run of so many epochs of which some are done."""
    folder.mkdir(parents=True)
    done = epochs if done is None else done
    skill = {"none": 0.55, "sam": 0.75, "gsam": 0.7}.get(method, 0.65)
    draw = np.random.default_rng([seed, len(method)])
    chosen = {"name": method} | ({} if method == "none" else {"rho": 0.1})
    tree = {"method": chosen, "seed": seed, "epochs": epochs, "data": {"name": data}}
    config = settings.to_json(settings.read(tree | changes))
    (folder / "config.json").write_text(config)
    record = data_record.DataRecord(
        *(data, shape, names, *2 * ((0.5,) * (shape[-1] * (dtype == "uint8")),)),
        *(10, dtype),
    )
    data_record.write(folder, record)
    found = _scored(draw, skill, names)
    rows, accuracy = [], found.accuracy
    for step in range(2, 10 * done + 1, 2):
        left = np.exp(-step / 20) + 0.02 * draw.random()
        loss = 2.2 * left + 0.3
        values = {"loss": loss, "accuracy": accuracy * (1 - left), "grad_norm": loss}
        values |= {"examples_per_second": 2000 + 99 * draw.random()}
        if method != "none":
            values |= {"perturbed_loss": 1.1 * loss, "sharpness": 0.1 * loss}
            values |= {"gradient_cosine": 0.9 + 0.1 * left, "perturbation_norm": 0.1}
        rows.append({"step": step, "split": "train", "epoch": step / 10} | values)
        if step % 10 == 0:
            test = {"loss": loss + 0.2, "accuracy": accuracy * (1 - left / 2)}
            if step == 10 * epochs:
                test["accuracy"] = accuracy
            last = {"step": step, "epoch": step / 10, "test": test}
            rows += [
                {"step": step, "split": split, "epoch": step / 10, **test}
                for split in ("validation", "test")
            ]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in rows))
    if done < epochs:
        return folder
    results = {
        "last": last,
        "best": last | {"validation": test},
        "seconds": 61.0 + seed,
    }
    (folder / "results.json").write_text(json.dumps(results))
    if examined_too:
        images = draw.integers(0, 256, (400, *shape)).astype(dtype)
        examined.write(folder, found, last["step"], images)
    if sharp:
        (folder / "sharpness.json").write_text(files.to_json(sharpness(draw, skill)))
    return folder


def _scored(draw, skill, names):
    """Of classes beside each other, one is taken for the other."""
    labels = draw.integers(0, len(names), 400)
    logits = 2 * draw.normal(size=(400, len(names)))
    logits[np.arange(400), labels] += 10 * skill
    logits[np.arange(400), (labels + 1) % len(names)] += 3
    return scores.score(logits, labels, names)


def sharpness(draw, skill):
    """What `sam-jax sharpness` writes."""
    how = {"step": 60, "split": "train", "examples": 1000, "batch_norm": "evaluation"}
    line = np.linspace(-1, 1, 21)
    grid = np.linspace(-1, 1, 15)
    bowl = (grid[:, None] ** 2 + 2 * grid**2) / skill + 0.1
    plane = {"coordinates": [grid.tolist()] * 2, "losses": bowl.tolist(), **how}
    way = [[0.9 - t, 0.8 - t] for t in np.linspace(0, 0.8, 6)]
    about = {
        "lambda_max": "largest eigenvalue of the Hessian",
        "m_sharpness": "mean rise of the loss within rho, per group of m examples",
    }
    values = {name: (1 + 0.2 * draw.random()) / skill for name in about}
    return {
        "format": 1,
        "measures": {
            name: {"about": text, "value": values[name], "residual": None, **how}
            for name, text in about.items()
        },
        "pictures": {
            "line": {
                "coordinates": [line.tolist()],
                "losses": (line**2 / skill + 0.1).tolist(),
                **how,
            },
            "density": {
                "grid": np.linspace(-1, 9, 64).tolist(),
                "values": np.exp(-(np.linspace(-1, 9, 64) ** 2)).tolist(),
                **how,
            },
            "plane": plane,
            "trajectory": {**plane, "points": way, "explained": [0.8, 0.1]},
        },
    }
