"""What one training step costs: operations, memory, time, for every method.

    python -m experiments.benchmarks.step_cost --models=resnet18:16 --batch=32 \
        --rounds=15 --out=experiments/benchmarks/results/step_cost.json

Each method (all that there are, or ``--methods=sam,usam``) is compared with the base
optimizer alone (``sgd``: momentum and weight decay), and SAM's step also with two that
do the same: one written by hand (``hand-written``) and one with ``optax.contrib.sam``
(``optax``). All have the same model, batch and loss, keep the batch statistics of the
pass at the weights and donate their state. Operations and memory are counted by the
compiler; times are taken in turns and compared round by round. A model is written
``name``, ``name:width`` (channels of its first stage); images are random, 32x32x3.
A method that does not take its second gradient in every step needs ``--steps=5`` or so
in one time; ``every_k/sam`` is SAM in every fifth.
"""

import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from experiments.benchmarks import measure
from sam_jax import errors, methods, models
from sam_jax.train import config as config_lib
from sam_jax.train import groups
from sam_jax.train import optimizer as optimizer_lib
from sam_jax.train import step as step_lib

BASE, HAND_WRITTEN, OPTAX = "sgd", "hand-written", "optax"
REFERENCES = (BASE, HAND_WRITTEN, OPTAX)
CLASSES = 10
RHO, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.05, 0.1, 0.9, 5e-4
CARD = pathlib.Path(__file__).parents[2] / "configs" / "cifar10_sam.py"


class State(NamedTuple):
    """Everything that a step changes."""

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any


class Step(NamedTuple):
    """A way to train: the state of its optimizer, and one update.

    Attributes:
        init: ``params -> opt_state``.
        update: ``(passes, state, examples) -> (state, loss)``.
    """

    init: Callable[[Any], Any]
    update: Callable[
        [step_lib.Passes, State, step_lib.Examples], tuple[State, jax.Array]
    ]


def main(argv: Sequence[str]) -> int:
    """Measures as the command line says, prints the tables, writes the record.

    Args:
        argv: the arguments after the program's name.

    Returns:
        The exit code.
    """
    parser = measure.parser(__doc__)
    parser.add_argument("--models", default="resnet18:16", help="name:width,...")
    parser.add_argument("--methods", default=",".join(methods.names()))
    parser.add_argument("--batch", type=int, default=32, help="examples in a step")
    parser.add_argument("--image", type=int, default=32, help="side in pixels")
    parser.add_argument("--rounds", type=int, default=15, help="times for each step")
    parser.add_argument("--steps", type=int, default=1, help="steps in a round")
    args = parser.parse_args(argv)
    shape = (args.batch, args.image, args.image, 3)
    results = {}
    try:
        steps = all_steps(args.methods.split(","))
        for name in args.models.split(","):
            results[name] = cost(name, steps, shape, args.rounds, args.steps)
            print(f"\n{name}, batch {args.batch}\n\n{table(results[name])}")
    except errors.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    measure.write(args.out, "experiments.benchmarks.step_cost", argv, results)
    return 0


# ── Ways to train ────────────────────────────────────────────────────────────────────


def all_steps(names: Sequence[str]) -> dict[str, Step]:
    """The base optimizer, methods as the trainer builds them, and SAM's two peers.

    Args:
        names: of the methods.

    Returns:
        Name -> step.

    Raises:
        UserError: for a method that does not exist.
    """
    return {
        **{
            name: with_transformation(trainer_chain(name), trainer_keywords)
            for name in (BASE, *names)
        },
        HAND_WRITTEN: Step(
            lambda params: jax.tree.map(jnp.zeros_like, params), hand_written
        ),
        OPTAX: optax_sam(),
    }


def trainer_chain(method: str) -> optax.GradientTransformationExtraArgs:
    """Method, weight decay and SGD with momentum, as the trainer chains them.

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
    optimizer = optimizer_lib.make_optimizer(config, steps_per_epoch=100)
    return optax.with_extra_args_support(optax.chain(optimizer.method, optimizer.base))


def with_transformation(
    tx: optax.GradientTransformationExtraArgs, keywords: Callable[..., dict[str, Any]]
) -> Step:
    """The step of a loop around an Optax chain.

    Args:
        tx: the chain.
        keywords: ``(passes, state, examples, clean)`` -> those of its update.

    Returns:
        The step.
    """

    def update(
        passes: step_lib.Passes, state: State, examples: step_lib.Examples
    ) -> tuple[State, jax.Array]:
        clean = gradient(passes, state, examples)(state.params)
        updates, opt_state = tx.update(
            clean.mean.grads,
            state.opt_state,
            state.params,
            **keywords(passes, state, examples, clean),
        )
        params = optax.apply_updates(state.params, updates)
        new = State(state.step + 1, params, clean.mean.model_state, opt_state)
        return new, clean.mean.loss

    return Step(tx.init, update)


def gradient(
    passes: step_lib.Passes, state: State, examples: step_lib.Examples
) -> Callable[[Any], groups.Parts]:
    """``params -> Parts``: loss, gradient and statistics on the batch."""
    return lambda params: passes.value_and_grad(
        params, state.model_state, examples, jax.random.key(0)
    )


def trainer_keywords(
    passes: step_lib.Passes,
    state: State,
    examples: step_lib.Examples,
    clean: groups.Parts,
) -> dict[str, Any]:
    """What the trainer's step passes to every method."""
    return {
        **step_lib.method_keywords(
            passes, state.model_state, examples, jax.random.key(0), clean
        ),
        "key": jax.random.fold_in(jax.random.key(1), state.step),
        "num_examples": 50_000,
    }


def hand_written(
    passes: step_lib.Passes, state: State, examples: step_lib.Examples
) -> tuple[State, jax.Array]:
    """SAM as one would write it for one run; ``opt_state`` is the momentum."""
    value_and_grad = gradient(passes, state, examples)
    clean = value_and_grad(state.params).mean
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(clean.grads)))
    perturbed = jax.tree.map(lambda w, g: w + RHO / norm * g, state.params, clean.grads)
    grads = value_and_grad(perturbed).mean.grads
    trace = jax.tree.map(
        lambda w, g, m: g + WEIGHT_DECAY * w + MOMENTUM * m,
        state.params,
        grads,
        state.opt_state,
    )
    params = jax.tree.map(lambda w, m: w - LEARNING_RATE * m, state.params, trace)
    return State(state.step + 1, params, clean.model_state, trace), clean.loss


def optax_sam() -> Step:
    """SAM of ``optax.contrib``, in the mode that hides the perturbation."""
    tx = optax.contrib.sam(
        optax.chain(
            optax.add_decayed_weights(WEIGHT_DECAY),
            optax.sgd(LEARNING_RATE, momentum=MOMENTUM),
        ),
        optax.chain(optax.contrib.normalize(), optax.sgd(RHO)),
        opaque_mode=True,
    )

    def keywords(
        passes: step_lib.Passes, state: State, examples: step_lib.Examples, *_: Any
    ) -> dict[str, Any]:
        value_and_grad = gradient(passes, state, examples)
        return {"grad_fn": lambda params, _: value_and_grad(params).mean.grads}

    return with_transformation(tx, keywords)


# ── Measurement ──────────────────────────────────────────────────────────────────────


def cost(
    model_name: str,
    steps: Mapping[str, Step],
    shape: tuple[int, int, int, int],
    rounds: int,
    steps_per_round: int,
) -> dict[str, dict[str, Any]]:
    """Measures all ways to train on one model.

    Args:
        model_name: ``name`` or ``name:width``.
        steps: name -> way to train, among them `BASE`.
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
    images = jax.random.normal(jax.random.key(0), shape)
    labels = jnp.arange(len(images)) % CLASSES

    results: dict[str, dict[str, Any]] = {}
    runners = {}
    for step_name, step in steps.items():
        params, model_state = model.init(jax.random.key(0), images)
        state = State(jnp.zeros([], jnp.int32), params, model_state, step.init(params))
        compiled = (
            jax.jit(make_step(model, step), donate_argnums=0)
            .lower(state, images, labels)
            .compile()
        )
        results[step_name] = counted(compiled, params, state.opt_state)
        runners[step_name] = Runner(compiled, state, (images, labels), steps_per_round)
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


def make_step(model: models.Model, step: Step) -> Callable[..., Any]:
    """``(state, images, labels) -> (state, loss)``, for jit."""
    passes = step_lib.make_passes(
        config_lib.default_config(), model, lambda params: jnp.zeros([])
    )

    def train_step(
        state: State, images: jax.Array, labels: jax.Array
    ) -> tuple[State, jax.Array]:
        examples = step_lib.Examples(images, labels, jnp.ones(len(images)))
        return step.update(passes, state, examples)

    return train_step


class Runner:
    """Does the next steps of a training and waits for them.

    Args:
        compiled: the step.
        state: before the first one; it is given away.
        batch: of all steps.
        steps: in one call.
    """

    def __init__(
        self, compiled: Callable[..., Any], state: State, batch: Any, steps: int
    ) -> None:
        self._compiled = compiled
        self._state = state
        self._batch = batch
        self._steps = steps

    def __call__(self) -> None:
        """Does the steps."""
        for _ in range(self._steps):
            self._state, _ = self._compiled(self._state, *self._batch)
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
