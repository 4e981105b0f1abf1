"""Small problems, and the training step that passes what the trainer's step passes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_jax.methods import devices


def network(dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    """Parameters of a small network: a matrix and a scalar."""
    kernel = np.random.default_rng(0).normal(size=(3, 4))
    return {"kernel": jnp.asarray(kernel, dtype), "bias": jnp.asarray(0.5, dtype)}


def batch(
    dtype: Any = jnp.float32, seed: int = 1, examples: int = 16
) -> tuple[jax.Array, jax.Array]:
    """Inputs and targets of a regression."""
    inputs = np.random.default_rng(seed).normal(size=(examples, 3))
    targets = np.sin(inputs.sum(axis=1))
    return jnp.asarray(inputs, dtype), jnp.asarray(targets, dtype)


def matrices(params: Any) -> Any:
    """A mask: True for every matrix."""
    return jax.tree.map(lambda w: jnp.ndim(w) > 1, params)


class Supervised(NamedTuple):
    """A loss that is the mean over the examples of a batch.

    Attributes:
        outputs: ``(params, batch) -> outputs``, of the network.
        losses: ``(outputs, batch) -> [B]``, of each example.
    """

    outputs: Callable[..., Any]
    losses: Callable[..., jax.Array]

    def __call__(self, params: Any, *args: Any) -> jax.Array:
        """The mean loss."""
        return self.with_outputs(params, *args)[0]

    def with_outputs(self, params: Any, *args: Any) -> tuple[jax.Array, Any]:
        """The mean loss, and the outputs of the network."""
        outputs = self.outputs(params, *args)
        return jnp.mean(self.losses(outputs, *args)), outputs

    def select(self, rows: Any, *args: Any) -> Any:
        """Some examples of the batch."""
        # On a mesh with explicit axes the rows of all devices are brought together.
        return jax.tree.map(lambda x: devices.whole(x)[rows], args)


class Whole(Supervised):
    """Any loss ``(params, *args) -> scalar``: one example, itself as the output."""

    def select(self, rows: Any, *args: Any) -> Any:
        """The one example."""
        return args


def supervised(loss: Any) -> Supervised:
    """The loss, as one of examples."""
    if isinstance(loss, Supervised):
        return loss
    return Whole(
        lambda params, *args: loss(params, *args)[None], lambda outputs, *args: outputs
    )


def network_outputs(params: Any, batch: Any) -> jax.Array:
    """What the network says to each example."""
    inputs, _ = batch
    return jnp.sum(jnp.tanh(inputs @ params["kernel"]), axis=1) + params["bias"]


# Mean squared error of the network.
network_loss = Supervised(
    network_outputs, lambda outputs, batch: jnp.square(outputs - batch[1])
)


def gradients(loss: Any, *args: Any) -> dict[str, Any]:
    """The gradient functions that a training step passes to every method."""
    return {
        "grad_fn": lambda params: jax.grad(loss)(params, *args),
        "value_and_grad_fn": lambda params: jax.value_and_grad(loss)(params, *args),
    }


def keywords(loss: Any, params: Any, *args: Any, outputs: Any = None) -> dict[str, Any]:
    """All keywords that the trainer's step passes to every method.

    Args:
        loss: `Supervised`, or any ``(params, *args) -> scalar``.
        params: where the caller's gradient is taken.
        *args: of the loss.
        outputs: at ``params``, if they are known.
    """
    problem = supervised(loss)
    outputs = problem.outputs(params, *args) if outputs is None else outputs
    return gradients(loss, *args) | {
        "value": jnp.mean(problem.losses(outputs, *args)),
        "key": jax.random.key(3),
        "num_examples": 1000,
        "example_losses": problem.losses(outputs, *args),
        "example_losses_fn": lambda params: problem.losses(
            problem.outputs(params, *args), *args
        ),
        "subset_grad_fn": lambda params, rows: jax.grad(loss)(
            params, *problem.select(rows, *args)
        ),
        "functional_value_and_grad_fn": _functional(problem, outputs, *args),
        "class_shares": 1 / (2 + jnp.abs(problem.losses(outputs, *args))),
        "weighted_value_and_grad_fn": jax.value_and_grad(
            lambda params, factors: jnp.mean(
                factors * problem.losses(problem.outputs(params, *args), *args)
            )
        ),
    }


def _functional(problem: Supervised, outputs: Any, *args: Any) -> Any:
    """Loss, and gradient of the loss linearised in the outputs at the weights."""

    def mean_loss(outputs):
        return jnp.mean(problem.losses(outputs, *args))

    def value_and_grad(params):
        moved, vjp = jax.vjp(lambda params: problem.outputs(params, *args), params)
        return mean_loss(moved), vjp(jax.grad(mean_loss)(outputs))[0]

    return value_and_grad


def make_step(
    tx: optax.GradientTransformationExtraArgs, loss: Any
) -> Callable[..., Any]:
    """``(params, state, *args) -> (params, state)``, one update of the loss."""
    value_and_grad = jax.value_and_grad(supervised(loss).with_outputs, has_aux=True)

    def step(params, state, *args):
        (_, outputs), grads = value_and_grad(params, *args)
        updates, state = tx.update(
            grads,
            state,
            params,
            step_number=7,  # a keyword that no method knows
            **keywords(loss, params, *args, outputs=outputs),
        )
        return optax.apply_updates(params, updates), state

    return step


def trajectory(
    tx: optax.GradientTransformationExtraArgs,
    loss: Any,
    params: Any,
    args: Any = (),
    steps: int = 20,
    evaluated: Callable[[Any, Any], Any] = lambda state, params: params,
) -> list[Any]:
    """Parameters after each of some updates, one dispatch per update."""
    step = jax.jit(make_step(tx, loss))
    state, seen = tx.init(params), []
    for _ in range(steps):
        params, state = step(params, state, *args)
        seen.append(evaluated(state, params))
    return seen


def points(
    tx: optax.GradientTransformationExtraArgs,
    grads: Any,
    state: Any,
    params: Any,
    **keywords: Any,
) -> list[Any]:
    """Where an update takes gradients itself, from the calls of its functions."""
    seen = []

    def grad_fn(weights, rows=None):
        seen.append(weights)
        return grads

    def value_and_grad_fn(weights):
        return jnp.zeros([]), grad_fn(weights)

    functions = {
        "grad_fn": grad_fn,
        "value_and_grad_fn": value_and_grad_fn,
        "num_examples": 1000,
        "subset_grad_fn": grad_fn,
        "functional_value_and_grad_fn": value_and_grad_fn,
        "class_shares": jnp.full(4, 0.1),
        "weighted_value_and_grad_fn": lambda weights, _: value_and_grad_fn(weights),
        "example_losses": jnp.zeros(4),
        "example_losses_fn": lambda weights: jnp.zeros(4),
    }
    with jax.disable_jit():  # a branch of a cond would see tracers
        tx.update(grads, state, params, **(functions | keywords))
    return seen
