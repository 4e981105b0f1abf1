"""The convolution is that of JAX; its gradient is in the layout of the fast path."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sam_jax.models import convolution

SETTINGS = [
    # kernel, stride, padding, side of the image
    (3, 1, ((1, 1), (1, 1)), 8),
    (3, 2, ((1, 1), (1, 1)), 8),
    (3, 2, ((0, 1), (0, 1)), 9),
    (1, 2, ((0, 0), (0, 0)), 8),
    (7, 2, ((3, 3), (3, 3)), 11),
    (3, 2, "SAME", 8),
    (2, 3, "VALID", 10),  # the last pixels are not seen
]


def theirs(inputs, kernel, strides, padding):
    return lax.conv_general_dilated(
        inputs, kernel, strides, padding, dimension_numbers=convolution.LAYOUT
    )


def gradients(conv, side, stride, padding, image, dtype=jnp.float32):
    inputs = jax.random.normal(jax.random.key(0), (4, image, image, 3), dtype)
    kernel = jax.random.normal(jax.random.key(1), (side, side, 3, 5), dtype)

    def loss(inputs, kernel):
        return jnp.sum(jnp.sin(conv(inputs, kernel, (stride, stride), padding)))

    return jax.value_and_grad(loss, (0, 1))(inputs, kernel)


@pytest.mark.parametrize("side, stride, padding, image", SETTINGS)
def test_value_and_gradients_are_those_of_jax(side, stride, padding, image):
    settings = side, stride, padding, image
    ours = gradients(convolution.conv_general_dilated, *settings)
    expected = gradients(theirs, *settings)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_keeps_bfloat16():
    settings = 3, 2, ((1, 1), (1, 1)), 8
    _, ours = gradients(convolution.conv_general_dilated, *settings, dtype=jnp.bfloat16)
    assert all(x.dtype == jnp.bfloat16 for x in ours)


def derivatives(conv):
    """Forward mode, Gauss-Newton, Hessian, forward over forward, of several kernels."""
    inputs = jax.random.normal(jax.random.key(0), (2, 5, 5, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))

    def network(kernel, inputs):
        return jnp.sin(conv(inputs, kernel, (2, 2), ((1, 1), (1, 1))))

    def along(fn, *at):
        return lambda: jax.jvp(fn, at, at)[1]

    of_kernel = functools.partial(network, inputs=inputs)
    yield along(network, kernel, inputs)
    yield along(of_kernel, kernel)
    yield lambda: jax.vjp(of_kernel, kernel)[1](along(of_kernel, kernel)())
    yield along(jax.grad(lambda *at: network(*at).sum(), (0, 1)), kernel, inputs)
    yield along(lambda kernel: along(of_kernel, kernel)(), kernel)
    gradient = jax.grad(lambda kernel: of_kernel(kernel).sum())
    yield lambda: jax.vmap(gradient)(jnp.stack([kernel, 2 * kernel]))


def test_every_derivative_is_that_of_jax():
    ours, expected = map(derivatives, (convolution.conv_general_dilated, theirs))
    for a, b in zip(ours, expected, strict=True):
        for x, y in zip(*map(jax.tree.leaves, (a(), b())), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about XLA's CPU compiler")
def test_what_is_convolved_is_computed_once():
    def loss(kernel, inputs):
        active = jnp.maximum(inputs * 3.14159, 0)
        return jnp.sum(convolution.conv_general_dilated(active, kernel, (1, 1), "SAME"))

    kernel, inputs = jnp.ones((3, 3, 8, 8)), jnp.ones((16, 8, 8, 8))
    compiled = jax.jit(jax.value_and_grad(loss)).lower(kernel, inputs).compile()
    assert str(compiled.as_text()).count("constant(3.14159") == 1


def test_a_nan_stays_one():
    kernel, inputs = jnp.ones((1, 1, 1, 1)), jnp.array([jnp.nan, jnp.inf, -0.0, 2.0])

    def outputs(kernel):
        return convolution.conv_general_dilated(
            inputs.reshape(1, 2, 2, 1), kernel, (1, 1), "SAME"
        ).ravel()

    np.testing.assert_array_equal(jax.linearize(outputs, kernel)[0], inputs)


def convolutions(conv):
    """The layouts of all convolutions in the gradient on this backend, as compiled."""
    gradient = jax.jit(
        jax.grad(
            lambda k, x: jnp.sum(conv(x, k, (2, 2), ((1, 1), (1, 1))) ** 2), (0, 1)
        )
    )
    kernel, inputs = jnp.ones((3, 3, 3, 4)), jnp.ones((2, 8, 8, 3))

    def within(inputs):  # where XLA leaves layouts as they are
        return lax.cond(
            inputs[0, 0, 0, 0] > 0,
            lambda: gradient(kernel, inputs),
            lambda: (kernel, inputs),
        )

    text = jax.jit(within).lower(inputs).as_text()
    return [line for line in text.splitlines() if "stablehlo.convolution" in line]


def test_the_gradient_has_one_layout():
    layout = "dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"
    ours = convolutions(convolution.conv_general_dilated)
    assert len(ours) == 3 and all(layout in line for line in ours)
    assert not any("reverse = [true" in line for line in ours)
    assert not all(layout in line for line in convolutions(theirs))


@pytest.mark.parametrize(
    "options", [{"rhs_dilation": (2, 2)}, {"feature_group_count": 3}]
)
def test_refuses_what_it_does_not_do(options):
    [name] = options
    with pytest.raises(ValueError, match=f"{name} must be left at"):
        convolution.conv_general_dilated(
            jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 3, 3)), (1, 1), "SAME", **options
        )
