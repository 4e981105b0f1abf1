import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits, sgd

# At rho = 0 the gradients at x and y are mixed again: with lam = 0 only x's is left.
TRAITS = Traits(exact=False, at_base={"lam": 0.0}, settings={"rho": 0.05})


def test_its_own_gradient_is_for_the_next_update():
    # So that it can be taken beside the caller's next one.
    tx, y = sam_jax.sampa(0.1, 0.5), jnp.array([1.0, -2.0])
    call = {"grad_fn": lambda w: w}
    unknown = {"grad_fn": lambda w: w * jnp.nan}
    expected, state = tx.update(y, tx.init(y), y, **call)
    updates, later = tx.update(y, tx.init(y), y, **unknown)
    np.testing.assert_array_equal(updates, expected)
    later = later._replace(perturbed_grads=state.perturbed_grads)
    y = y + updates
    for one, two in zip(
        tx.update(y, state, y, **call)[0],
        tx.update(y, later, y, **unknown)[0],
        strict=True,
    ):
        assert one == two


def test_both_steps_are_of_the_base():
    # The step to y sees the momentum and the decay of x's, and leaves no trace.
    tx = sam_jax.sampa(
        0.1,
        0.0,
        base=lambda rate: optax.chain(optax.add_decayed_weights(0.5), sgd(rate)),
    )
    y, gradient = jnp.array([1.0]), jnp.array([2.0])
    updates, state = tx.update(gradient, tx.init(y), y, grad_fn=lambda w: gradient)
    x, v = 1 - 0.1 * 2.5, 2.5
    y = optax.apply_updates(y, updates)
    np.testing.assert_allclose(sam_jax.sampa_eval_params(state, y), x, rtol=1e-6)
    np.testing.assert_allclose(y, x - 0.1 * (0.9 * v + 2 + 0.5 * x), rtol=1e-6)
    [trace] = jax.tree.leaves(optax.tree.get(state.base, "trace"))
    np.testing.assert_allclose(trace, v, rtol=1e-6)


def test_eval_params_refuses_other_states():
    params = problems.network()
    with pytest.raises(ValueError, match="needs the state of one sampa, got 0"):
        sam_jax.sampa_eval_params(optax.sgd(0.1).init(params), params)
