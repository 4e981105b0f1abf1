import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

TRAITS = Traits(any_value=frozenset({"p"}))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("form", [{}, {"p": math.inf}, {"layerwise": True}], ids=str)
def test_scaling_between_layers_scales_the_perturbation_with_it(form):
    # x -> b relu(a x) does not change if a is doubled and b halved.
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(8, 3))), jnp.asarray(rng.normal(size=(8, 2)))

    def loss(params):
        hidden = jax.nn.relu(x @ params["a"])
        return jnp.mean(jnp.square(hidden @ params["b"] - y))

    def perturbation(direction, params):
        grads = jax.grad(loss)(params)
        moved = problems.perturbed_params(
            direction, grads, direction.init(params), params
        )
        return jax.tree.map(jnp.subtract, moved, params)

    one = {
        "a": jnp.asarray(rng.normal(size=(3, 4))),
        "b": jnp.asarray(rng.normal(size=(4, 2))),
    }
    two = {"a": one["a"] * 2, "b": one["b"] / 2}
    adaptive = sam_jax.asam(0.1, eta=0.0, **form)
    before, after = (perturbation(adaptive, params) for params in (one, two))
    np.testing.assert_allclose(after["a"], before["a"] * 2, rtol=1e-10)
    np.testing.assert_allclose(after["b"], before["b"] / 2, rtol=1e-10)
    plain = [perturbation(sam_jax.sam(0.1), params)["a"] for params in (one, two)]
    assert not np.allclose(plain[1], plain[0] * 2, rtol=0.1)


def test_half_precision_does_not_overflow_between_the_factors():
    # |w| g = 1.2e5 does not fit into float16, the displacement does.
    params = {"kernel": jnp.full((2, 2), 2.0, jnp.float16)}
    grads = {"kernel": jnp.full((2, 2), 6e4, jnp.float16)}
    for form in ({}, {"p": math.inf}, {"layerwise": True}):
        tx = sam_jax.asam(0.5, eta=0.0, **form)
        moved = problems.perturbed_params(tx, grads, tx.init(params), params)
        # 0.5 T^2 g / |T g| is 0.5 * 2 / 2, resp. 0.5 * 4 / 2; 0.5 T sign g is 0.5 * 2.
        expected = 2 + (0.5 if form == {} else 1.0)
        np.testing.assert_array_equal(moved["kernel"], np.full((2, 2), expected))
