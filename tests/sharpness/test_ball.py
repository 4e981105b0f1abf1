"""Worst and average cases in a ball: closed forms, brute force, invariance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import sharpness


@pytest.mark.parametrize("rho", [1e-3, 0.1, 10.0])
def test_the_closed_form_of_a_quadratic(rho):
    slope, curvature = jnp.array([3.0, 4.0]), 2.0
    loss = lambda w: slope @ w + curvature * jnp.sum(w**2) / 2  # noqa: E731
    found = sharpness.worst_case(loss, jnp.zeros(2), rho)
    np.testing.assert_allclose(found.value, 5 * rho + rho**2, rtol=1e-6)
    np.testing.assert_allclose(found.displacement, rho * slope / 5, rtol=1e-3)
    corner = sharpness.worst_case(loss, jnp.zeros(2), rho, norm="linf")
    np.testing.assert_allclose(corner.value, 7 * rho + 2 * rho**2, rtol=1e-9)


def test_at_a_minimum_it_is_the_largest_eigenvalue(network):
    scale = jnp.array([1.0, 4.0, 9.0])
    loss = lambda w: jnp.sum(scale * w**2) / 2  # noqa: E731
    found = sharpness.worst_case(loss, jnp.zeros(3), 0.5, steps=60)
    np.testing.assert_allclose(found.value, 9 / 8, rtol=1e-3)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_brute_force_in_the_plane(norm, adaptive):
    center, rho = jnp.array([0.7, -1.3]), 0.4
    loss = lambda w: jnp.sin(2 * w[0]) + w[1] ** 4 / 9 + w[0] * w[1]  # noqa: E731
    grid = np.stack(np.meshgrid(*[np.linspace(-rho, rho, 801)] * 2), -1).reshape(-1, 2)
    if norm == "l2":
        grid = grid[np.linalg.norm(grid, axis=1) <= rho]
    size = np.abs(center) if adaptive else np.ones(2)
    best = jax.vmap(loss)(center + grid * size).max() - loss(center)
    found = sharpness.worst_case(
        loss, center, rho, norm=norm, adaptive=adaptive, steps=60
    )
    assert best - 1e-4 <= found.value <= best + 1e-3
    inside = np.asarray(found.displacement) / size
    order = 2 if norm == "l2" else np.inf
    assert np.linalg.norm(inside, order) <= rho * (1 + 1e-9)


def relu_loss(params, x):
    return jnp.mean((jax.nn.relu(x @ params["w"]) @ params["v"] - x[:, 0]) ** 2)


def test_the_adaptive_measures_do_not_see_a_rescaling_of_the_network(network):
    params = {"w": network.params["w"], "v": network.params["v"][:, 0]}
    rescaled = {"w": params["w"] * 8, "v": params["v"] / 8}
    loss = lambda p: relu_loss(p, network.x)  # noqa: E731
    for measure in (sharpness.worst_case, sharpness.average_case):
        for adaptive in (True, False):
            pair = [
                measure(loss, p, 0.1, adaptive=adaptive).value
                for p in (params, rescaled)
            ]
            if adaptive:
                np.testing.assert_allclose(*pair, rtol=1e-6)
            else:
                assert abs(pair[1] / pair[0] - 1) > 0.5


@pytest.mark.parametrize(("noise", "second"), [("gaussian", 1.0), ("uniform", 1 / 3)])
def test_the_average_case_of_a_quadratic_is_a_trace(noise, second):
    scale = jnp.linspace(1, 3, 50)
    loss = lambda w: w.sum() + jnp.sum(scale * w**2) / 2  # noqa: E731
    found = sharpness.average_case(loss, jnp.zeros(50), 0.3, noise=noise, samples=200)
    exact = 0.3**2 * second * float(scale.sum()) / 2
    assert 0 < abs(found.value - exact) < 4 * found.standard_error
    assert found.standard_error < 0.1 * exact


def test_each_group_has_its_own_worst_case(network):
    rho = 0.1
    groups = [network.x[i : i + 2] for i in range(0, 10, 2)]
    of_groups = sharpness.m_sharpness(network.loss, network.params, rho, groups)
    shared = sharpness.worst_case(network.loss, network.params, rho, batches=groups)
    alone = [
        sharpness.worst_case(lambda p, g=g: network.loss(p, g), network.params, rho)
        for g in groups
    ]
    np.testing.assert_allclose(of_groups.value, np.mean([a.value for a in alone]))
    assert of_groups.value > shared.value > 0
    first_order = rho * jnp.sqrt(
        sum(
            jnp.sum(g**2)
            for g in jax.tree.leaves(jax.grad(network.whole)(network.params))
        )
    )
    assert shared.value > 0.9 * first_order


def test_a_loss_that_falls_on_every_side_has_none():
    found = sharpness.worst_case(lambda w: -jnp.sum(jnp.abs(w)), jnp.zeros(2), 0.5)
    assert found.value == 0 and not found.displacement.any()


@pytest.mark.parametrize(
    ("message", "keywords"),
    [
        ("rho must be", {"rho": 0.0}),
        ("rho must be", {"rho": -1.0}),
        ("norm must be one of", {"norm": "l1"}),
        ("steps must be", {"steps": 1}),
    ],
)
def test_bad_input(network, message, keywords):
    with pytest.raises(ValueError, match=message):
        sharpness.worst_case(network.whole, network.params, **{"rho": 0.1, **keywords})
