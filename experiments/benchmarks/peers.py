"""SAM's step beside what one would use instead: Optax, a step by hand, PyTorch.

    python -m experiments.benchmarks.peers --widths=16,64 --rounds=7 --steps=1 \
        --out=experiments/benchmarks/results/peers.json

ResNet-18 on images of 32x32 with crops and flips, float32 (on a GPU bfloat16), the
images in memory: random ones, or CIFAR-10 with ``--data=FOLDER`` (of TFDS). Each way to
train is a process of its own, and the processes take turns, so that no thread of one
waits for work while another is timed. A time is of steps with their batches. Memory is
the peak of the process, on the host; the first step includes the start of Python,
imports and compilation without a cache. Beside the record a picture is drawn.
"""

import functools
import multiprocessing
import os
import pathlib
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from experiments import commands
from experiments.benchmarks import measure
from experiments.benchmarks.measure import Flag
from sam_jax import errors
from sam_jax.train import figures

Way = Callable[[Any, int], Callable[[], object]]
Rows = dict[str, dict[str, Any]]
SGD, SAM = "sgd", "sam"
IMAGES = 50_000  # of an epoch of CIFAR-10
FRAMEWORKS = {"JAX": figures.COLORS[2], "PyTorch": figures.COLORS[1]}


# ── Ways to train: (flags, width) -> what does the next steps ────────────────────────


def trainer(method: str, args: Any, width: int) -> Callable[[], object]:
    """This trainer, fed as it feeds itself."""
    from experiments.benchmarks import programs, step_cost

    optimizers = {
        "by hand": lambda: step_cost.around(step_cost.hand_written()),
        "optax, opaque": lambda: step_cost.around(step_cost.optax_sam()),
        "optax, two updates": lambda: step_cost.around(step_cost.optax_sam_in_two()),
    }
    own = {"optimizer": optimizers[method]()} if method in optimizers else {}
    chosen = programs.settings(
        programs.SGD if own else method,
        f"resnet18:{width}",
        batch_size=args.batch,
        data=programs.AUGMENTED,
        model={"dtype": "bfloat16" if on_gpu() else "float32"},
        # PyTorch's images are on the card: ours are where several steps are one call.
        steps_per_dispatch=args.steps if on_gpu() else 1,
    )
    run = programs.run(chosen, images(args), **own)
    return programs.Feed(run, args.steps)


def torch(
    method: str, compiler: Mapping[str, str] | None, args: Any, width: int
) -> Callable[[], object]:
    """PyTorch, channels last, as it is or compiled."""
    import torch

    from experiments.benchmarks import torch_peer

    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return torch_peer.Trainer(
        images(args), args.batch, width, method, args.steps, dtype, compiler
    )


WAYS: dict[str, Way] = {
    SGD: functools.partial(trainer, "sgd"),
    SAM: functools.partial(trainer, "sam"),
    **{
        f"sam {how}": functools.partial(trainer, how)
        for how in ("by hand", "optax, opaque", "optax, two updates")
    },
    "torch sgd": functools.partial(torch, "sgd", None),
    "torch sam": functools.partial(torch, "sam", None),
    "torch sam pytorch_optimizer": functools.partial(torch, "pytorch_optimizer", None),
    "torch.compile sgd": functools.partial(torch, "sgd", {}),
    "torch.compile sam": functools.partial(torch, "sam", {}),
}


def images(args: Any) -> Any:
    """Those of CIFAR-10, or as many random ones as a few batches have."""
    from experiments.benchmarks import programs
    from sam_jax import data

    if args.data is None:
        return programs.noise(8 * args.batch)
    return data.load("cifar10", data_dir=os.fspath(args.data))


def on_gpu() -> bool:
    """Whether JAX computes on one."""
    import jax

    return jax.default_backend() == "gpu"


def own_sgd(name: str) -> str:
    """SGD of the same framework.

    Example:
        >>> own_sgd("torch sam pytorch_optimizer"), own_sgd("sam optax, opaque")
        ('torch sgd', 'sgd')
    """
    return f"{name.partition(' ')[0]} {SGD}" if name.startswith("torch") else SGD


# ── Turns ────────────────────────────────────────────────────────────────────────────


@measure.benchmark(
    widths=Flag(commands.several(commands.count), [16], "channels of the first stage"),
    ways=Flag(commands.several(str), list(WAYS), "name,..."),
    batch=Flag(commands.count, 128, "examples in a step"),
    rounds=Flag(commands.count, 8, "times for each"),
    steps=Flag(commands.count, 4, "steps in a time"),
    data=Flag(pathlib.Path, None, "folder of TFDS with CIFAR-10"),
)
def main(args: Any) -> tuple[measure.Results, measure.Tables]:
    """Times all ways at every width."""
    for name in args.ways:
        if name not in WAYS:
            raise errors.UserError(errors.unknown("way", name, WAYS))
    results = {str(width): compare(args, width) for width in args.widths}
    if args.out is not None:
        picture(results, args.out.with_suffix(".svg"))
    return results, {f"width {w}": table(rows) for w, rows in results.items()}


def compare(args: Any, width: int) -> Rows:
    """Times the ways of ``args.ways`` in turns; a package that is missing is a row.

    Returns:
        Name -> ``all_seconds`` of a step, their median ``seconds``,
        ``first_step_seconds``, ``peak_bytes``, and ``time_ratio`` to SGD of the same
        framework and to our own step of the same kind; or ``missing``, what to install.
    """
    rows: Rows = {}
    with workers() as start:
        calls = {}
        for name in args.ways:
            try:
                if name.startswith("torch"):
                    measure.need("torch")
                if "pytorch_optimizer" in name:
                    measure.need("pytorch_optimizer")
            except measure.Missing as missing:
                rows[name] = {"missing": str(missing)}
                continue
            begin = time.perf_counter()
            calls[name] = start(name, args, width)
            calls[name]()
            rows[name] = {"first_step_seconds": time.perf_counter() - begin}
        for call in calls.values():
            call()  # warms up
        times = measure.in_turns(calls, args.rounds)
        for name, call in calls.items():
            rows[name]["peak_bytes"] = call("peak")
    for name, seconds in times.items():
        own = [t / args.steps for t in seconds]
        rows[name] |= {"seconds": measure.median(own), "all_seconds": own}
        rows[name]["epoch_seconds"] = IMAGES / args.batch * rows[name]["seconds"]
        rows[name]["time_ratio"] = {
            other: measure.ratio(seconds, times[other])._asdict()
            for other in dict.fromkeys([own_sgd(name), SGD, SAM])
            if other in times
        }
    return rows


@contextmanager
def workers() -> Iterator[Callable[[str, Any, int], Callable[..., Any]]]:
    """Gives what starts a process that trains in one way; all end with the block.

    The call of a started one does the next steps and waits for them.
    """
    from sam_jax.train import environment

    environment.set_up()  # as the trainer's commands do; processes inherit it
    # Of one card the first process would take three quarters.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    context = multiprocessing.get_context("spawn")
    started: list[tuple[Any, Any]] = []

    def start(name: str, args: Any, width: int) -> Callable[..., Any]:
        here, there = context.Pipe()
        process = context.Process(target=work, args=(there, name, args, width))
        process.start()
        there.close()
        started.append((process, here))

        def ask(what: str = "steps") -> Any:
            try:
                here.send(what)
                return here.recv()
            except (EOFError, OSError) as error:
                raise errors.UserError(
                    f"{name!r} ended, see above; --ways leaves it out"
                ) from error

        return ask

    try:
        yield start
    finally:
        for process, pipe in started:
            pipe.close()
            process.join(10)
            process.kill()
            process.join()


def work(pipe: Any, name: str, args: Any, width: int) -> None:
    """The process of one way: does the next steps whenever it is asked."""
    call = WAYS[name](args, width)
    with suppress(EOFError):  # nobody asks any more
        while True:
            if pipe.recv() == "peak":
                scale = 1 if sys.platform == "darwin" else 1024
                pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale)
            else:
                call()
                pipe.send(None)


# ── Table and picture ────────────────────────────────────────────────────────────────


def table(rows: Rows) -> str:
    """A Markdown table; ratios are medians [smallest, largest] of the rounds."""
    lines = []
    for name, row in rows.items():
        if "missing" in row:
            lines.append([name, row["missing"], *["–"] * 5])
            continue
        against = SGD if name.endswith(SGD) else SAM
        ratios = [row["time_ratio"].get(x) for x in (own_sgd(name), against)]
        lines.append(
            [
                name,
                f"{1e3 * row['seconds']:.0f}",
                *(measure.Ratio(**r) if r else "–" for r in ratios),
                f"{row['epoch_seconds']:.0f}",
                f"{row['first_step_seconds']:.1f}",
                f"{row['peak_bytes'] / 2**30:.2f}",
            ]
        )
    columns = ["way", "ms / step", "/ own sgd", "/ ours", "epoch (s)", "first step (s)"]
    return measure.markdown([*columns, "peak (GiB)"], lines)


def picture(results: Mapping[str, Rows], path: pathlib.Path) -> None:
    """Draws the time of a step in every way, width by width."""
    figure = figures.empty((9, 3.6), "ResNet-18 on images of 32x32: time of a step")
    axes = figure.subplots(1, len(results), squeeze=False, sharey=True)[0]
    for axis, (width, rows) in zip(axes, results.items(), strict=True):
        found = {name: row for name, row in rows.items() if "seconds" in row}
        names = list(found)[::-1]
        values = [1e3 * found[name]["seconds"] for name in names]
        kinds = ["PyTorch" if name.startswith("torch") else "JAX" for name in names]
        bars = axis.barh(names, values, color=[FRAMEWORKS[kind] for kind in kinds])
        axis.bar_label(bars, fmt=" %.0f")
        limit = 1.2 * max(values, default=1)
        axis.set(title=f"width {width}", xlabel="ms", xlim=(0, limit))
        axis.spines[["top", "right"]].set_visible(False)
    figures.save(figure, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
