import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

# Five products with the Hessian in the first update, each of more than two gradients
# before the compiler shares what they have in common; that update is counted.
TRAITS = Traits(calls=15, flops=13.27)

CURVATURES = np.array([1.0, -2.0, 8.0])


@pytest.mark.usefixtures("float64")
def test_finds_the_eigenvector_of_a_network():
    params, batch = problems.network(jnp.float64), problems.batch(jnp.float64)
    flat, restore = jax.flatten_util.ravel_pytree(params)
    hessian = jax.hessian(lambda x: problems.network_loss(restore(x), batch))(flat)
    values, vectors = np.linalg.eigh(hessian)
    top = vectors[:, np.argmax(np.abs(values))]
    tx = sam_jax.eigen_sam(power_steps=200)
    call = problems.gradients(problems.network_loss, batch)
    grads, state = call["grad_fn"](params), tx.init(params)
    state = jax.jit(lambda grads: tx.update(grads, state, params, **call)[1])(grads)
    found, _ = jax.flatten_util.ravel_pytree(state.ascent[0].eigenvector)
    assert abs(float(found @ top)) == pytest.approx(1, abs=1e-6)


@pytest.mark.usefixtures("float64")
def test_goes_on_from_the_last_eigenvector():
    # One step of the power iteration in each update: after ten the ratio of the others
    # to the top has fallen by 4^-10, which a new start every time would not give.
    tx = sam_jax.eigen_sam(every=1, power_steps=1)
    loss, w = problems.quadratic(np.diag(CURVATURES)), jnp.ones(3)
    call, state = problems.gradients(loss), tx.init(w)
    update = jax.jit(lambda state: tx.update(call["grad_fn"](w), state, w, **call)[1])
    for _ in range(10):
        state = update(state)
    vector = np.asarray(state.ascent[0].eigenvector)
    assert np.linalg.norm(vector) == pytest.approx(1)
    assert 1e-12 < np.abs(vector[:2]).max() < 1e-4


@pytest.mark.parametrize("every, products", [(1, 12), (3, 6)])
def test_products_with_the_hessian_only_where_they_are_due(every, products):
    tx = sam_jax.eigen_sam(every=every, power_steps=3)
    assert sum(problems.evaluations(tx, 4)) == 4 * 2 + products


def test_is_renewed_in_time_where_updates_are_skipped():
    # Used in updates 0, 3 and 6 only; due from 2 and from 4 on.
    tx = sam_jax.every_k(sam_jax.eigen_sam(every=2, power_steps=40), k=3)
    matrices = np.array([[9.0, 0.5], [0.5, 1.0]]), np.array([[1.0, 0.5], [0.5, 9.0]])
    w = jnp.ones(2)
    state = tx.init(w)
    for count, top in enumerate([0, 0, 0, 1, 1]):
        loss = problems.quadratic(matrices[top])
        call = problems.keywords(loss, w)
        _, state = tx.update(call["grad_fn"](w), state, w, **call)
        vector = np.abs(state.method.ascent[0].eigenvector)
        assert vector[top] > 0.99, count


@pytest.mark.usefixtures("float64")
def test_under_a_mask_the_hessian_is_that_of_the_parameters_kept():
    # The top eigenvector of all lies in "b", that of "a" alone is its second axis.
    def loss(tree):
        a, b = tree["a"], tree["b"]
        return a[0] ** 2 + 4 * a[1] ** 2 + 100 * jnp.sum(b**2) + a[0] * b[0]

    params = {"a": jnp.ones(2), "b": jnp.ones(1)}
    tx = sam_jax.eigen_sam(power_steps=40, mask={"a": True, "b": False})
    call = problems.gradients(loss)
    _, state = tx.update(call["grad_fn"](params), tx.init(params), params, **call)
    [vector] = jax.tree.leaves(state.ascent[0].eigenvector)
    np.testing.assert_allclose(np.abs(vector), [0, 1], atol=1e-8)


def test_is_sam_on_a_loss_without_curvature():
    tx, w = sam_jax.eigen_sam(0.5, every=1), jnp.zeros(2)
    grads, state = jnp.array([3.0, 4.0]), tx.init(w)
    for _ in range(2):
        moved = problems.perturbed_params(tx, grads, state, w)
        _, state = tx.update(grads, state, w, grad_fn=lambda w: grads)
        np.testing.assert_allclose(moved, [0.3, 0.4], rtol=1e-6)
