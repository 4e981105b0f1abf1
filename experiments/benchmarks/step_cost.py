"""What one training step costs: operations, memory, time, for every method.

    python -m experiments.benchmarks.step_cost --models=resnet18:16 --batch=32 \
        --rounds=15 --out=experiments/benchmarks/results/step_cost.json

Each method (all that there are, or ``--methods=sam,usam``) is compared with the base
optimizer alone (``sgd``: momentum and weight decay), and SAM's step also with two that
do the same: one written by hand (``hand-written``) and one with ``optax.contrib.sam``
(``optax``). All stand in the trainer's step, with the same model, batch and loss.
Operations and memory are counted by the compiler; times are taken in turns and compared
round by round. A model is written
``name``, ``name:width`` (channels of its first stage); images are random, 32x32x3.
A method that does not take its second gradient in every step needs ``--steps=5`` or so
in one time; ``every_k/sam`` is SAM in every fifth.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from experiments import commands
from experiments.benchmarks import measure
from sam_jax import methods, models
from sam_jax.train import build, settings
from sam_jax.train import config as config_lib
from sam_jax.train import optimizer as optimizer_lib
from sam_jax.train.optimizer import Optimizer
from sam_jax.train.state import TrainState

BASE, HAND_WRITTEN, OPTAX = "sgd", "hand-written", "optax"
REFERENCES = (BASE, HAND_WRITTEN, OPTAX)
CLASSES, STEPS_PER_EPOCH = 10, 100
RHO, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.05, 0.1, 0.9, 5e-4
CARD = pathlib.Path(__file__).parents[2] / "configs" / "cifar10_sam.py"


@commands.ends
def main(argv: Sequence[str]) -> int:
    """Measures as the command line says, prints the tables, writes the record.

    Args:
        argv: the arguments after the program's name.

    Returns:
        The exit code.
    """
    parser = measure.parser(__doc__)
    parser.add_argument(
        "--models",
        type=commands.several(str),
        default=["resnet18:16"],
        help="name:width,...",
    )
    parser.add_argument(
        "--methods", type=commands.several(str), default=methods.names()
    )
    parser.add_argument(
        "--batch", type=commands.count, default=32, help="examples in a step"
    )
    parser.add_argument(
        "--image", type=commands.count, default=32, help="side in pixels"
    )
    parser.add_argument(
        "--rounds", type=commands.count, default=15, help="times for each step"
    )
    parser.add_argument(
        "--steps", type=commands.count, default=1, help="steps in a round"
    )
    args = parser.parse_args(argv)
    shape = (args.batch, args.image, args.image, 3)
    results = {}
    ways = optimizers(args.methods)
    for name in args.models:
        results[name] = cost(name, ways, shape, args.rounds, args.steps)
        print(f"\n{name}, batch {args.batch}\n\n{table(results[name])}")
    measure.write(args.out, "experiments.benchmarks.step_cost", argv, results)
    return 0


# ── Ways to train ────────────────────────────────────────────────────────────────────


def optimizers(names: Sequence[str]) -> dict[str, Optimizer]:
    """The base optimizer, methods as the trainer builds them, and SAM's two peers.

    Args:
        names: of the methods.

    Returns:
        Name -> optimizer.

    Raises:
        UserError: for a method that does not exist.
    """
    return {
        **{
            name: optimizer_lib.make_optimizer(configured(name), STEPS_PER_EPOCH)
            for name in (BASE, *names)
        },
        HAND_WRITTEN: around(hand_written()),
        OPTAX: around(optax_sam()),
    }


def configured(method: str) -> settings.Settings:
    """Settings of a method, with weight decay and SGD with momentum, on one device.

    Args:
        method: its name, after ``every_k/`` or another cadence's name if it has one.
    """
    cadence, _, name = method.rpartition("/")
    config = config_lib.default_config()
    config.method = config_lib.load_method(name, CARD)
    config.cadence.name = cadence or config.cadence.name
    config.learning_rate = LEARNING_RATE
    config.weight_decay.value = WEIGHT_DECAY
    config.schedule.name = "constant"
    config.mesh.data = 1
    return settings.read(config)


def around(tx: optax.GradientTransformationExtraArgs) -> Optimizer:
    """A transformation that takes the whole step, for the trainer's step."""
    return Optimizer(
        method=tx,
        base=optax.with_extra_args_support(optax.identity()),
        learning_rate=optax.constant_schedule(LEARNING_RATE),
        loss_decay=lambda params: jnp.zeros([]),
        eval_params=lambda state, params: params,
    )


def hand_written() -> optax.GradientTransformationExtraArgs:
    """SAM as one would write it for one run; the state is the momentum."""

    def init(params: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, params)

    def update(
        updates: Any, state: Any, params: Any = None, **keywords: Any
    ) -> tuple[Any, Any]:
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(updates)))
        perturbed = jax.tree.map(lambda w, g: w + RHO / norm * g, params, updates)
        trace = jax.tree.map(
            lambda w, g, m: g + WEIGHT_DECAY * w + MOMENTUM * m,
            params,
            keywords["grad_fn"](perturbed),
            state,
        )
        return jax.tree.map(lambda m: -LEARNING_RATE * m, trace), trace

    return optax.GradientTransformationExtraArgs(init, update)


def optax_sam() -> optax.GradientTransformationExtraArgs:
    """SAM of ``optax.contrib``, in the mode that hides the perturbation."""
    tx = optax.contrib.sam(
        optax.chain(
            optax.add_decayed_weights(WEIGHT_DECAY),
            optax.sgd(LEARNING_RATE, momentum=MOMENTUM),
        ),
        optax.chain(optax.contrib.normalize(), optax.sgd(RHO)),
        opaque_mode=True,
    )

    def update(
        updates: Any, state: Any, params: Any = None, **keywords: Any
    ) -> tuple[Any, Any]:
        grad_fn = keywords["grad_fn"]
        return tx.update(updates, state, params, grad_fn=lambda w, _: grad_fn(w))

    return optax.GradientTransformationExtraArgs(tx.init, update)


# ── Measurement ──────────────────────────────────────────────────────────────────────


def cost(
    model_name: str,
    optimizers: Mapping[str, Optimizer],
    shape: tuple[int, int, int, int],
    rounds: int,
    steps_per_round: int,
) -> dict[str, dict[str, Any]]:
    """Measures all ways to train on one model.

    Args:
        model_name: ``name`` or ``name:width``.
        optimizers: name -> way to train, among them `BASE`.
        shape: of a batch of images.
        rounds: times taken of each.
        steps_per_round: steps of which one time is taken.

    Returns:
        Name -> what `counted` says; ``flops_ratio`` to the base optimizer's step;
        ``state_copies``, what the state has beyond that of the base optimizer;
        ``extra_temp_copies`` and ``time_ratio`` against each of `REFERENCES`;
        ``seconds`` (median of a step) and ``all_seconds``. ``copies`` are in units of
        the parameters' size.

    Raises:
        UserError: for a model that does not exist.
    """
    name, _, width = model_name.partition(":")
    model = models.build(name, num_classes=CLASSES, width=int(width) if width else None)
    results: dict[str, dict[str, Any]] = {}
    runners = {}
    for step_name, optimizer in optimizers.items():
        steps = trainer_steps(model, optimizer, shape)
        state, batch = steps.init(steps.seed), random_batch(shape)
        train_step: Any = steps.train_step
        compiled = train_step.lower(state, batch).compile()
        results[step_name] = counted(compiled, state.params, state.opt_state)
        runners[step_name] = Runner(compiled, state, batch, steps_per_round)
        runners[step_name]()  # the first time warms up
    for of_step in results.values():
        base = results[BASE]
        of_step["flops_ratio"] = of_step["flops"] / base["flops"]
        of_step["state_copies"] = of_step["optimizer_copies"] - base["optimizer_copies"]
        of_step["extra_temp_copies"] = {
            other: of_step["temp_copies"] - results[other]["temp_copies"]
            for other in REFERENCES
        }

    times = measure.in_turns(runners, rounds)
    for step_name, of_step in results.items():
        seconds = [t / steps_per_round for t in times[step_name]]
        of_step["seconds"] = sorted(seconds)[len(seconds) // 2]
        of_step["all_seconds"] = seconds
        of_step["time_ratio"] = {
            other: measure.ratio(times[step_name], times[other])._asdict()
            for other in REFERENCES
        }
    return results


def trainer_steps(
    model: models.Model, optimizer: Optimizer, shape: tuple[int, int, int, int]
) -> build.Steps:
    """The trainer's step with another network and optimizer.

    Args:
        model: the network.
        optimizer: the way to train.
        shape: of a batch of images.
    """
    config = dataclasses.replace(configured(BASE), batch_size=shape[0])
    spec = build.DataSpec(shape[1:], CLASSES, 50_000, STEPS_PER_EPOCH)
    return build.steps(config, spec, model=model, optimizer=optimizer)


def random_batch(shape: tuple[int, int, int, int]) -> dict[str, jax.Array]:
    """Noise in ten classes."""
    labels = jnp.arange(shape[0]) % CLASSES
    return {
        "image": jax.random.bits(jax.random.key(0), shape, jnp.uint8),
        "label": labels,
        "true_label": labels,
        "weight": jnp.ones(shape[0]),
    }


class Runner:
    """Does the next steps of a training and waits for them.

    Args:
        compiled: the step.
        state: before the first one; it is given away.
        batch: of all steps.
        steps: in one call.
    """

    def __init__(
        self, compiled: Callable[..., Any], state: TrainState, batch: Any, steps: int
    ) -> None:
        self._compiled = compiled
        self._state = state
        self._batch = batch
        self._steps = steps

    def __call__(self) -> None:
        """Does the steps."""
        for _ in range(self._steps):
            self._state, _ = self._compiled(self._state, self._batch)
        jax.block_until_ready(self._state)


def counted(compiled: Any, params: Any, opt_state: Any) -> dict[str, float]:
    """What the compiler says about a step, and the size of its optimizer's state.

    Args:
        compiled: the step.
        params: the parameters.
        opt_state: state of method and optimizer.

    Returns:
        ``flops``; in bytes ``params_bytes``, ``temp_bytes``, ``argument_bytes``,
        ``output_bytes`` (those that share memory with arguments included) and
        ``alias_bytes`` (these alone); ``temp_copies`` and ``optimizer_copies`` in units
        of the parameters' size.
    """
    memory = compiled.memory_analysis()
    params_bytes = _bytes(params)
    return {
        "flops": compiled.cost_analysis()["flops"],
        "params_bytes": params_bytes,
        "temp_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,
        "temp_copies": memory.temp_size_in_bytes / params_bytes,
        "optimizer_copies": _bytes(opt_state) / params_bytes,
    }


def _bytes(tree: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def table(results: dict[str, dict[str, Any]]) -> str:
    """A Markdown table; ratios of times are medians [smallest, largest]."""
    columns = {
        "FLOPs / sgd": lambda r: f"{r['flops_ratio']:.3f}",
        "temp (MB)": lambda r: f"{r['temp_bytes'] / 1e6:.2f}",
        **{
            f"temp - {other} (params)": lambda r, other=other: (
                f"{r['extra_temp_copies'][other]:+.2f}"
            )
            for other in (BASE, HAND_WRITTEN)
        },
        "arguments (MB)": lambda r: f"{r['argument_bytes'] / 1e6:.2f}",
        "outputs (MB)": lambda r: f"{r['output_bytes'] / 1e6:.2f}",
        "state - sgd (params)": lambda r: f"{r['state_copies']:+.2f}",
        "ms / step": lambda r: f"{1e3 * r['seconds']:.1f}",
        **{
            f"time / {other}": lambda r, other=other: str(
                measure.Ratio(**r["time_ratio"][other])
            )
            for other in REFERENCES
        },
    }
    rows = [
        [name, *(cell(of_step) for cell in columns.values())]
        for name, of_step in results.items()
    ]
    return measure.markdown(["step", *columns], rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
