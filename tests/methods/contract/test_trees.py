"""What trees of parameters and gradients may be, and what is said of others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax
from sam_jax import checks
from tests.methods.contract import cases
from tests.methods.contract.cases import every_method

PARAMS = {"w": jnp.arange(1.0, 5.0), "b": jnp.float32(0.5)}


def loss(params):
    return jnp.sum(params["w"] ** 2 / 3) + params["b"] ** 2


def keywords(params):
    """What any method may ask for, of a loss that is not a mean over examples."""
    return {
        "grad_fn": jax.grad(loss),
        "value": loss(params),
        "num_examples": 1000,
        "example_losses": jnp.zeros(4),
        "example_losses_fn": lambda params: jnp.zeros(4),
        "subset_grad_fn": lambda params, rows: jax.grad(loss)(params),
        "functional_value_and_grad_fn": jax.value_and_grad(loss),
        "class_shares": jnp.full(4, 0.25),
        "weighted_value_and_grad_fn": lambda p, _: jax.value_and_grad(loss)(p),
    }


def update(name, params, grads, **others):
    tx = cases.method(name)
    given = keywords(params) | others
    if name == "sam_sps":
        given |= {"value_and_grad_fn": jax.value_and_grad(loss)} | others
    return tx.update(grads, tx.init(params), params, **given)


@every_method()
def test_complex_and_integer_leaves_are_refused_by_name(name):
    tx = cases.method(name)
    for leaf, kind in ((jnp.ones(2, complex), "complex64"), (jnp.arange(2), "int32")):
        with pytest.raises(checks.BadValue, match=rf"\['bad'\]\W+is of {kind}; .*out"):
            tx.init({**PARAMS, "bad": leaf})


@every_method("sam", "vasso", "looksam", "momentum_sam")
def test_python_and_numpy_numbers_do_as_arrays(name):
    arrays = {"w": jnp.float32(2.0), "b": jnp.float32(0.5)}
    expected, _ = update(name, arrays, jax.grad(loss)(arrays))
    for same in (
        {"w": 2.0, "b": 0.5},
        {"w": np.float32(2.0), "b": np.asarray(0.5, np.float32)},
    ):
        found, _ = update(name, same, jax.grad(loss)(arrays))
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@every_method()
def test_a_gradient_of_another_form_is_named_by_its_leaf(name):
    good = jax.grad(loss)(PARAMS)
    for bad, words in (
        ({**good, "w": jnp.ones(3)}, r"\['w'\].*\(4,\).*\(3,\)"),
        ({"w": good["w"]}, r"\['b'\].*nothing"),
        ({**good, "w": jnp.ones(4, int)}, r"\['w'\]\W+is of int32"),
    ):
        with pytest.raises(ValueError, match=words) as raised:
            update(name, PARAMS, bad)
        assert "\n" not in str(raised.value)


GRADS = jax.grad(loss)(PARAMS)


@pytest.mark.parametrize(
    ("functions", "words"),
    [
        ({"grad_fn": jax.value_and_grad(loss)}, "value_and_grad_fn"),
        ({"grad_fn": lambda p: (GRADS, "aux")}, "has_aux"),
        ({"grad_fn": GRADS}, "functions of the parameters, got a dict"),
        ({"grad_fn": lambda p, batch: GRADS}, "is called with 1 argument"),
        ({"grad_fn": lambda p: {"w": GRADS["w"]}}, "nothing"),
        ({"value_and_grad_fn": jax.grad(loss)}, "grads"),
        ({"value_and_grad_fn": lambda p: ((1.0, "aux"), GRADS)}, "must be a scalar"),
        ({"value_and_grad_fn": lambda p: (jnp.ones(2), GRADS)}, "must be a scalar"),
        ({"value": jnp.ones(2)}, "must be a scalar"),
    ],
)
def test_wrong_functions_are_one_sentence(functions, words):
    with pytest.raises(ValueError, match=words) as raised:
        update("sam", PARAMS, GRADS, **functions)
    assert "\n" not in str(raised.value)


def test_a_mistake_inside_the_function_is_the_callers():
    def fails(params):
        raise TypeError("of the caller")

    with pytest.raises(TypeError, match="of the caller"):
        update("sam", PARAMS, GRADS, grad_fn=fails)


# ── Diagnostics ──────────────────────────────────────────────────────────────────────


@every_method("sam", "looksam", "async_sam", "momentum_sam")
@pytest.mark.parametrize("jitted", [False, True])
def test_a_loss_that_is_not_measured_is_not_told(name, jitted):
    tx = cases.method(name)
    given = keywords(PARAMS)
    del given["value"], given["functional_value_and_grad_fn"]
    if name in ("functional_sam", "sam_sps", "esam"):
        pytest.skip("needs a loss")

    def step(state):
        _, state = tx.update(GRADS, state, PARAMS, **given)
        return state, sam_jax.diagnostics(state)

    step = jax.jit(step) if jitted else step
    state = tx.init(PARAMS)
    for _ in range(3):
        state, inside = step(state)
        for seen in (inside, sam_jax.diagnostics(state)):
            assert "perturbed_loss" not in seen
            assert {"grad_norm", "perturbation_norm"} <= seen.keys()
            cases.assert_finite(seen)


def test_the_loss_is_told_again_once_it_is_measured():
    tx = sam_jax.every_k(sam_jax.sam(0.1), k=2)
    pair = jax.value_and_grad(loss)
    state = tx.init(PARAMS)
    for functions, measured in (
        ({"grad_fn": jax.grad(loss)}, False),
        ({"value_and_grad_fn": pair, "value": loss(PARAMS)}, True),
        ({"value_and_grad_fn": pair}, True),
        ({"value_and_grad_fn": pair}, False),  # not where the method is left out
    ):
        _, state = tx.update(GRADS, state, PARAMS, **functions)
        assert ("perturbed_loss" in sam_jax.diagnostics(state)) == measured


@every_method("sam", "vasso", "looksam", "momentum_sam")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_the_norm_is_of_what_was_added(name, dtype):
    # At 1000 a step of either type is more than the radius: nothing is added.
    params = {"w": jnp.full(4, 1000.0, dtype), "b": jnp.asarray(1000.0, dtype)}
    grads = jax.tree.map(jnp.ones_like, params)
    tx = cases.method(name, learning_rate=0.0, rho=1e-3)
    given = keywords(PARAMS) | {"grad_fn": lambda p: grads}
    given["value_and_grad_fn"] = lambda p: (jnp.float32(0), grads)
    given["functional_value_and_grad_fn"] = lambda p: (jnp.float32(0), grads)
    given["subset_grad_fn"] = lambda p, rows: grads
    given["weighted_value_and_grad_fn"] = lambda p, _: (jnp.float32(0), grads)
    if name in ("asam", "fisher_sam"):
        pytest.skip("perturbs in proportion to the weights")
    state = tx.init(params)
    for _ in range(2):
        _, state = tx.update(grads, state, params, **given)
    assert float(sam_jax.diagnostics(state)["perturbation_norm"]) == 0.0
