"""Which jobs there are, in their order, and which one is next.

A job is a part of a family: ``cifar10/sam-0`` is the part ``sam-0`` of the module
`experiments.gpu.cifar10`, and its rows are in ``cifar10.json``. Each runs in a process
of its own, so that a crash ends one of them, with the environment that it needs. This
module imports no JAX: the process that hands out the jobs never holds the GPU.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sam_jax import errors

COMPLETE, BEGUN, FAILED = "complete", "begun", "failed"
LIMIT = 360.0  # seconds of a job


class Job(NamedTuple):
    """A part of a family.

    Attributes:
        name: ``family/part``.
        seconds: what it is expected to take on one fast GPU, at most six minutes.
        least: with less left it is not begun: start, compilation and a row.
        env: variables of its process; flags are added to the user's.
    """

    name: str
    seconds: float
    least: float = 30.0
    env: Mapping[str, str] = {}

    @property
    def family(self) -> str:
        """Name of the module and of the file of results."""
        return self.name.partition("/")[0]

    @property
    def part(self) -> str:
        """What of the family."""
        return self.name.partition("/")[2]


# PyTorch shares the card with JAX, which would take most of it at its start.
SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
# What one run has found for a program, another would take from the cache.
NO_CACHE = {"JAX_ENABLE_COMPILATION_CACHE": "false"}
WHOLE = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"}
EIGHT = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}  # on a CPU only

# Each alone, between two runs without any.
XLA_FLAGS = {
    "none": "",
    "nhwc": "--xla_gpu_force_conv_nhwc=true",
    "no-triton-gemm": "--xla_gpu_enable_triton_gemm=false",
    "no-command-buffer": "--xla_gpu_enable_command_buffer=",
    "latency-hiding": "--xla_gpu_enable_latency_hiding_scheduler=true",
    "exhaustive-tiling": "--xla_gpu_exhaustive_tiling_search=true",
    "none-again": "",
}


def _training(seed: int) -> list[Job]:
    """One seed a job, six minutes each: all of them or nothing."""
    return [
        Job(f"cifar10/{method}-{seed}", 360, least=330) for method in ("sgd", "sam")
    ]


QUEUE: Sequence[Job] = (
    Job("correctness/core", 90, least=45),
    Job("correctness/methods", 150),
    Job("step_time/peak", 30),
    Job("step_time/batch128", 300, least=75, env=SHARED),
    Job("step_time/batch512", 300, least=75, env=SHARED),
    *(
        Job(
            f"step_time/flag-{name}",
            *(60, 55),
            env=SHARED | NO_CACHE | {"XLA_FLAGS": flag},
        )
        for name, flag in XLA_FLAGS.items()
    ),
    *_training(0),
    Job("networks/wrn28_10", 200, least=90, env=WHOLE),
    Job("networks/resnet50_imagenet", 200, least=90, env=WHOLE),
    Job("networks/vit_s16", 150, least=90, env=WHOLE),
    *(Job(f"fast_recipe/seed{seed}", 240, least=115) for seed in range(4)),
    Job("ahead_of_time/batch", 110, least=100, env=EIGHT),
    Job("ahead_of_time/device", 110, least=100, env=EIGHT),
    *_training(1),
    *_training(2),
)


def chosen(names: Sequence[str]) -> list[Job]:
    """The jobs of some families or parts, in the order of the queue.

    Example:
        >>> [job.name for job in chosen(["correctness", "step_time/peak"])]
        ['correctness/core', 'correctness/methods', 'step_time/peak']
    """
    known = {job.name for job in QUEUE} | {job.family for job in QUEUE}
    for name in names:
        if name not in known:
            raise errors.UserError(f"no job is called {name!r}: see --list")
    return [
        job for job in QUEUE if not names or job.name in names or job.family in names
    ]


def following(
    jobs: Iterable[Job],
    status: Mapping[str, str],
    attempted: Iterable[str],
    left: float,
) -> Job | None:
    """The next job: the first that is not complete and for which there is time.

    What failed comes after all else, so that it keeps nothing from being tried.

    Args:
        jobs: in their order.
        status: name -> how it ended last; nothing for those never begun.
        attempted: names of those that were tried in this call.
        left: seconds.

    Returns:
        The job, or None.

    Example:
        >>> jobs = [Job("a/x", 10, least=5), Job("a/y", 10, least=5)]
        >>> following(jobs, {"a/x": FAILED}, [], left=60).name
        'a/y'
    """
    possible = [
        job
        for job in jobs
        if job.name not in set(attempted)
        and status.get(job.name) != COMPLETE
        and job.least <= left
    ]
    possible.sort(key=lambda job: status.get(job.name) == FAILED)  # stable
    return possible[0] if possible else None
