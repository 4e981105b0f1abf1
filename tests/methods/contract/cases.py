"""What the contract's tests share: the methods, one compiled step of each, comparisons.

A test of the contract is parametrised by `every_method`. For every method the first
tier runs what costs milliseconds or takes the one compiled step. What needs a program
of its own it runs for few methods, chosen by structure (a plain chain, an average, a
branch, a mask, a full optimizer), which decides what can go wrong there. The second
tier runs everything for all.
"""

import collections
import functools
import inspect
import typing
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sam_jax import methods
from tests.methods import problems
from tests.methods.traits import sgd, traits


def every_method(*fast, why="a compilation for each method"):
    """Parametrises by all methods; with ``fast``, the others are in the second tier.

    Stands next to the function, so that an id begins with the method's name.
    """
    slow = [pytest.mark.slow(why)]
    return pytest.mark.parametrize(
        "name",
        [
            pytest.param(name, marks=slow if fast and name not in fast else [])
            for name in methods.names()
        ],
    )


def on_devices(fast, few=2, many=8):
    """By method and number of devices: all on many devices are the second tier."""
    slow = pytest.mark.slow("programs for many devices, of every method")
    return pytest.mark.parametrize(
        "name, devices",
        [pytest.param(name, few, id=f"{name}-{few}") for name in fast]
        + [
            pytest.param(name, many, id=f"{name}-{many}", marks=slow)
            for name in methods.names()
        ],
    )


def parameters(name):
    return inspect.signature(methods.factory(name)).parameters


def is_optimizer(name):
    """Whether a method brings its own step size and base, instead of a direction."""
    return "learning_rate" in parameters(name)


def skip_optimizer(name):
    if is_optimizer(name):
        pytest.skip("brings its own base optimizer")


def method(name, learning_rate=0.1, **coefficients):
    """The method alone; the rate is for those that need one."""
    rate = {"learning_rate": learning_rate} if is_optimizer(name) else {}
    return methods.factory(name)(**rate, **{**traits(name).settings, **coefficients})


def optimizer(name, learning_rate=0.1, base=sgd, **coefficients):
    tx = method(name, learning_rate, **coefficients)
    return tx if is_optimizer(name) else optax.chain(tx, base(learning_rate))


class Step(NamedTuple):
    """A compiled step shared by the tests that differ in its arguments only.

    Attributes:
        update: ``(carry, learning_rate, rho, seed) -> carry``, the carry being
            parameters and state. It is donated, unused buffers as well: whatever
            shares a buffer is given away twice, which is an error.
        seen: of the last run, what the compiled program did: the counts at which each
            coefficient was read, and "loss" for every evaluation.
    """

    update: Callable[..., tuple[optax.Params, optax.OptState]]
    seen: dict[str, list[int]]


@functools.cache
def shared_step(name):
    seen = collections.defaultdict(list)

    def note(what, count):
        jax.debug.callback(lambda count: seen[what].append(int(count)), count)

    def outputs(params, batch):
        note("loss", 1)  # runs where the loss does
        return problems.network_outputs(params, batch)

    def schedule(key, value):
        def read(count):
            note(key, count)
            return jnp.asarray(value, jnp.float32)

        return read

    loss = problems.network_loss._replace(outputs=outputs)

    def step(params, state, batch, learning_rate, rho):
        values = schedulable(name) | {"rho": rho}
        schedules = {key: schedule(key, value) for key, value in values.items()}
        tx = optimizer(name, learning_rate, **schedules)
        return problems.make_step(tx, loss)(params, state, batch)

    params, batch, number = problems.network(), problems.batch(), jnp.float32(0)
    _, state = jax.eval_shape(lambda: start(name))
    jitted = jax.jit(step, donate_argnums=(0, 1), keep_unused=True)
    compiled = jitted.lower(params, state, batch, number, number).compile()

    def update(carry, learning_rate=0.1, rho=0.05, seed=1):
        numbers = jnp.float32(learning_rate), jnp.float32(rho)
        return compiled(*carry, problems.batch(seed=seed), *numbers)

    return Step(update, seen)


def start(name):
    """The first carry of the shared step: parameters and state of their own."""
    params = problems.network()
    schedules = dict.fromkeys(schedulable(name), jnp.float32)
    return params, optimizer(name, **schedules).init(params)


def run(name, steps, carry=None, **arguments):
    """The carry after some updates of the shared step."""
    update, seen = shared_step(name)
    seen.clear()
    carry = start(name) if carry is None else carry
    for _ in range(steps):
        carry = update(carry, **arguments)
    jax.effects_barrier()
    return carry


@jax.jit
def gradient_at(params):
    """The network's gradient, of the first batch."""
    return jax.grad(problems.network_loss)(params, problems.batch())


def schedulable(name):
    """The coefficients that may follow a schedule, with a number for each."""
    allowed = typing.get_args(optax.ScalarOrSchedule)
    numbers = {
        key: traits(name).settings.get(key, parameter.default)
        for key, parameter in parameters(name).items()
        if all(kind in typing.get_args(parameter.annotation) for kind in allowed)
        and key != "learning_rate"
    }
    return {key: x if np.isreal(x) else 0.5 for key, x in numbers.items()}


def numeric(name):
    """The names of all coefficients that are numbers."""
    return {
        key
        for key, parameter in parameters(name).items()
        if isinstance(parameter.default, (int, float))
        and not isinstance(parameter.default, bool)
    } | set(schedulable(name))


# ── Comparisons ──────────────────────────────────────────────────────────────────────


def to_numpy(x):
    typed_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if typed_key else x)


def assert_equal(actual, desired):
    """Same structure, same bits."""
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(to_numpy(x), to_numpy(y))


def assert_close(actual, desired, rtol):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        np.testing.assert_allclose(
            to_numpy(x),
            to_numpy(y),
            rtol=rtol,
            atol=rtol * np.max(np.abs(y), initial=1),
        )


def assert_finite(tree):
    for leaf in jax.tree.leaves(tree):
        assert np.isfinite(to_numpy(leaf)).all(), tree


def signature_of(tree):
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)
