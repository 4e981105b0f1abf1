"""Slices, ways between two points, and the plane of a training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from sam_jax import sharpness


def test_a_plane_is_the_loss_at_its_points(network):
    first, second = (sharpness.random_direction(network.params, s) for s in (0, 1))
    found = sharpness.landscape(
        *(network.loss, network.params, [first, second], [-0.5, 0, 2], [0, 1]),
        batches=network.batches,
    )
    assert found.losses.shape == (3, 2)
    point = jax.tree.map(lambda w, a, b: w + 2 * a + b, network.params, first, second)
    np.testing.assert_allclose(found.losses[2, 1], network.whole(point), rtol=1e-6)
    np.testing.assert_allclose(
        found.losses[1, 0], network.whole(network.params), rtol=1e-6
    )
    line = sharpness.landscape(network.whole, network.params, [first])
    assert line.losses.shape == (21,) and line.coordinates[0][0] == -1


def test_filter_normalization_does_not_see_a_rescaling(network):
    def loss(params):
        hidden = jax.nn.relu(network.x @ params["w"])
        return jnp.mean((hidden @ params["v"] - 1) ** 2)

    params = {"w": network.params["w"], "v": network.params["v"]}
    factors = jnp.array([0.1, 1.0, 10.0])
    rescaled = {"w": params["w"] * factors, "v": params["v"] / factors[:, None]}
    direction = sharpness.random_direction(params, 3)
    for name in params:
        np.testing.assert_allclose(
            *(jnp.linalg.norm(t[name], axis=0) for t in (direction, params))
        )
    # A factor for each unit is seen where the next layer moves as well, one for each
    # layer never is.
    one_layer = lambda d: {"w": d["w"], "v": jnp.zeros_like(d["v"])}  # noqa: E731
    layers = {"w": params["w"] * 7, "v": params["v"] / 7}
    for other, moved in ((rescaled, one_layer), (layers, lambda d: d)):
        curves = [
            sharpness.landscape(loss, p, [moved(sharpness.random_direction(p, 3))])
            for p in (params, other)
        ]
        np.testing.assert_allclose(curves[0].losses, curves[1].losses, rtol=1e-5)
    plain = sharpness.random_direction(params, normalize="none")
    np.testing.assert_allclose(jnp.linalg.norm(ravel_pytree(plain)[0]), 1)


def test_ways_between_two_points(network):
    end = jax.tree.map(lambda w: w + 1, network.params)
    found = sharpness.path(network.loss, network.params, end, batches=network.batches)
    np.testing.assert_allclose(found.losses[-1], network.whole(end), rtol=1e-6)
    middle = jax.tree.map(lambda w: w + 0.5, network.params)
    np.testing.assert_allclose(found.losses[10], network.whole(middle), rtol=1e-6)
    straight = sharpness.path(network.whole, network.params, end, bend=middle)
    np.testing.assert_allclose(straight.losses, found.losses, rtol=1e-6)


def test_a_bend_that_is_trained_lowers_the_way():
    loss = lambda w: (w[0] ** 2 + w[1] ** 2 - 1) ** 2  # noqa: E731, a ring
    ends = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    bend = jnp.full(2, 0.5)
    mean = lambda b: jnp.mean(  # noqa: E731
        jax.vmap(lambda t: loss(sharpness.between(*ends, t, bend=b)))(
            jnp.linspace(0, 1, 21)
        )
    )
    for _ in range(200):
        bend = bend - 0.2 * jax.grad(mean)(bend)
    straight, bent = (sharpness.path(loss, *ends, bend=b) for b in (None, bend))
    assert bent.losses.max() < straight.losses.max() / 20


def test_a_training_in_its_plane():
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.normal(size=(7, 2)))[0]
    walk = rng.normal(size=(6, 2)) * [3, 1]
    points = [
        {"a": jnp.asarray(p[:3]), "b": jnp.asarray(p[3:])} for p in walk @ plane.T
    ]
    found = sharpness.trajectory(points)
    np.testing.assert_allclose(found.explained.sum(), 1)
    back = [
        jax.tree.map(
            lambda w, a, b, c=c: w + c[0] * a + c[1] * b, points[-1], *found[0]
        )
        for c in found.coordinates
    ]
    for a, b in zip(back, points, strict=True):
        np.testing.assert_allclose(a["a"], b["a"], atol=1e-6)
        np.testing.assert_allclose(a["b"], b["b"], atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_points_on_a_line_have_no_plane_in_float32_either(seed):
    start, step = np.random.default_rng(seed).normal(size=(2, 1000)).astype(np.float32)
    with jax.enable_x64(False):
        points = [jnp.asarray(start + t * step) for t in (0, 1, np.float32(2.3))]
        with pytest.raises(ValueError, match="on one line"):
            sharpness.trajectory(points)
        points[1] += 0.1 * jnp.asarray(np.roll(step, 1))
        for direction in sharpness.trajectory(points).directions:
            np.testing.assert_allclose(jnp.linalg.norm(direction), 1, rtol=1e-3)


BAD = {
    "one or two directions": lambda n: sharpness.landscape(n.whole, n.params, []),
    "for each direction": lambda n: sharpness.landscape(
        n.whole, n.params, [n.params], [1.0], [2.0]
    ),
    "different networks": lambda n: sharpness.path(
        n.whole, n.params, n.params | {"c": jnp.zeros(3)}
    ),
    "at least three": lambda n: sharpness.trajectory([n.params] * 2),
    "on one line": lambda n: sharpness.trajectory([n.params] * 3),
    "normalize must be one of": lambda n: sharpness.random_direction(
        n.params, normalize="layer"
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(network, message):
    with pytest.raises(ValueError, match=message):
        BAD[message](network)
