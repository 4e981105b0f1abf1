"""Network, optimizer and data of ``configs/cifar10_fast.py``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cifar10_fast
from experiments.benchmarks import programs
from sam_jax import errors


def test_the_filters_are_the_eigenvectors_of_the_covariance_of_patches():
    filters = cifar10_fast.whitening()
    assert filters.shape == (2, 2, 3, 24)
    np.testing.assert_array_equal(filters[..., :12], -filters[..., 12:])
    directions = filters[..., :12].reshape(12, 12)
    lengths = np.sum(directions**2, axis=0)  # 1 / (variance + floor)
    variances = 1 / lengths - cifar10_fast.FLOOR
    unit = directions / np.sqrt(lengths)
    np.testing.assert_allclose(unit.T @ unit, np.eye(12), atol=1e-10)
    assert variances.min() > 1e-4
    found = (unit * variances) @ unit.T
    blocks = found.reshape(2, 2, 3, 2, 2, 3)  # row, column, channel of both pixels
    for (down, beside), products in cifar10_fast.PRODUCTS.items():
        expected = np.reshape(products, (3, 3))
        start = int(beside < 0)
        first, second = (0, start), (down, start + beside)
        block = blocks[(*first, slice(None), *second)]
        np.testing.assert_allclose(block, expected, atol=1e-4)
        back = blocks[(*second, slice(None), *first)]
        np.testing.assert_allclose(back, expected.T, atol=1e-4)


def test_convolutions_start_as_the_identity_where_they_have_channels():
    kernel = cifar10_fast.identity(jax.random.key(0), (3, 3, 4, 6), jnp.float32)
    x = jax.random.normal(jax.random.key(1), (1, 3, 3, 4))
    seen = jax.lax.conv_general_dilated(
        *(x, kernel, (1, 1), "SAME"), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(seen[..., :4], x, rtol=1e-6)
    assert jnp.abs(seen[..., 4:]).max() > 0.1


def test_biases_of_batch_norm_have_another_rate_and_the_same_decay():
    params = {"BatchNorm_0": {"bias": 2.0}, "Conv_0": {"kernel": 3.0}, "bias": 4.0}
    params = jax.tree.map(jnp.float32, params)
    tx = cifar10_fast.sgd(0.1, momentum=0.5, weight_decay=0.01, bias_factor=8.0)
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    # Nesterov's first step is 1 + momentum times the direction.
    expected = {name: -0.15 * (1 + 0.01 * w) for name, w in (("w", 3.0), ("b", 4.0))}
    assert updates["Conv_0"]["kernel"] == pytest.approx(expected["w"])
    assert updates["bias"] == pytest.approx(expected["b"])
    assert updates["BatchNorm_0"]["bias"] == pytest.approx(-0.15 * (8 + 0.01 * 2.0))


@pytest.fixture(scope="module")
def run():
    values = cifar10_fast.SETTINGS | {"batch_size": 8, "epochs": 2}
    values["model"] = values["model"] | {"options": {"widths": (4, 6, 8)}}
    values["schedule"] = values["schedule"] | {"warmup_epochs": 1}
    return programs.run(programs.settings("sam", **values), programs.noise(32))


def test_the_card_is_a_network_with_biases_and_an_optimizer_of_its_own(run):
    state = run.abstract_state()
    trunk = state.params["Trunk_0"]
    norms = [trunk[f"BatchNorm_{number}"] for number in range(9)]
    assert [list(norm) for norm in norms] == [["bias"]] * 9
    assert trunk["Conv_0"]["kernel"].shape == (3, 3, 24, 4)
    assert trunk["whitening_bias"].shape == (24,)
    assert run.dataset.train.num_examples == 32
    assert run.dataset.train.split.num_examples == 64


@pytest.mark.parametrize("train", [True, False])
def test_evaluation_is_a_mean_over_six_views(train, monkeypatch):
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype(np.float32)
    monkeypatch.setattr(cifar10_fast, "Trunk", lambda *_: lambda seen, _: seen**3)
    around = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    views = [x, x, around[:, :5, :5], around[:, 2:, 2:]]
    cubes = [(v**3 + v[:, :, ::-1] ** 3) / 2 for v in views]
    expected = x**3 if train else np.mean(cubes, axis=0)
    found = cifar10_fast.FastNet().apply({}, x, train=train)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_optimizer_takes_another_network():
    values = cifar10_fast.SETTINGS | {"batch_size": 8, "epochs": 2}
    values["model"] = {"name": "mlp", "width": 8}
    values["schedule"] = values["schedule"] | {"warmup_epochs": 1}
    run = programs.run(programs.settings("sgd", **values), programs.noise(8, 16))
    assert "norm" not in str(run.abstract_state().params).lower()


def test_an_alternating_flip_stands_alone():
    for data, message in [({"flip": True}, "takes the place of config.data.flip")]:
        values = {"data": {"alternate_flip": True, **data}}
        with pytest.raises(errors.UserError, match=message):
            programs.run(programs.settings("sgd", "mlp", **values), programs.noise(128))
