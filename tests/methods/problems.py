"""The problems of the contract, and what only the tests do with them."""

import jax
import jax.numpy as jnp

from sam_jax.testing.problems import *  # noqa: F403
from sam_jax.testing.problems import (
    batch,
    make_step,
    network,
    network_loss,
    network_outputs,
    points,
)


def train(tx, loss, params, args=(), steps=1):
    """Parameters and state after some updates, in one scan."""
    step = make_step(tx, loss)
    (params, state), _ = jax.jit(
        lambda carry: jax.lax.scan(
            lambda carry, _: (step(*carry, *args), None), carry, length=steps
        )
    )((params, tx.init(params)))
    return params, state


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


def perturbed_params(tx, grads, state, params, **keywords):
    """Where an update takes the last gradient."""
    return points(tx, grads, state, params, **keywords)[-1]
