"""In low precision: numbers that stay finite."""

import jax
import jax.numpy as jnp
import pytest

from tests.methods import problems
from tests.methods.contract import cases
from tests.methods.contract.cases import every_method


# What is special to low precision is seen at the edges of its range as well.
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@every_method("sam", "bsam")
def test_descends_in_low_precision(name, dtype):
    tx, params = cases.optimizer(name, 0.02), problems.network(dtype)
    batch = problems.batch(dtype)
    after, state = problems.train(tx, problems.network_loss, params, (batch,), steps=20)
    cases.assert_finite((after, state))
    assert problems.network_loss(after, batch) < problems.network_loss(params, batch)


@every_method("sam", "vasso", "looksam")
def test_low_precision_weights_are_given_finite_directions(name):
    update, state = cases.mixed_precision(cases.of(name))
    with jax.numpy_dtype_promotion("standard"), jax.disable_jit():
        for _ in range(3):
            directions, state = update(state)
            cases.assert_finite(directions)
