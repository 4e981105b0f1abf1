"""Cadences around what is wrapped, silent or averages: states in skipped updates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax


@pytest.mark.parametrize(
    "average",
    [
        optax.ema(0.9),
        optax.scale_by_adam(),
        optax.scale_by_amsgrad(),
        optax.scale_by_belief(),
        optax.scale_by_rms(bias_correction=True),
        optax.scale_by_novograd(),
    ],
)
def test_the_count_of_an_average_stands_still_with_it(average):
    """With one and the same gradient it is used as if no update had been skipped."""
    ascent = sam_jax.sharpness_aware(average)
    params, grads = jnp.zeros(2), jnp.array([1.0, 2.0])

    def directions(tx, updates):
        state = tx.init(params)
        with jax.numpy_dtype_promotion("standard"):
            for _ in range(updates):
                found, state = tx.update(grads, state, params, grad_fn=lambda w: w)
                yield found

    every_third = list(directions(sam_jax.every_k(ascent, 3), 7))[::3]
    np.testing.assert_allclose(every_third, list(directions(ascent, 3)), rtol=1e-6)


@pytest.mark.parametrize("values", [{}, {"value_and_grad_fn": lambda w: (w @ w, w)}])
def test_a_silent_method_stays_silent(values):
    tx = sam_jax.every_k(sam_jax.without_diagnostics(sam_jax.sam(0.5)), 2)
    params, state = jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2))
    for expected in ([3.3, 4.4], [3.0, 4.0], [3.3, 4.4]):
        found, after = tx.update(
            params, state, params, **({"grad_fn": lambda w: w} | values)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        state = after


def test_a_bound_gradient_function_is_taken():
    bound = sam_jax.with_grad_fn(sam_jax.sam(0.5), lambda w, key=2.0: key * w)
    params = jnp.array([3.0, 4.0])
    for tx, given in (
        (sam_jax.every_k(bound, 2), {}),
        (bound, {"grad_fn": lambda w: 0 * w}),
    ):
        found, _ = tx.update(params, tx.init(params), params, **given)
        np.testing.assert_allclose(found, [6.6, 8.8], rtol=1e-6)
