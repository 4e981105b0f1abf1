"""Pictures of the loss around the weights of a run: small arrays, for JSON."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from sam_jax import errors, sharpness
from sam_jax.train import checkpoint
from sam_jax.train.sharpness import Measure, Record
from sam_jax.train.subject import Subject

_LINE, _PLANE, _DENSITY = 21, 15, 128  # points


def _density(subject: Subject) -> Record:
    found = sharpness.density(
        *(subject.loss, subject.params),
        batches=subject.batches,
        probes=2,
        steps=30,
        points=_DENSITY,
        seed=subject.asked.seed,
    )
    grid, values = found.grid.tolist(), found.values.tolist()
    return {"grid": grid, "values": values, "products": found.products}


def _slice(subject: Subject, directions: int, points: int) -> Record:
    """The loss on a line or a plane through the weights."""
    asked = subject.asked
    loss, params, batches = subject.loss, subject.params, subject.batches
    cost = 0
    if asked.directions == "random":
        axes = [
            sharpness.random_direction(params, (asked.seed + i) % 2**32)
            for i in range(directions)
        ]
    else:
        found = sharpness.top_eigenvalues(
            loss, params, directions, batches=batches, seed=asked.seed
        )
        axes = [
            jax.tree.map(lambda v, i=i: v[i], found.vectors) for i in range(directions)
        ]
        cost = found.products
    along = [np.linspace(-1, 1, points)] * directions
    found = sharpness.landscape(loss, params, axes, *along, batches=batches)
    return _plain(found) | {"directions": asked.directions, "products": cost}


def _plain(found: Any) -> Record:
    return {
        "coordinates": [axis.tolist() for axis in found.coordinates],
        "losses": found.losses.tolist(),
    }


def _path(subject: Subject) -> Record:
    """Statistics of neither end belong to the points between: those of each batch."""
    end = subject.end
    if end is None:
        raise errors.UserError("a path needs two runs: give the folder of another one")
    asked = dataclasses.replace(subject.asked, batch_norm="training")
    # Frozen weights may differ as well: the way is that of all weights.
    ends = [
        dataclasses.replace(run, config=dataclasses.replace(run.config, freeze=None))
        for run in (subject.run, end)
    ]
    start = dataclasses.replace(subject, asked=asked, run=ends[0])
    goal = dataclasses.replace(start, run=ends[1]).params
    found = sharpness.path(
        start.loss, start.params, goal, points=_LINE, batches=start.batches
    )
    there = {"end": str(end.folder), "batch_norm": "training"}
    return _plain(found) | there | {"examples": start.examples}


def _trajectory(subject: Subject) -> Record:
    """The training in the plane of its kept checkpoints, and the loss there."""
    run = subject.run
    steps = [step for step in checkpoint.kept(run.folder) if step < run.step]
    if len(steps) < 2:
        raise errors.UserError(
            f"trajectory: {run.folder} keeps {len(steps)} checkpoints before step "
            f"{run.step}, and a plane needs two: train with "
            "--config.checkpoint.keep_every"
        )
    points = [subject.at(step).params for step in steps]
    found = sharpness.trajectory([*points, subject.params])
    low, high = found.coordinates.min(0), found.coordinates.max(0)
    room = 0.2 * (high - low)
    along = np.linspace(low - room, high + room, _PLANE).T
    plane = sharpness.landscape(
        *(subject.loss, subject.params, found.directions, *along),
        batches=subject.batches,
    )
    return _plain(plane) | {
        "steps": [*steps, run.step],
        "points": found.coordinates.tolist(),
        "explained": found.explained.tolist(),
    }


PICTURES: Mapping[str, Measure] = {
    "density": Measure("density of the eigenvalues of the Hessian", _density),
    "line": Measure(
        "loss along a line through the weights", lambda s: _slice(s, 1, _LINE)
    ),
    "plane": Measure(
        "loss on a plane through the weights", lambda s: _slice(s, 2, _PLANE)
    ),
    "path": Measure("loss on the way to the weights of another run", _path),
    "trajectory": Measure(
        "loss on the plane in which the checkpoints spread most", _trajectory
    ),
}
