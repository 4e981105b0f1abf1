"""The methods on this device: the CPU's numbers, donation, finite without a gradient.

Parts: ``core`` (a small ResNet, the methods most in use), ``methods`` (all of them, a
multilayer perceptron). Each is trained for three steps on the device and on the CPU,
from the same state on the same batches.

- In float32, with matrix products in full precision: the weights differ by at most
  `TOLERANCE` of what the three steps changed.
- In bfloat16: by at most `WITHIN` times what the CPU's own bfloat16 differs from its
  float32, with that tolerance as a floor.
- Every array of the donated state is given up, none is copied.
- Where all examples have the weight zero, so that the gradient is zero, the state stays
  finite.
"""

import functools
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import programs
from experiments.gpu.tasks import Context, Row, Task
from sam_jax.train import build, settings

TOLERANCE, WITHIN, STEPS, BATCH = 1e-3, 2.0, 3, 64
DTYPES = ("float32", "bfloat16")
CORE = 6  # of `programs.names`
MODELS = {
    "core": {"name": "resnet_digits", "width": 16},
    "methods": {"name": "mlp", "width": 64},
}


def tasks(context: Context) -> Iterator[Task]:
    """A task for every method."""
    everyone = context.part == "methods"
    methods = programs.names() if everyone else programs.names()[:CORE]
    if context.tiny:
        methods = methods[:2]
    for method in methods:
        row = functools.partial(
            compared, method, MODELS["methods" if context.tiny else context.part]
        )
        yield Task(method, 5 if everyone else 20, row)


def compared(method: str, model: dict[str, Any]) -> Row:
    """What a method does on the device and on the CPU.

    Returns:
        For each dtype ``error``, ``tolerance``, ``donated``, ``finite`` and whether all
        is as it should be, ``passed``.
    """
    device, cpu = jax.devices()[0], jax.devices("cpu")[0]
    cases = [(dtype, place) for dtype in DTYPES for place in (device, cpu)]
    # Compiled at the same time: XLA holds no lock of Python's.
    with futures.ThreadPoolExecutor(len(cases)) as pool:
        ways = pool.map(lambda case: trained(method, model, *case), cases)
        found = dict(zip(cases, ways, strict=True))
    exact = found["float32", cpu]
    of_bfloat16 = exact.difference(found["bfloat16", cpu])
    allowed = {
        "float32": TOLERANCE,
        "bfloat16": max(TOLERANCE, WITHIN * of_bfloat16),
    }
    row = {}
    for dtype in DTYPES:
        here = found[dtype, device]
        error = found[dtype, cpu].difference(here)
        good = error <= allowed[dtype] and here.donated and here.finite
        row[dtype] = {
            "error": error,
            "tolerance": allowed[dtype],
            "donated": here.donated,
            "finite": here.finite,
            "passed": bool(good),
        }
    return row


class Trained:
    """Weights before and after some steps.

    Attributes:
        donated: whether all arrays of the state were given up.
        finite: whether a step without a gradient left all finite.
    """

    def __init__(self, before: Any, after: Any, donated: bool, finite: bool) -> None:
        self._before, self._after = _flat(before), _flat(after)
        self.donated, self.finite = donated, finite

    def difference(self, other: "Trained") -> float:
        """To other weights, as a share of what the steps changed."""
        change = np.linalg.norm(self._after - self._before)
        return float(np.linalg.norm(self._after - other._after) / change)


def trained(method: str, model: dict[str, Any], dtype: str, device: Any) -> Trained:
    """Three steps on a device."""
    chosen = programs.settings(
        method,
        batch_size=BATCH,
        model={**model, "dtype": dtype},
        data=programs.AUGMENTED,
        learning_rate=0.01,
    )
    dataset = programs.noise(STEPS * BATCH, side=16)
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        train_step, init = _functions(chosen, dataset)
        # Unused inputs are kept: all that was donated must be gone.
        call = jax.jit(train_step, donate_argnums=0, keep_unused=True)
        first = jax.jit(init)
        # Of another state: what the host looks at is not given up.
        before = jax.device_get(first(np.uint32(0)).params)
        state = jax.device_put(first(np.uint32(0)), device)
        source = dataset.train.batches(batch_size=BATCH, seed=0)
        batches = [next(source) for _ in range(STEPS)]
        donated = True
        for batch in batches:
            given = jax.tree.leaves(state)
            state, _ = call(state, jax.device_put(batch, device))
            donated &= all(leaf.is_deleted() for leaf in given)
        after = jax.device_get(state.params)
        weightless = {**batches[0], "weight": np.zeros(BATCH, np.float32)}
        state, _ = call(state, jax.device_put(weightless, device))
        finite = bool(np.isfinite(_flat(jax.device_get(state.params))).all())
    return Trained(before, after, donated, finite)


def _functions(chosen: settings.Settings, dataset: Any) -> tuple[Any, Any]:
    """The trainer's step and first state without its mesh, for any device."""
    run: build.Run = programs.run(chosen, dataset)
    unjitted: Any = run.train_step
    first: Any = run.init
    return unjitted.__wrapped__, first.__wrapped__


def _flat(tree: Any) -> np.ndarray:
    leaves = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)]
    return np.concatenate(leaves)
