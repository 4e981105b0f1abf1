"""Small problems, and the training step that passes what the trainer's step passes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_jax.methods import devices


def network(dtype=jnp.float32):
    """Parameters of a small network: a matrix and a scalar."""
    kernel = np.random.default_rng(0).normal(size=(3, 4))
    return {"kernel": jnp.asarray(kernel, dtype), "bias": jnp.asarray(0.5, dtype)}


def batch(dtype=jnp.float32, seed=1, examples=16):
    """Inputs and targets of a regression."""
    inputs = np.random.default_rng(seed).normal(size=(examples, 3))
    targets = np.sin(inputs.sum(axis=1))
    return jnp.asarray(inputs, dtype), jnp.asarray(targets, dtype)


def matrices(params):
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

    def __call__(self, params, *args):
        return self.with_outputs(params, *args)[0]

    def with_outputs(self, params, *args):
        outputs = self.outputs(params, *args)
        return jnp.mean(self.losses(outputs, *args)), outputs

    def select(self, rows, *args):
        """Some examples of the batch."""
        # On a mesh with explicit axes the rows of all devices are brought together.
        return jax.tree.map(lambda x: devices.whole(x)[rows], args)


class Whole(Supervised):
    """Any loss ``(params, *args) -> scalar``: one example, itself as the output."""

    def select(self, rows, *args):
        return args


def supervised(loss):
    if isinstance(loss, Supervised):
        return loss
    return Whole(
        lambda params, *args: loss(params, *args)[None], lambda outputs, *args: outputs
    )


def network_outputs(params, batch):
    """What the network says to each example."""
    inputs, _ = batch
    return jnp.sum(jnp.tanh(inputs @ params["kernel"]), axis=1) + params["bias"]


# Mean squared error of the network.
network_loss = Supervised(
    network_outputs, lambda outputs, batch: jnp.square(outputs - batch[1])
)


def gradients(loss, *args):
    """The gradient functions that a training step passes to every method."""
    return {
        "grad_fn": lambda params: jax.grad(loss)(params, *args),
        "value_and_grad_fn": lambda params: jax.value_and_grad(loss)(params, *args),
    }


def keywords(loss, params, *args, outputs=None):
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
    }


def _functional(problem, outputs, *args):
    """Loss, and gradient of the loss linearised in the outputs at the weights."""

    def mean_loss(outputs):
        return jnp.mean(problem.losses(outputs, *args))

    def value_and_grad(params):
        moved, vjp = jax.vjp(lambda params: problem.outputs(params, *args), params)
        return mean_loss(moved), vjp(jax.grad(mean_loss)(outputs))[0]

    return value_and_grad


def make_step(tx, loss):
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


def train(tx, loss, params, args=(), steps=1):
    """Parameters and state after some updates, in one scan."""
    step = make_step(tx, loss)
    (params, state), _ = jax.jit(
        lambda carry: jax.lax.scan(
            lambda carry, _: (step(*carry, *args), None), carry, length=steps
        )
    )((params, tx.init(params)))
    return params, state


def trajectory(tx, loss, params, args=(), steps=20):
    """Parameters after each of some updates, one dispatch per update."""
    step = jax.jit(make_step(tx, loss))
    state, seen = tx.init(params), []
    for _ in range(steps):
        params, state = step(params, state, *args)
        seen.append(params)
    return seen


def evaluations(tx, updates):
    """How often each of some updates of the network evaluates its loss."""
    calls = []

    def outputs(params, batch):
        jax.debug.callback(lambda: calls.append(1))  # runs where the loss does
        return network_outputs(params, batch)

    step = jax.jit(make_step(tx, network_loss._replace(outputs=outputs)))
    params, taken = network(), []
    state = tx.init(params)
    for _ in range(updates):
        params, state = step(params, state, batch())
        jax.effects_barrier()
        taken.append(len(calls))
        calls.clear()
    return taken


def quadratic(matrix):
    """``w -> w.matrix.w / 2``, a symmetric matrix given; the gradient is matrix.w."""
    matrix = jnp.asarray(matrix)
    return lambda w: w @ matrix @ w / 2


def points(tx, grads, state, params, **keywords):
    """Where an update takes gradients by itself, from the calls of its functions."""
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
        "example_losses": jnp.zeros(4),
        "example_losses_fn": lambda weights: jnp.zeros(4),
    }
    with jax.disable_jit():  # a branch of a cond would see tracers
        tx.update(grads, state, params, **(functions | keywords))
    return seen


def perturbed_params(tx, grads, state, params, **keywords):
    """Where an update takes the last gradient."""
    return points(tx, grads, state, params, **keywords)[-1]
