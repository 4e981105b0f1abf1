"""ResNet-18 on CIFAR-10 in the memory of the device: time, memory and peers of a step.

Parts: ``peak`` (what matrix products and copies reach), ``batch<n>`` (this trainer,
``optax.contrib.sam`` and PyTorch in turns), ``flag-<name>`` (SGD and SAM under a flag
of XLA, which the process was started with).
"""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks import measure, programs, step_cost
from experiments.benchmarks.measure import need
from experiments.gpu import images
from experiments.gpu.contest import Contender, Contest
from experiments.gpu.tasks import BFLOAT16, TINY, Context, Row, Task
from sam_jax import data
from sam_jax.train import build

METHODS = (programs.SGD, "sam", "asam", "looksam")
STEPS = 50  # in a time; a multiple of LookSAM's k
ROUNDS = 5


def tasks(context: Context) -> Iterator[Task]:
    """Those of the part."""
    if context.part == "peak":
        yield Task(
            "matmul", 10, functools.partial(matmul, 256 if context.tiny else 8192)
        )
        yield Task(
            "copy", 10, functools.partial(copy, 2**20 if context.tiny else 2**28)
        )
        return
    flag = context.part.startswith("flag-")
    batch = 128 if flag else int(context.part.removeprefix("batch"))
    dataset = images.load(context.data, tiny=context.tiny, needed=False)
    made = functools.partial(parts, context, dataset, batch)
    of_method = functools.partial(of_trainer, made)
    methods = METHODS[:2] if flag else METHODS
    stages: list[dict[str, Callable[[], Contender]]] = [
        {method: functools.partial(of_method, method) for method in methods}
    ]
    if not flag:
        of_peer = functools.partial(of_torch, context, dataset, batch)
        stages += [
            {
                "torch sgd": functools.partial(of_peer, programs.SGD, "default"),
                "torch sam": functools.partial(of_peer, "sam", "default"),
                "optax.contrib.sam": functools.partial(of_optax, made),
            },
            {
                "torch sam, graphs": functools.partial(
                    of_peer, "sam", "reduce-overhead"
                ),
                **{
                    f"{method}, batches from the host": functools.partial(
                        of_method, method, several=1
                    )
                    for method in METHODS[:2]
                },
            },
        ]
    yield from Contest(context, stages, 2 if context.tiny else ROUNDS).tasks()
    if not flag:
        for method in METHODS:
            yield Task(
                f"memory/{method}", 25, functools.partial(of_memory, made, method)
            )


# ── Peaks ────────────────────────────────────────────────────────────────────────────


def matmul(side: int) -> Row:
    """What a product of square matrices in bfloat16 reaches, of random numbers."""
    a, b = jax.random.normal(jax.random.key(0), (2, side, side), jnp.bfloat16)
    seconds = _timed(jax.jit(jnp.matmul), a, b)
    return {"side": side, "flops_per_second": 2 * side**3 / seconds}


def copy(elements: int) -> Row:
    """What reading and writing an array reaches."""
    x = jax.random.normal(jax.random.key(0), [elements])
    seconds = _timed(jax.jit(lambda x: x + 1), x)
    return {"bytes": 8 * elements, "bytes_per_second": 8 * elements / seconds}


def _timed(call: Callable[..., jax.Array], *arguments: jax.Array) -> float:
    """Median seconds of ten calls, after three."""
    times = []
    for _ in range(13):
        start = time.perf_counter()
        call(*arguments).block_until_ready()
        times.append(time.perf_counter() - start)
    return measure.median(times[3:])


# ── Contenders ───────────────────────────────────────────────────────────────────────


def parts(
    context: Context,
    dataset: data.Dataset,
    batch: int,
    method: str,
    several: int = STEPS,
    **own: Any,
) -> build.Run:
    """A run of a method; tiny, on a small network and batch."""
    chosen = programs.settings(
        method,
        batch_size=8 if context.tiny else batch,
        steps_per_dispatch=min(several, 2) if context.tiny else several,
        data=programs.AUGMENTED,
        model=TINY if context.tiny else BFLOAT16,
    )
    return programs.run(chosen, dataset, **own)


def of_trainer(made: Callable[..., build.Run], method: str, **values: Any) -> Contender:
    """This trainer, fed as it feeds itself."""
    return _fed(made(method, **values))


def _fed(run: build.Run) -> Contender:
    steps = STEPS if run.config.batch_size > 8 else 2
    flops = programs.flops(programs.lowered(run))
    row = {"flops": flops, "images": run.dataset.name}
    return Contender(programs.Feed(run, steps), steps, run.config.batch_size, row)


def of_memory(made: Callable[..., build.Run], method: str) -> Row:
    """Bytes of a step on one batch."""
    return programs.Program(made(method, several=1), 1).row


def of_optax(made: Callable[..., build.Run]) -> Contender:
    """SAM of ``optax.contrib`` in the mode that hides the perturbation."""
    run = made(programs.SGD, optimizer=step_cost.around(step_cost.optax_sam()))
    return _fed(run)


def of_torch(
    context: Context, dataset: data.Dataset, batch: int, method: str, mode: str
) -> Contender:
    """PyTorch: compiled, channels last, bfloat16, the images on the device as well.

    The mode is that of ``torch.compile``; ``reduce-overhead`` records CUDA graphs.
    """
    need("torch")
    import torch

    from experiments.benchmarks import torch_peer

    width, steps = (4, 2) if context.tiny else (64, STEPS)
    batch = 8 if context.tiny else batch
    compiler = {"mode": mode} if torch.cuda.is_available() else {"backend": "eager"}
    peer = torch_peer.Trainer(dataset, batch, width, method, steps, compiler=compiler)
    return Contender(peer, steps, batch, {"mode": mode})
