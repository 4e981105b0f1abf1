"""Small problems, and the training step that passes what the trainer's step passes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax


def network(dtype=jnp.float32):
    """Parameters of a small network: a matrix and a scalar."""
    kernel = np.random.default_rng(0).normal(size=(3, 4))
    return {"kernel": jnp.asarray(kernel, dtype), "bias": jnp.asarray(0.5, dtype)}


def batch(dtype=jnp.float32, seed=1, examples=16):
    """Inputs and targets of a regression."""
    inputs = np.random.default_rng(seed).normal(size=(examples, 3))
    targets = np.sin(inputs.sum(axis=1))
    return jnp.asarray(inputs, dtype), jnp.asarray(targets, dtype)


def network_loss(params, batch):
    """Mean squared error of the network."""
    inputs, targets = batch
    outputs = jnp.sum(jnp.tanh(inputs @ params["kernel"]), axis=1) + params["bias"]
    return jnp.mean(jnp.square(outputs - targets))


def gradients(loss, *args):
    """The keywords that a training step passes to every optimizer."""
    return {
        "grad_fn": lambda params: jax.grad(loss)(params, *args),
        "value_and_grad_fn": lambda params: jax.value_and_grad(loss)(params, *args),
    }


def make_step(tx, loss):
    """``(params, state, *args) -> (params, state)``, one update of the loss."""

    def step(params, state, *args):
        value, grads = jax.value_and_grad(loss)(params, *args)
        updates, state = tx.update(
            grads,
            state,
            params,
            value=value,
            step_number=7,  # a keyword that no method knows
            **gradients(loss, *args),
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


def quadratic(matrix):
    """``w -> w.matrix.w / 2``, a symmetric matrix given; the gradient is matrix.w."""
    matrix = jnp.asarray(matrix)
    return lambda w: w @ matrix @ w / 2


def perturbed_params(tx, grads, state, params, **keywords):
    """Where an update takes the second gradient, from the call of ``grad_fn``."""
    seen = []

    def grad_fn(weights):
        seen.append(weights)
        return grads

    tx.update(grads, state, params, grad_fn=grad_fn, **keywords)
    return seen[-1]
