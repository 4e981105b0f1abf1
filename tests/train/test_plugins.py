"""What a user brings in a file stands in the place of a name, and works alike."""

import dataclasses
import functools
import itertools
import json
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sam_jax import errors, models, plugins, train
from sam_jax.methods import observations
from sam_jax.train import (
    build,
    cards,
    loop,
    losses,
    own_data,
    settings,
    shared,
)
from tests import tiers
from tests.train import my_parts, runs
from tests.train.steps import SPEC, Trainer, batches, plain

pytestmark = pytest.mark.usefixtures("at_root")


# ── Networks and losses ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("net", "method"),
    tiers.cases(
        [("Net", "looksam"), ("NnxNet", "functional_sam")],
        itertools.product(["Net", "NnxNet"], ["sam", "looksam", "functional_sam"]),
        why="two runs each",
    ),
)
def test_all_that_is_own_resumes_to_the_same_bits_and_is_loaded(
    brought, tmp_path, disturb, net, method, caplog
):
    # Groups of 16, BatchNorm and dropout; a whole run, and one that was stopped.
    own = {"model": net, "loss": "brier", "optimizer": "my_sgd"}
    own |= {"schedule": "triangle", "augment": "brighter", "metrics": "margins"}
    names = {
        key if key == "loss" else f"{key}.name": runs.reference(name)
        for key, name in own.items()
    }
    config = brought(
        net,
        method=method,
        method_group_size=16,
        epochs=2,
        augment={"options": {"by": 5}},
        metrics={"options": {"over": 0.5}},
        **{"optimizer.options": {"momentum": 0.5}},
        **{
            key: name
            for key, name in names.items()
            if key not in ("model.name", "loss")
        },
    )
    whole = runs.Finished(config, tmp_path / "whole")
    disturb(3, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(loop.Stopped):
        loop.train_and_evaluate(config, tmp_path / "stopped")
    disturb()
    loop.train_and_evaluate(config, tmp_path / "stopped")
    runs.assert_same_run(config, tmp_path / "stopped", whole.folder)
    seen = [row for row in whole.rows if row["split"] == "test"]
    assert 0 < seen[-1]["loss"] < seen[0]["loss"] < 2  # of Brier
    # The metrics are in the record, the results and TensorBoard.
    test = whole.results["last"]["test"]
    assert list(test) == ["loss", "accuracy", "first_label", "margin", "sure"]
    assert test["first_label"] == 9 and test["margin"] > 0 and 0 < test["sure"] < 1
    assert {name: seen[-1][name] for name in test} == test
    [events] = whole.folder.rglob("events*")
    assert b"test/margin" in events.read_bytes()
    # What its settings name is run when that is asked for.
    with pytest.raises(errors.UserError, match=r"my_parts.py.*own_code=True"):
        train.load_run(whole.folder, "last")
    again = [f"--config.{key}={name}" for key, name in names.items()]
    for number in range(len(again)):
        one_less = again[:number] + again[number + 1 :]
        with pytest.raises(errors.UserError, match=r"my_parts.py.*give that setting"):
            cards.continued(whole.folder, *one_less)
    assert settings.read(cards.continued(whole.folder, *again)) == config
    record = json.loads((whole.folder / "environment.json").read_text())
    (file,) = record["own_code"]
    assert file.endswith("my_parts.py")
    record["own_code"][file] = "of another content"
    (whole.folder / "environment.json").write_text(json.dumps(record))
    found = train.load_run(whole.folder, "last", own_code=True).evaluate().plain()
    assert f"{file} has changed since the run in" in caplog.text
    for name, value in test.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("method", ["functional_sam", "esam"])
def test_methods_get_what_they_need_of_an_own_loss(tiny, method):
    # The package's cross-entropy, brought as if it were another.
    config = tiny(method)
    usual = build.steps(config, SPEC)
    own = build.steps(
        config, SPEC, loss=lambda x, b: losses.cross_entropy(x, b["label"])
    )
    batch, state = next(batches(1)), usual.init(usual.seed)
    expected, _ = jax.jit(usual.train_step)(state, batch)
    found, _ = jax.jit(own.train_step)(state, batch)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)


@pytest.mark.parametrize("net", [my_parts.Net, my_parts.NnxNet])
def test_dropout_follows_the_key_and_evaluation_has_none(net):
    model = models.own.build(net, "net", {"features": 2}, {"num_classes": 3})
    images = jnp.ones((4, 8, 8, 1))
    params, state = model.init(jax.random.key(0), images)

    def logits(**options):
        outputs, changed = model.apply(params, state, images, **options)
        return losses.logits_of(outputs), changed

    first, again, other = (
        logits(train=True, key=jax.random.key(key))[0] for key in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    still, same = logits(train=False)
    np.testing.assert_array_equal(still, logits(train=False, key=jax.random.key(1))[0])
    jax.tree.map(np.testing.assert_array_equal, same, state)
    _, moved = logits(train=True, key=jax.random.key(1))
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), moved, state)
    assert any(jax.tree.leaves(changed))
    assert all(
        isinstance(key.key, str)
        for path, _ in jax.tree_util.tree_leaves_with_path((params, state))
        for key in path[1:]
    )


@pytest.mark.parametrize("net", [my_parts.Net, my_parts.NnxNet])
def test_convolutions_are_those_that_are_fast_in_a_loop(net, monkeypatch):
    calls = []
    real = models.convolution.conv_general_dilated

    def counted(*args, **options):
        calls.append(options)
        return real(*args, **options)

    monkeypatch.setattr(models.convolution, "conv_general_dilated", counted)
    model = models.own.build(net, "net", {}, {"num_classes": 3})
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    params, state = model.init(jax.random.key(0), images)
    calls.clear()
    found, _ = model.apply(params, state, images, train=False)
    assert len(calls) == 1
    monkeypatch.setattr(models.convolution, "conv_general_dilated", jax.lax.conv)
    monkeypatch.setattr(models.own, "_convolve", models.own._JAX)
    plain_net = models.own.build(net, "net", {}, {"num_classes": 3})
    expected, _ = plain_net.apply(params, state, images, train=False)
    np.testing.assert_allclose(
        losses.logits_of(found), losses.logits_of(expected), rtol=1e-5, atol=1e-6
    )


class Keys(nnx.Module):
    """Keys that are words, also of digits, and numbers."""

    def __init__(self, num_classes, *, rngs):
        last = nnx.Linear(16, num_classes, rngs=rngs)
        self.layers = nnx.List([nnx.Dict({"1": last}), nnx.BatchNorm(16, rngs=rngs)])

    def __call__(self, images):
        return self.layers[0]["1"](self.layers[1](images.reshape(len(images), -1)))


class Hidden(nnx.Module):
    """State where the weights are stored."""

    def __init__(self, num_classes, *, rngs):
        self.params = nnx.BatchNorm(num_classes, rngs=rngs)


def test_names_of_an_nnx_module(tiny):
    made = build.steps(tiny(), SPEC, model=Keys)
    made.trace()
    params = made.abstract_state().params
    assert params["layers"]["0"]["1"]["kernel"].shape == (16, 10)
    with pytest.raises(errors.UserError, match="Hidden, keeps state in its attribute"):
        build.steps(tiny(), SPEC, model=Hidden)


def test_a_network_that_is_made_takes_no_options(tiny):
    made = models.build("mlp", num_classes=10)
    with pytest.raises(errors.UserError, match="made already: it takes no depth"):
        models.own.build(made, "my.py:net", {"depth": 3}, {})


def test_a_network_from_python_is_asked_for_again(tiny, tmp_path):
    config = tiny("none", epochs=1)
    net = my_parts.WithoutFlag(num_classes=10)
    loop.train_and_evaluate(config, tmp_path, model=net)
    message = "was trained with the network WithoutFlag, passed from Python"
    with pytest.raises(errors.UserError, match=message):
        train.load_run(tmp_path, "last")
    more = dataclasses.replace(config, epochs=2)
    with pytest.raises(errors.UserError, match=message):
        loop.train_and_evaluate(more, tmp_path)
    assert train.load_run(tmp_path, "last", model=net).step == 4
    assert loop.train_and_evaluate(more, tmp_path, model=net)["last"]["step"] == 8


def test_from_python_modules_and_functions_do(tiny, tmp_path):
    found = loop.train_and_evaluate(
        tiny("sam", epochs=1),
        tmp_path,
        model=my_parts.WithoutFlag(num_classes=10),
        loss=my_parts.brier,
    )
    assert found["last"]["step"] == 4


# ── Methods and optimizers ───────────────────────────────────────────────────────────


def test_an_own_method_is_what_it_does_and_its_arguments_are_settings(tiny, net):
    card = f"{runs.DIGITS}:{runs.reference('my_sam')}"
    config = cards.load(card, "--config.method.radius=0.25", "--config.method.twist=2")
    assert config.method.coefficients == {"radius": 0.25, "twist": 2}
    schedule = {"schedule.name": "constant"}
    mine = dataclasses.replace(tiny("sam", **schedule), method=config.method)
    own = Trainer(mine, net(), plain)
    sam = Trainer(tiny("sam", **schedule, **{"method.rho": 0.5}), net(), plain)
    [(a, _)], [(b, _)] = own.run(batches(1)), sam.run(batches(1))
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)


def test_an_own_optimizer_is_what_it_does(tiny, net):
    schedule = {"schedule.name": "constant"}
    own = tiny("sam", **schedule, **{"optimizer.name": runs.reference("my_sgd")})
    [(a, _)], [(b, _)] = (
        Trainer(config, net(), plain).run(batches(1))
        for config in (own, tiny("sam", **schedule))
    )
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)


# ── Schedules, augmentation, metrics ─────────────────────────────────────────────────


def test_an_own_schedule_is_what_it_does_and_its_arguments_are_settings(chain):
    named = {
        "schedule.name": runs.reference("triangle"),
        "schedule.options": {"top": 0.25},
    }
    rate = chain("none", **named).learning_rate  # 3 epochs of 4 updates
    found = [float(rate(count)) for count in range(13)]
    steps = np.arange(13) / 12
    expected = 0.1 * np.minimum(steps / 0.25, (1 - steps) / 0.75)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    warm = chain("none", **named, **{"schedule.warmup_epochs": 1.5}).learning_rate
    assert float(warm(3)) == pytest.approx(0.05) and warm(8) == rate(8)
    # It may branch on what it is given, which then is not an argument of a program.
    of_run = settings.read({"schedule": {"name": named["schedule.name"]}})
    assert shared.numbers_of(of_run) == {} != shared.numbers_of(settings.read({}))
    # A coefficient may follow it as well; of a highest value of its own.
    rho = {"name": named["schedule.name"], "value": 0.3}
    made = chain("sam", **{"method.rho": rho})
    state = made.method.init(params := jnp.ones(2))
    for count in range(4):
        _, state = made.method.update(params, state, params, grad_fn=lambda w: w)
        norm = float(observations.diagnostics(state)["perturbation_norm"])
        assert norm == pytest.approx(0.3 * count / 6, abs=1e-6)


def test_an_own_augmentation_has_a_key_of_its_own(digits, tmp_path):
    """Keys of `split` are those of `fold_in`: crop, flip and cutout have the first."""
    file, split = tmp_path / "my.py", []
    file.write_text(
        "seen = []\ndef note(key, images):\n    seen.append(key)\n    return images\n"
    )

    def after(key, images):
        split.append(jax.random.split(key, 3))
        return images

    own = own_data.augmented(settings.Own(f"{file}:note"), digits, after)
    own(jax.random.key(1), jnp.asarray(digits.train.split.images[:4]))
    mine = jax.random.key_data(plugins.find(f"{file}:seen")[-1])
    assert not (jax.random.key_data(split[-1]) == mine).all(1).any()


def test_an_own_augmentation_that_returns_something_else_is_said(digits, tmp_path):
    file = tmp_path / "my.py"
    file.write_text("def both(key, images):\n    return 'x', images\n")
    with pytest.raises(errors.UserError, match=r"must give inputs of the same.*'str'"):
        own_data.augmented(settings.Own(f"{file}:both"), digits, plain)


def test_a_file_imports_what_is_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside_my_net.py").write_text("VALUE = 3\n")
    (tmp_path / "net.py").write_text("from beside_my_net import VALUE\n")
    assert plugins.find(f"{tmp_path}/net.py:VALUE") == 3


def test_a_network_of_nnx_with_some_arguments_already(tiny):
    network = functools.partial(my_parts.NnxNet, features=2)
    made = build.steps(tiny("sam"), SPEC, model=network)
    params = made.abstract_state().params
    assert params["layers"]["0"]["kernel"].shape[0] == 32
    made = build.steps(tiny("sam"), SPEC, model=functools.partial(my_parts.Net, 10))
    assert made.abstract_state().params


def test_an_own_augmentation_comes_before_the_others_whose_draws_stay(tiny, digits):
    dataset = dataclasses.replace(digits, mean=(0.0,), std=(1.0,))
    images, key = dataset.train.split.images[:4], jax.random.key(1)

    chosen = tiny(**{"data.crop": 2, "data.flip": True}).data
    after = own_data.augmentation(chosen, dataset)
    brighter = settings.Own(runs.reference("brighter"))
    own = own_data.augmented(brighter, dataset, after)(key, images)
    plain = after(key, images)
    within = (own > 0) & (plain < 0.9)  # neither cut off nor at the end of the scale
    lifted = 255 * np.asarray(own - plain)[np.asarray(within)]
    assert 9.9 < lifted.min() < 11 < lifted.max() < 12.1
