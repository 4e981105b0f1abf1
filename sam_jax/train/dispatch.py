"""How the updates of a run are handed to the devices: one by one, or several at once.

After each call the host is in charge again: Python, the transfer of a batch, the launch
of a program. Where an update takes a GPU or TPU less time than that, the device waits.
With ``config.steps_per_dispatch`` above 1 it does that many updates in one call: the
whole training set is on every device, as it was read (uint8 images, int32 labels);
the host sends which examples are in the batches, and gets back the metrics of each
update. The batches, their order and all randomness are the same; the compiler may order
sums otherwise, as it sees another program. In one process on CPUs the weights were the
same bits, and some metrics differed in the last one; in two, weights did as well.

A training set that is larger than what a device has left needs one update per call,
where the host gathers the batches.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sam_jax.train import sharding
from sam_jax.train.build import Run
from sam_jax.train.state import TrainState
from sam_jax.train.step import Metrics


class Updates(NamedTuple):
    """What a call has done; its arrays may still be computed.

    Attributes:
        state: after the updates.
        metrics: name -> scalar, or an array whose first values are of these updates.
        steps: how many they are.
    """

    state: TrainState
    metrics: Metrics
    steps: int


Dispatch = Callable[[TrainState, int], Updates]


def from_step(run: Run, start: int) -> Dispatch:
    """Prepares the updates of a run after some of them.

    Returns:
        ``(state, most) -> updates`` that does the next updates, at least one and at
        most that many, and donates the state.

    Example:
        >>> from sam_jax.train import build, settings
        >>> chosen = {"data": {"name": "digits"}, "model": {"name": "mlp"}}
        >>> chosen["steps_per_dispatch"] = 4
        >>> run = build.build(settings.read(chosen))
        >>> dispatch = from_step(run, 0)
        >>> updates = dispatch(run.init(run.seed), 3)
        >>> updates.steps, int(updates.state.step)
        (3, 3)
    """
    if run.config.steps_per_dispatch > 1:
        return Several(run, start)
    batches = run.dataset.train.batches(**_drawn(run, start))

    def one(state: TrainState, most: int) -> Updates:
        """Does the next update, of a batch that the host has gathered."""
        del most
        batch = sharding.put_batch(next(batches), run.mesh)
        return Updates(*run.train_step(state, batch), 1)

    return one


class Several:
    """Several updates in a call, of batches that the devices gather.

    Attributes:
        train_steps: ``(state, examples, draws, count) -> (state, metrics)``, jitted,
            the state donated. One program does any number of updates up to
            ``config.steps_per_dispatch``.
    """

    def __init__(self, run: Run, start: int) -> None:
        self._most = run.config.steps_per_dispatch
        self._mesh = run.mesh
        source: Any = run.dataset.train  # an IndexedSource; `build` refuses others
        self._draws = source.draws(**_drawn(run, start))
        whole = sharding.replicated(run.mesh)
        arrays = {
            "image": source.split.images,
            "label": source.split.labels,
            "true_label": source.split.true_labels,
        }
        self._examples = {
            name: jax.make_array_from_callback(x.shape, whole, x.__getitem__)
            for name, x in arrays.items()
        }
        places = jax.tree.map(lambda x: x.sharding, run.abstract_state())
        self.train_steps = run.train_steps or jax.jit(
            make_train_steps(run.train_step, self._most, run.mesh),
            donate_argnums=0,
            out_shardings=(places, whole),
        )

    def __call__(self, state: TrainState, most: int) -> Updates:
        """Does the next updates."""
        count = min(most, self._most)
        indices, weights = zip(*(next(self._draws) for _ in range(count)), strict=True)
        # Examples first, as they are split over the devices; [B, steps].
        draws = {
            "index": np.stack(indices, axis=1).astype(np.int32),
            "weight": np.stack(weights, axis=1),
        }
        unused = [(0, 0), (0, self._most - count)]
        padded = {name: np.pad(x, unused) for name, x in draws.items()}
        state, metrics = self.train_steps(
            *(state, self._examples, sharding.put_batch(padded, self._mesh)),
            np.int32(count),
        )
        return Updates(state, metrics, count)


def make_train_steps(
    train_step: Callable[..., tuple[TrainState, Metrics]],
    most: int,
    mesh: jax.sharding.Mesh,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Several updates as one function; jit it with the state donated.

    Args:
        train_step: ``(state, batch) -> (state, metrics)``.
        most: updates that there is room for.
        mesh: of the run.

    Returns:
        ``(state, examples, draws, count) -> (state, metrics)``: the examples are those
        of the training set by name, ``image``, ``label`` and ``true_label``; the draws
        ``index`` int32 [B, most] and ``weight`` float32 [B, most]. The metrics have the
        shape [most]; those from ``count`` on are zero.
    """
    split = sharding.split(mesh)

    def train_steps(
        state: TrainState,
        examples: dict[str, jax.Array],
        draws: dict[str, jax.Array],
        count: jax.Array,
    ) -> tuple[TrainState, Metrics]:
        def gathered(number: jax.Array | int) -> dict[str, jax.Array]:
            rows = draws["index"][:, number]
            batch = {
                name: x.at[rows].get(mode="promise_in_bounds")
                for name, x in examples.items()
            }
            batch["weight"] = draws["weight"][:, number]
            # Each device gathers its own rows.
            return jax.lax.with_sharding_constraint(batch, split)

        def update(
            number: jax.Array, carry: tuple[TrainState, Metrics]
        ) -> tuple[TrainState, Metrics]:
            state, history = carry
            state, metrics = train_step(state, gathered(number))
            return state, {
                name: history[name].at[number].set(x) for name, x in metrics.items()
            }

        _, shapes = jax.eval_shape(train_step, state, gathered(0))
        history = {name: jnp.zeros(most, x.dtype) for name, x in shapes.items()}
        return jax.lax.fori_loop(0, count, update, (state, history))

    return train_steps


def _drawn(run: Run, start: int) -> dict[str, Any]:
    """Which batches, and which of their rows this process needs."""
    batch_size = run.config.batch_size
    return {
        "batch_size": batch_size,
        "seed": run.config.seed,
        "start_step": start,
        "rows": sharding.local_rows(batch_size, run.mesh),
    }
