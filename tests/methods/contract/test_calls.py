"""How a method is called: its keywords, and how many gradients an update takes."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import pytest

from sam_jax import methods
from tests.methods import problems
from tests.methods.contract import cases
from tests.methods.contract.cases import every_method
from tests.methods.traits import sgd, traits

NUMBERS = {"No": 0, "One": 1, "Two": 2, "Three": 3, "Four": 4}


def documented_gradients(name):
    doc = inspect.getdoc(methods.factory(name))
    found = re.search(rf"\b({'|'.join(NUMBERS)}) gradients? per update", doc)
    assert found, "the docstring says 'Two gradients per update', or how many it takes"
    return NUMBERS[found[1]]


@every_method()
def test_number_of_gradients_is_the_documented_one(name):
    cases.run(name, 5)
    taken = len(cases.of(name).step.seen["loss"])
    documented = documented_gradients(name)
    assert taken == (traits(name).calls or 5 * documented), (
        f"five updates evaluated the loss {taken} times, the caller's own included; "
        f"the docstring says {documented} gradients per update. Where an update skips "
        f"some or adds some, TRAITS in test_{name}.py says Traits(calls={taken})"
    )


def test_the_callers_own_error_is_kept():
    """One array may be all that there is, or what `optax.flatten` makes of a tree."""

    def empty(weights):
        raise ValueError("my batch is empty")

    tx, w = cases.method("sam"), jnp.ones(3)
    with pytest.raises(ValueError, match=r"^my batch is empty\nIf optax.flatten made"):
        tx.update(w, tx.init(w), w, grad_fn=empty)


def flops(tx):
    """Of an update of a network whose work is nearly all in matrix products."""
    params = dict.fromkeys("abc", jax.ShapeDtypeStruct((256, 256), jnp.float32))
    inputs = jax.ShapeDtypeStruct((2048, 256), jnp.float32)
    loss = problems.Supervised(
        lambda params, inputs: inputs @ params["a"] @ params["b"] @ params["c"],
        lambda outputs, inputs: jnp.sum(jnp.square(outputs), axis=1),
    )
    step = jax.jit(problems.make_step(tx, loss))
    state = jax.eval_shape(tx.init, params)
    return step.lower(params, state, inputs).cost_analysis()["flops"]


@functools.cache
def flops_of_sgd():
    return flops(sgd(0.1))


@every_method()
def test_flops_are_those_of_the_documented_gradients(name):
    ratio = flops(cases.optimizer(name)) / flops_of_sgd()
    documented = documented_gradients(name)
    assert ratio == pytest.approx(traits(name).flops or documented, rel=0.01), (
        f"an update costs {ratio:.2f} gradients, the docstring says {documented}. "
        f"Where that is meant, TRAITS in test_{name}.py says Traits(flops={ratio:.2f})"
    )
