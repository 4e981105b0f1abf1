"""How many JPEG crops a second a stream delivers to the step.

    python -m experiments.benchmarks.loader --rounds=5 \
        --out=experiments/benchmarks/results/loader.json

Random resized crops of 224 pixels from files of 341x256, put on the device in batches,
by threads and by 1, 2 and 4 processes, in turns with one thread that only decodes and
scales them; and what a training step takes of images that are on the device already.
Per second of processor time, a busy machine changes little.
"""

import dataclasses
import io
import pathlib
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np
import psutil
from PIL import Image

from experiments import commands
from experiments.benchmarks import measure
from experiments.benchmarks.measure import Flag
from sam_jax import data
from sam_jax.data import cropping
from sam_jax.train import build, settings, sharding

SIDES, SIZE, BATCH = (341, 256), 224, 64
SMALLEST = 0.08  # area of a crop
WORKERS = (0, 1, 2, 4)


@measure.benchmark(
    rounds=Flag(commands.count, 5, "times for each number of workers"),
    images=Flag(commands.count, 1024, "files, and examples in each time"),
)
def main(args: Any) -> tuple[measure.Results, measure.Tables]:
    """Delivers batches by threads and processes, and trains without a loader."""
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write(pathlib.Path(folder), args.images)
        dataset = data.load_streamed(
            "folder", path=folder, image_size=SIZE, validation=0, resized_crop=SMALLEST
        )
        chosen = {
            "model": {"name": "resnet18_imagenet", "width": 8},
            "batch_size": BATCH,
            "mesh": {"data": 1},
        }
        run = build.build(settings.read(chosen), dataset=dataset)
        for _ in range(args.rounds):
            note(found, "Pillow alone", alone(pathlib.Path(folder), args.images))
            for workers in WORKERS:
                name = f"{workers} processes" if workers else "threads"
                note(found, name, deliver(run, workers, args.images // BATCH))
        note(found, "step", train(run))
    return found, {"": table(found)}


def write(folder: pathlib.Path, count: int) -> None:
    """Images of two classes, a quarter more than are trained on, like photographs."""
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir()
    for number in range(-(-count * 5 // 4)):
        coarse = generator.integers(0, 256, (24, 32, 3), np.uint8)
        image = np.asarray(Image.fromarray(coarse).resize(SIDES), np.int16)
        noisy = image + generator.integers(-6, 7, image.shape, np.int16)
        pixels = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        pixels.save(folder / "ab"[number % 2] / f"{number}.jpg", quality=90)


def deliver(run: build.Run, workers: int, batches: int) -> dict[str, float]:
    """Examples a second, and a second of the processor, once the loader is warm."""
    train: Any = run.dataset.train
    source = dataclasses.replace(train, workers=workers)
    reading = source.batches(batch_size=BATCH, seed=0)
    sharding.put_batch(next(reading), run.mesh)
    before, begin = processor(), time.perf_counter()
    for _ in range(batches):
        jax.block_until_ready(sharding.put_batch(next(reading), run.mesh))
    seconds, work = time.perf_counter() - begin, processor() - before
    reading.close()
    return speed(batches * BATCH, seconds, work)


def alone(folder: pathlib.Path, count: int) -> dict[str, float]:
    """Pillow in one thread: crops a second from files that are in memory."""
    paths = [*folder.rglob("*.jpg")][:count]
    generator = np.random.default_rng(0)
    draws = generator.random((count, cropping.TRIES, 4))
    boxes = [cropping.boxes(each, *SIDES[::-1], smallest=SMALLEST) for each in draws]
    contents = [path.read_bytes() for path in paths]
    before, begin = processor(), time.perf_counter()
    for content, (top, left, tall, wide) in zip(contents, boxes, strict=True):
        with Image.open(io.BytesIO(content)) as image:
            edges = (left, top, left + wide, top + tall)
            image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=edges)
    return speed(count, time.perf_counter() - begin, processor() - before)


def speed(count: int, seconds: float, work: float) -> dict[str, float]:
    """Of so many examples; the system counts work in hundredths of a second."""
    work = max(work, 0.01)
    return {"per second": count / seconds, "per processor second": count / work}


def processor() -> float:
    """Seconds that this process and those it has started have computed."""
    own = psutil.Process()
    times = [each.cpu_times() for each in (own, *own.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def train(run: build.Run) -> dict[str, float]:
    """Examples a second of a step of SGD whose batch is there."""
    reading = run.dataset.train.batches(batch_size=BATCH, seed=0)
    state, batch = run.init(run.seed), next(reading)
    placed = sharding.put_batch(batch, run.mesh)
    state, _ = jax.block_until_ready(run.train_step(state, placed))
    before, begin = processor(), time.perf_counter()
    for _ in range(3):
        state, _ = jax.block_until_ready(run.train_step(state, placed))
    return speed(3 * BATCH, time.perf_counter() - begin, processor() - before)


def note(found: dict[str, dict[str, list[float]]], name: str, times: Any) -> None:
    """Adds a time of each kind to those of a name."""
    for kind, value in times.items():
        found.setdefault(name, {}).setdefault(kind, []).append(value)


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Medians, as a Markdown table."""
    kinds = ("per second", "per processor second")
    rows = [
        [name, *(f"{measure.median(of[kind]):,.0f}" for kind in kinds)]
        for name, of in found.items()
    ]
    return measure.markdown(["examples", *kinds], rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
