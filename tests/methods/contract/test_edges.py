"""Extreme numbers: gradients, coefficients, rates."""

import jax
import jax.numpy as jnp
import pytest

import sam_jax
from sam_jax import methods
from tests.methods import problems
from tests.methods.contract import cases
from tests.methods.contract.cases import every_method
from tests.methods.traits import traits


# The inverse of the norm is no normal number in float32; "unused" is known to be zero
# when the program is compiled.
@pytest.mark.parametrize("dtype, huge", [(jnp.float32, 5e37), (jnp.float16, 6e4)])
@every_method()
def test_zero_and_huge_gradients_give_finite_updates(name, dtype, huge):
    tx = cases.method(name)
    params = {
        "matrix": jnp.ones((3, 2), dtype),
        "scalar": jnp.ones([], dtype),
        "empty": jnp.ones((0, 4), dtype),
        "unused": jnp.zeros([], dtype),
    }
    zero = jax.tree.map(jnp.zeros_like, params)
    large = {**params, "matrix": jnp.full((3, 2), huge, dtype)}

    @jax.jit
    def update(grads, state):
        grads = grads | {"unused": jnp.zeros([], dtype)}
        return tx.update(
            grads,
            state,
            params,
            grad_fn=lambda params: grads,
            value_and_grad_fn=lambda params: (jnp.zeros([], dtype), grads),
            value=jnp.zeros([], dtype),
            num_examples=1000,
            example_losses=jnp.zeros(4, dtype),
            example_losses_fn=lambda params: jnp.zeros(4, dtype),
            subset_grad_fn=lambda params, rows: grads,
            functional_value_and_grad_fn=lambda params: (jnp.zeros([], dtype), grads),
        )

    state = tx.init(params)
    for grads in (zero, large, zero, params):
        updates, state = update(grads, state)
        cases.assert_finite(updates)
        assert cases.signature_of(updates) == cases.signature_of(params)
    for _ in range(2):  # what it tells may be of the gradient of the update before
        _, state = update(large, state)
    # The diagnostics are no excuse: the norm of the huge gradient is finite as well.
    seen = sam_jax.diagnostics(state)
    cases.assert_finite(seen)
    assert seen["grad_norm"] == pytest.approx(float(huge) * 6**0.5, rel=1e-2)


@every_method()
def test_learning_rate_zero_leaves_params_unchanged(name):
    params, state = cases.run(name, 3, learning_rate=0.0)
    evaluated = methods.eval_params(name)
    if evaluated is None:
        cases.assert_equal(params, problems.network())
    else:  # it holds other weights, and gives these back up to rounding
        cases.assert_close(evaluated(state, params), problems.network(), rtol=1e-6)


@every_method()
def test_bad_coefficients_are_refused_at_construction(name):
    for value in (-1, float("nan"), float("inf"), "?", [0.1]):
        for key in sorted(cases.numeric(name) - traits(name).any_value):
            with pytest.raises(ValueError, match=rf"{key} must be .*, got "):
                cases.optimizer(name, **{key: value})
