import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

# At rho = 0 half of the examples are still left out, so no base remains. An update
# takes a gradient, a forward pass (three of its eight matrix products) and half a
# gradient.
TRAITS = Traits(
    base=None,
    calls=5 * 3,
    flops=1 + 3 / 8 + 1 / 2,
    needs=(
        "params",
        "grad_fn",
        "example_losses",
        "example_losses_fn",
        "subset_grad_fn",
    ),
    examples=True,
)

# Example i has the loss x_i w**2 / 2, which grows with x_i from w to w + e.
rows_loss = problems.Supervised(
    lambda w, rows: w, lambda w, rows: rows * jnp.square(w) / 2
)


def direction(tx, w, rows, **changed):
    call = problems.keywords(rows_loss, w, rows) | changed
    return tx.update(call["grad_fn"](w), tx.init(w), w, **call)


@pytest.mark.usefixtures("float64")
def test_descends_on_the_most_sensitive_examples():
    rows = jnp.array([1.0, 6.0, 2.0, 5.0, 3.0])
    tx = sam_jax.esam(0.5, beta=1.0, gamma=0.4)
    d, state = direction(tx, jnp.array(2.0), rows)
    assert d == pytest.approx((6 + 5) / 2 * 2.5, rel=1e-14)
    # The loss it tells is that of the whole batch.
    seen = sam_jax.diagnostics(state)
    assert seen["perturbed_loss"] == pytest.approx(17 / 5 * 2.5**2 / 2)
    assert seen["perturbation_norm"] == pytest.approx(0.5)
    # The value may have a decay that the losses of examples do not.
    _, state = direction(tx, jnp.array(2.0), rows, value=jnp.array(100.0))
    rise = 17 / 5 * (2.5**2 - 2**2) / 2
    assert sam_jax.diagnostics(state)["perturbed_loss"] == pytest.approx(100 + rise)


@pytest.mark.parametrize("gamma, size", [(0.5, 4), (0.9, 7), (0.01, 1), (0.999, 8)])
def test_selects_by_count_whatever_the_ties(gamma, size):
    selected = []

    def subset_grad_fn(w, rows):
        assert rows.dtype == jnp.int32
        selected.append(rows)
        return w

    tx = sam_jax.esam(gamma=gamma)
    direction(tx, jnp.array(1.0), jnp.ones(8), subset_grad_fn=subset_grad_fn)
    [rows] = selected
    assert rows.shape == (size,) and len(set(rows.tolist())) == size


@pytest.mark.usefixtures("float64")
def test_perturbs_random_coordinates_with_sams_mean():
    g = jnp.asarray(np.random.default_rng(0).normal(size=(50, 80)))
    rho, beta = 0.5, 0.25
    whole = rho * np.asarray(g) / np.linalg.norm(g)

    def displacement(key):  # at weights of zero, whose gradient they are
        tx, zero = sam_jax.esam(rho, beta=beta, gamma=1.0), jnp.zeros_like(g)
        return tx.update(g, tx.init(g), zero, grad_fn=lambda w: w, key=key)[0]

    every = jax.jit(jax.vmap(displacement))(jax.random.split(jax.random.key(0), 200))
    e = np.asarray(every[0])
    moved = e != 0
    np.testing.assert_allclose(e[moved], whole[moved] / beta, rtol=1e-14)
    assert moved.mean() == pytest.approx(beta, abs=0.03)  # 4 standard deviations
    along = np.sum(np.mean(every, axis=0) * whole) / np.sum(whole**2)
    assert along == pytest.approx(1, abs=0.02)
    assert ((every[1] != 0) != moved).mean() > 0.3


def test_a_whole_batch_needs_no_losses_of_examples():
    tx, w = sam_jax.esam(gamma=1.0), jnp.ones(3)
    d, _ = tx.update(w, tx.init(w), w, grad_fn=lambda w: w)
    assert (d >= 1).all()
