"""SAM's own step, the edge of its stability, normalized logits, compiled losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax
from sam_jax import models, sharpness
from sam_jax.sharpness import products


def test_the_step_is_that_of_the_method(network):
    found = sharpness.ascent_step(
        network.loss, network.params, 0.1, batches=network.batches
    )
    value_and_grad = jax.value_and_grad(network.whole)
    loss, grads = value_and_grad(network.params)
    tx = sam_jax.sam(0.1)
    _, state = tx.update(
        grads, tx.init(network.params), network.params, value_and_grad_fn=value_and_grad
    )
    seen = sam_jax.diagnostics(state)
    told = (found.value + loss, *found[1:4])
    names = ("perturbed_loss", "grad_norm", "perturbation_norm", "gradient_cosine")
    np.testing.assert_allclose(told, [seen[name] for name in names], rtol=1e-6)


def test_a_parabola_at_the_edge_stays_in_a_cycle_of_two():
    """Of it the edge is exact: the gradient is that between the two points."""
    rate, rho, curvature = 0.1, 0.5, 12.0
    # w = rate * curvature / (2 - rate * curvature) * rho is taken to -w.
    place = rate * curvature * rho / (2 - rate * curvature)
    assert place == pytest.approx(rate * curvature * (place + rho) - place)
    edge = sharpness.sam_edge(curvature * place, rate, rho)
    assert edge == pytest.approx(curvature)


def test_the_edge_of_gradient_descent_is_its_limit():
    assert sharpness.sam_edge(3.0, 0.1, 0.0) == 20
    assert sharpness.sam_edge(3.0, 0.1, 1e-9) == pytest.approx(20, rel=1e-6)
    assert sharpness.sam_edge(0.0, 0.1, 0.1) == 0
    with pytest.raises(ValueError, match="learning_rate must be a finite number > 0"):
        sharpness.sam_edge(1.0, 0.0, 0.1)


def test_normalized_logits_do_not_see_their_size():
    logits = jax.random.normal(jax.random.key(0), (5, 3))
    found = sharpness.normalized_logits(logits)
    np.testing.assert_allclose(found, sharpness.normalized_logits(7 * logits + 2))
    np.testing.assert_allclose(jnp.sum(found**2, -1), 1)
    np.testing.assert_allclose(found.sum(-1), 0, atol=1e-12)
    flat = jax.jacobian(sharpness.normalized_logits)(jnp.ones(3))
    assert np.all(np.isfinite(flat))


def test_a_compiled_loss_is_traced_once(network):
    traced = []

    def outputs(params, x):
        traced.append(1)
        return network.outputs(params, x)

    loss = sharpness.Compiled(sharpness.Composed(outputs, network.of_outputs))
    counts = []
    for shift in (0.0, 0.1):
        params = jax.tree.map(lambda w, shift=shift: w + shift, network.params)
        sharpness.top_eigenvalues(loss, params, batches=network.batches)
        found = sharpness.trace(loss, params, batches=network.batches, probes=2)
        counts.append(len(traced))
    assert counts[0] == counts[1] > 0
    fresh = sharpness.Compiled(loss.loss)
    again = sharpness.trace(fresh, params, batches=network.batches, probes=2)
    assert again.value == found.value


def test_a_later_batch_that_is_not_finite_is_refused(network):
    batches = [network.x[:6], network.x[6:] * jnp.nan]
    with pytest.raises(ValueError, match="the loss is nan"):
        sharpness.ascent_step(network.loss, network.params, 0.1, batches=batches)
    # Finite, and bent beyond all numbers.
    with pytest.raises(ValueError, match="a product of the matrix is "):
        sharpness.top_eigenvalues(lambda w: jnp.sum(jnp.sqrt(w)), jnp.zeros(2))


def cost(function, *args):
    """Operations and temporary bytes, as the compiler counts them."""
    compiled = jax.jit(function).lower(*args).compile()
    memory = compiled.memory_analysis().temp_size_in_bytes
    return np.array([compiled.cost_analysis()["flops"], memory])


@pytest.mark.slow("compiles networks with all optimizations")
@pytest.mark.parametrize("remat", [False, True])
def test_what_a_product_costs_in_gradients(remat):
    """At most 8/3 of the operations, and three times the memory.

    Each of the three products of a layer has two tangents, and the gradient of the
    weights itself is not needed: (2 + 6) / 3.
    """
    jax.config.update("jax_disable_most_optimizations", False)
    model = models.build("wrn10_1", num_classes=10, remat=remat)
    images = jax.ShapeDtypeStruct((64, 32, 32, 3), jnp.float32)
    params, state = jax.eval_shape(model.init, jax.random.key(0), images)

    def loss(params, state, images):
        logits, _ = model.apply(params, state, images, train=False)
        return -jnp.mean(jax.nn.log_softmax(logits)[:, 0])

    def product(vector, params, *batch):
        return products.hessian_product(loss, params, vector, *batch)

    gradient = cost(jax.grad(loss), params, state, images)
    flops, memory = cost(product, params, params, state, images) / gradient
    assert flops <= 2.8 and memory <= 3
