"""Rematerialized networks: the same numbers, less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import models
from sam_jax.models import layers, preact

QUICK = (
    ("resnet_digits", {}),
    ("wrn10_1", {"dropout": 0.5}),
    ("vit_ti4", {"dropout": 0.5, "depth": 2}),
)


@functools.cache
def networks(name, **settings):
    """A network as it is and rematerialized, with parameters and state of the first."""
    build = functools.partial(
        models.build, name, num_classes=5, **({"width": 4} | settings)
    )
    plain = build()
    params, state = jax.jit(plain.init)(jax.random.key(0), images())
    return plain, build(remat=True), params, state


def images(batch=8, side=8):
    return jax.random.normal(jax.random.key(7), (batch, side, side, 3))


def loss(model, params, state, images):
    logits, state = model.apply(
        params, state, images, train=True, key=jax.random.key(3)
    )
    return -jnp.mean(jax.nn.log_softmax(logits)[:, 0]), (logits, state)


def assert_close(a, b, rtol=1e-5, floor=1e-3):
    """Each leaf within rounding of its largest element."""

    def close(x, y):
        scale = np.abs(y).max() + floor
        np.testing.assert_allclose(x, y, rtol=0, atol=rtol * scale)

    jax.tree.map(close, a, b)


@pytest.mark.parametrize(("name", "options"), QUICK)
def test_parameters_are_the_same_so_that_a_checkpoint_fits(name, options):
    _, remat, params, state = networks(name, **options)
    found = jax.eval_shape(remat.init, jax.random.key(0), images())
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, (params, state))


@pytest.mark.parametrize(
    ("name", "options", "wrap"),
    [
        ("wrn10_1", {"dropout": 0.5}, "alone"),
        ("vit_ti4", {"dropout": 0.5, "depth": 2}, "alone"),
        ("resnet_digits", {}, "cond"),
    ],
)
def test_loss_statistics_and_gradient_are_the_same(name, options, wrap):
    # Dropout and the gradient of the convolutions are written by hand; both included.
    *both, params, state = networks(name, **options)

    def results(model):
        gradient = jax.value_and_grad(functools.partial(loss, model), has_aux=True)

        def in_cond(params, state, images):
            return jax.lax.cond(
                images[0, 0, 0, 0] > -1e3,
                gradient,
                lambda *args: jax.tree.map(jnp.zeros_like, gradient(*args)),
                *(params, state, images),
            )

        call = {"alone": gradient, "cond": in_cond}[wrap]
        return jax.jit(call)(params, state, images())

    plain, remat = map(results, both)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(plain[1])) > 0.01
    # The bias of attention's keys has no gradient in exact numbers, only rounding.
    assert_close(remat, plain, floor=1e-2 if name.startswith("vit") else 1e-3)


def test_hessian_vector_products_are_the_same():
    def product(remat):
        make = layers.Layers("float32", remat=remat)
        network = preact.PreActResNet((1,), 5, 4, 4, make)
        variables = network.init(jax.random.key(0), images(), train=False)

        def gradient(variables):
            def loss(variables):
                logits, _ = network.apply(
                    variables, images(), train=True, mutable=["batch_stats"]
                )
                return -jnp.mean(jax.nn.log_softmax(logits)[:, 0])

            return jax.grad(loss)(variables)["params"]

        direction = jax.tree.map(jnp.ones_like, variables)
        return jax.jvp(gradient, (variables,), (direction,))[1]

    plain, remat = (jax.jit(product, static_argnums=0)(x) for x in (False, True))
    assert_close(remat, plain, rtol=1e-4)


def test_evaluation_is_the_same():
    plain, remat, params, state = networks("resnet_digits")
    expected = plain.apply(params, state, images(), train=False)
    found = remat.apply(params, state, images(), train=False)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_gradient_needs_less_than_half_of_the_memory():
    # On CPUs too, whose compiler drops the barriers of jax.checkpoint.
    *both, params, state = networks("wrn16_1")

    def memory(model):
        gradient = jax.jit(
            jax.grad(functools.partial(loss, model), has_aux=True)
        ).lower(params, state, images(32, 16))
        return gradient.compile().memory_analysis().temp_size_in_bytes

    plain, remat = map(memory, both)
    assert remat < 0.5 * plain


def test_a_network_without_blocks_stays_as_it_is():
    *both, params, state = networks("mlp")
    programs = {
        jax.jit(jax.grad(functools.partial(loss, model), has_aux=True))
        .lower(params, state, images())
        .as_text()
        for model in both
    }
    assert len(programs) == 1
