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

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from experiments import commands
from experiments.benchmarks import measure, programs
from experiments.benchmarks.measure import Flag
from sam_jax import methods
from sam_jax.train import optimizer as optimizer_lib
from sam_jax.train.optimizer import Optimizer

BASE, HAND_WRITTEN, OPTAX = programs.SGD, "hand-written", "optax"
REFERENCES = (BASE, HAND_WRITTEN, OPTAX)
STEPS_PER_EPOCH = 100
RHO, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.05, 0.1, 0.9, 5e-4


@measure.benchmark(
    models=Flag(commands.several(str), ["resnet18:16"], "name:width,..."),
    methods=Flag(commands.several(str), methods.names(), "name,..."),
    batch=Flag(commands.count, 32, "examples in a step"),
    image=Flag(commands.count, 32, "side in pixels"),
    rounds=Flag(commands.count, 15, "times for each step"),
    steps=Flag(commands.count, 1, "steps in a round"),
)
def main(args: Any) -> tuple[measure.Results, measure.Tables]:
    """Measures all ways to train on every model."""
    ways = optimizers(args.methods)
    results = {
        model: cost(model, ways, args.batch, args.image, args.rounds, args.steps)
        for model in args.models
    }
    tables = {f"{name}, batch {args.batch}": table(results[name]) for name in results}
    return results, tables


# ── Ways to train ────────────────────────────────────────────────────────────────────


def optimizers(names: Sequence[str]) -> dict[str, Optimizer]:
    """The base optimizer, methods as the trainer builds them, and SAM's two peers."""
    return {
        **{
            name: optimizer_lib.make_optimizer(programs.settings(name), STEPS_PER_EPOCH)
            for name in (BASE, *names)
        },
        HAND_WRITTEN: around(hand_written()),
        OPTAX: around(optax_sam()),
    }


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
    tx = optax.contrib.sam(*_optax_parts(), opaque_mode=True)

    def update(
        updates: Any, state: Any, params: Any = None, **keywords: Any
    ) -> tuple[Any, Any]:
        grad_fn = keywords["grad_fn"]
        return tx.update(updates, state, params, grad_fn=lambda w, _: grad_fn(w))

    return optax.GradientTransformationExtraArgs(tx.init, update)


def optax_sam_in_two() -> optax.GradientTransformationExtraArgs:
    """SAM of ``optax.contrib`` in its other mode: every second update descends."""
    tx = optax.contrib.sam(*_optax_parts(), sync_period=2)

    def update(
        updates: Any, state: Any, params: Any = None, **keywords: Any
    ) -> tuple[Any, Any]:
        climb, state = tx.update(updates, state, params)
        perturbed = optax.apply_updates(params, climb)
        back, state = tx.update(keywords["grad_fn"](perturbed), state, perturbed)
        return jax.tree.map(jnp.add, climb, back), state

    return optax.GradientTransformationExtraArgs(tx.init, update)


def _optax_parts() -> tuple[Any, Any]:
    """The optimizer and the ascent of ``optax.contrib.sam``."""
    return (
        optax.chain(
            optax.add_decayed_weights(WEIGHT_DECAY),
            optax.sgd(LEARNING_RATE, momentum=MOMENTUM),
        ),
        optax.chain(optax.contrib.normalize(), optax.sgd(RHO)),
    )


# ── Measurement ──────────────────────────────────────────────────────────────────────


def cost(
    model: str,
    optimizers: Mapping[str, Optimizer],
    batch: int,
    side: int,
    rounds: int,
    steps: int,
) -> dict[str, dict[str, Any]]:
    """Measures all ways to train on one model.

    Returns:
        Name -> what `counted` says; ``flops_ratio`` to the base optimizer's step;
        ``state_copies``, what the state has beyond that of the base optimizer;
        ``extra_temp_copies`` and ``time_ratio`` against each of `REFERENCES`;
        ``seconds`` (median of a step) and ``all_seconds``. ``copies`` are in units of
        the parameters' size.
    """
    chosen = programs.settings(BASE, model, batch_size=batch)
    images = programs.noise(batch, side)
    results: dict[str, dict[str, Any]] = {}
    contenders = {}
    for name, optimizer in optimizers.items():
        program = programs.Program(
            programs.run(chosen, images, optimizer=optimizer), steps
        )
        program()  # the first time warms up
        state = program.state
        results[name] = counted(program.compiled, state.params, state.opt_state)
        contenders[name] = program
    base = results[BASE]
    for found in results.values():
        found["flops_ratio"] = found["flops"] / base["flops"]
        found["state_copies"] = found["optimizer_copies"] - base["optimizer_copies"]
        found["extra_temp_copies"] = {
            other: found["temp_copies"] - results[other]["temp_copies"]
            for other in REFERENCES
        }

    times = measure.in_turns(contenders, rounds)
    for name, found in results.items():
        found["all_seconds"] = [t / steps for t in times[name]]
        found["seconds"] = measure.median(found["all_seconds"])
        found["time_ratio"] = {
            other: measure.ratio(times[name], times[other])._asdict()
            for other in REFERENCES
        }
    return results


def counted(compiled: Any, params: Any, opt_state: Any) -> dict[str, float]:
    """What the compiler says about a step, and the size of its optimizer's state.

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
