"""Eigenvalues, density, trace, diagonal: against the whole matrix."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sam_jax import models, sharpness
from sam_jax.sharpness import products

MATRICES = {
    "hessian": sharpness.hessian_product,
    "gauss_newton": sharpness.gauss_newton_product,
}


@pytest.mark.parametrize("name", MATRICES)
def test_eigenvalues_and_vectors_are_those_of_the_matrix(network, name):
    exact = getattr(network, name)()
    values, vectors = np.linalg.eigh(exact)
    found = sharpness.top_eigenvalues(
        network.loss,
        network.params,
        k=4,
        batches=network.batches,
        product=MATRICES[name],
        tolerance=1e-9,
    )
    np.testing.assert_allclose(found.values, values[::-1][:4], rtol=1e-8)
    rows = np.stack(
        [
            ravel_pytree(jax.tree.map(lambda x, i=i: x[i], found.vectors))[0]
            for i in range(4)
        ]
    )
    np.testing.assert_allclose(rows @ rows.T, np.eye(4), atol=1e-10)
    np.testing.assert_allclose(
        np.abs(np.diag(rows @ vectors[:, ::-1][:, :4])), 1, atol=1e-8
    )
    assert found.products <= len(exact)
    assert np.all(found.residuals <= 1e-9 * np.abs(found.values))


def test_it_ends_when_the_residuals_are_small_and_they_are_the_true_ones(network):
    found = sharpness.top_eigenvalues(network.whole, network.params, tolerance=1e-2)
    vector = jax.tree.map(lambda x: x[0], found.vectors)
    image = sharpness.hessian_product(network.whole, network.params, vector)
    left = ravel_pytree(image)[0] - found.values[0] * ravel_pytree(vector)[0]
    assert found.products < 15
    np.testing.assert_allclose(np.linalg.norm(left), found.residuals[0], rtol=1e-6)
    cut = sharpness.top_eigenvalues(network.whole, network.params, k=2, steps=2)
    assert cut.products == 2 and cut.residuals[0] > 1e-2 * abs(cut.values[0])


def test_eigenvalues_that_are_equal_are_all_found():
    scale = jnp.array([2.0, 2.0, 2.0, 1.0, 0.0, 0.0])
    loss = lambda w: jnp.sum(scale * w**2) / 2  # noqa: E731
    found = sharpness.top_eigenvalues(loss, jnp.ones(6), k=6, tolerance=1e-12)
    np.testing.assert_allclose(found.values, scale, atol=1e-12)
    linear = sharpness.top_eigenvalues(jnp.sum, jnp.ones(3), k=2)
    np.testing.assert_array_equal(linear.values, 0)


def test_the_same_inside_of_jit_and_on_cut_parameters(network):
    run = functools.partial(
        sharpness.top_eigenvalues, network.whole, k=2, steps=23, tolerance=1e-9
    )
    host, traced = run(network.params), jax.jit(lambda p: run(p).values)
    np.testing.assert_allclose(traced(network.params), host.values, rtol=1e-8)
    mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,), devices=jax.devices()[:2])
    cut = jax.device_put(
        network.params,
        {
            k: NamedSharding(mesh, P("data") if len(v) % 2 == 0 else P())
            for k, v in network.params.items()
        },
    )
    np.testing.assert_allclose(run(cut).values, host.values, rtol=1e-8)


def test_the_basis_grows_beyond_its_first_room():
    scale = jnp.linspace(1, 2, 60)
    found = sharpness.top_eigenvalues(
        lambda w: jnp.sum(scale * w**2) / 2, jnp.ones(60), k=3, tolerance=1e-8
    )
    assert found.products > 32
    np.testing.assert_allclose(found.values, scale[::-1][:3], rtol=1e-10)


def test_density_of_all_steps_has_the_eigenvalues_as_nodes(network):
    values = np.linalg.eigvalsh(network.hessian())
    found = sharpness.density(network.whole, network.params, probes=2)
    for nodes in found.nodes:
        np.testing.assert_allclose(np.sort(nodes), values, atol=1e-7)
    np.testing.assert_allclose(found.weights.sum(1), 1)
    np.testing.assert_allclose(np.trapezoid(found.values, found.grid), 1, atol=1e-3)
    many = sharpness.density(network.whole, network.params, probes=40, steps=8)
    mean = (many.nodes * many.weights).sum(1)
    error = mean.std(ddof=1) / 40**0.5
    assert abs(mean.mean() - values.mean()) < 4 * error


def test_trace_norm_and_diagonal_within_their_errors(network):
    exact = network.hessian()
    keywords = {"batches": network.batches, "probes": 60}
    found = sharpness.trace(network.loss, network.params, **keywords)
    assert 0 < abs(found.value - np.trace(exact)) < 4 * found.standard_error
    norm = sharpness.frobenius_norm(network.loss, network.params, **keywords)
    assert 0 < abs(norm.value - np.linalg.norm(exact)) < 4 * norm.standard_error
    diagonal = sharpness.diagonal(network.loss, network.params, **keywords)
    off = ravel_pytree(diagonal.value)[0] - np.diag(exact)
    errors = ravel_pytree(diagonal.standard_error)[0]
    assert np.all(np.abs(off) <= 5 * errors + 1e-12) and np.any(off != 0)
    assert np.mean(np.abs(off) <= errors + 1e-12) > 0.4


def test_deflation_takes_the_large_eigenvalues_out_of_the_noise(network):
    plain = sharpness.trace(network.whole, network.params, probes=20)
    deflated = sharpness.trace(network.whole, network.params, probes=20, deflate=6)
    assert deflated.standard_error < plain.standard_error / 4
    exact = np.trace(network.hessian())
    assert abs(deflated.value - exact) < 4 * deflated.standard_error
    assert deflated.evaluations == 32
    # On all directions but one, nearly nothing is left to estimate.
    nearly = sharpness.trace(network.whole, network.params, probes=4, deflate=22)
    np.testing.assert_allclose(nearly.value, exact, rtol=1e-3)


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2)(x))
        return nn.Dense(3)(nn.relu(nn.Conv(4, (3, 3))(x)).mean((1, 2)))


@pytest.mark.slow("compiles Hessian products of networks")
@pytest.mark.parametrize("kind", ["resnet", "remat", "plain"])
def test_networks(kind):
    resnet = functools.partial(models.build, "wrn10_1", num_classes=3, width=2)
    made = {
        "resnet": resnet,
        "remat": functools.partial(resnet, remat=True),
        "plain": lambda: models.of_linen(Plain()),
    }[kind]()
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3), jnp.float32)
    params, rest = made.init(jax.random.key(0), x)
    loss = sharpness.Composed(
        lambda p: made.apply(p, rest, x, train=False)[0],
        lambda z: -jnp.mean(jax.nn.log_softmax(z)[:, 0]),
    )
    a, b = (
        jax.tree.map(
            lambda w, k=k: jax.random.normal(jax.random.key(k), w.shape, w.dtype),
            params,
        )
        for k in (2, 3)
    )
    dot = lambda u, v: ravel_pytree(u)[0] @ ravel_pytree(v)[0]  # noqa: E731
    for product in MATRICES.values():
        matrix = jax.jit(functools.partial(product, loss, params))
        np.testing.assert_allclose(dot(a, matrix(b)), dot(b, matrix(a)), rtol=1e-3)
    # Reverse over reverse is another way to the same product.
    again = jax.jit(jax.grad(lambda p: dot(jax.grad(loss)(p), a)))(params)
    product = dot(b, sharpness.hessian_product(loss, params, a))
    np.testing.assert_allclose(product, dot(b, again), rtol=1e-3)


BAD = {
    "k must be at most the 23 parameters, got 24": lambda n: sharpness.top_eigenvalues(
        n.whole, n.params, k=24
    ),
    "steps must be an integer >= 3": lambda n: sharpness.top_eigenvalues(
        n.whole, n.params, k=3, steps=2
    ),
    "batches are empty": lambda n: sharpness.trace(n.loss, n.params, batches=[]),
    "more than once": lambda n: sharpness.trace(
        n.loss, n.params, batches=iter(n.batches)
    ),
    "must be a scalar": lambda n: sharpness.density(
        lambda p, x: n.outputs(p, x), n.params, batches=n.batches
    ),
    "the loss is nan": lambda n: sharpness.diagonal(
        lambda p: n.whole(p) * jnp.nan, n.params
    ),
    "no arrays": lambda n: sharpness.trace(lambda p: jnp.zeros([]), {}),
    "fewer directions": lambda n: sharpness.trace(n.whole, n.params, deflate=23),
    "probes must be an integer >= 2": lambda n: sharpness.trace(
        n.whole, n.params, probes=1
    ),
    "Composed": lambda n: sharpness.top_eigenvalues(
        n.whole, n.params, product=sharpness.gauss_newton_product
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(network, message):
    with pytest.raises(ValueError, match=message):
        BAD[message](network)


def test_means_of_low_precision_are_summed_in_float32():
    with jax.enable_x64(False):
        batches = [jnp.ones((1, 1), jnp.bfloat16)] * 500
        mean = products.mean_over(batches, lambda w, x: w * x[0, 0])
        found = mean(jnp.ones(3, jnp.bfloat16))
        assert found.dtype == jnp.bfloat16
        np.testing.assert_array_equal(found, 1)
        big = [jnp.ones((3000, 1), jnp.float16)] * 2
        found = products.mean_over(big, lambda w, x: w)(jnp.full(2, 40, jnp.float16))
        np.testing.assert_array_equal(found, 40)
        # Signs give products of 3 and of -3 whose squares bfloat16 cannot hold.
        loss = lambda w: jnp.sum(jnp.array([3.1, 5.0]) * w**2) / 2  # noqa: E731
        diagonal = sharpness.diagonal(loss, jnp.ones(2, jnp.bfloat16), probes=400)
        np.testing.assert_allclose(diagonal.value, [3.1, 5.0], rtol=1e-2)


def test_a_batch_counts_by_its_examples(network):
    mean = products.mean_over(network.batches, network.loss)(network.params)
    np.testing.assert_allclose(mean, network.whole(network.params), rtol=1e-12)
