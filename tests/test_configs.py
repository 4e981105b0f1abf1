"""Every run card loads with every method, and trains where its data are at hand."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from sam_jax import methods
from sam_jax.train import build, cards, coefficients, sharding
from tests.data import archives

ROOT = pathlib.Path(__file__).parents[1]
CARDS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
SUFFIXES = (*methods.names(), "sgd")
# One of each kind: none, plain, not in every step, around a base, without a base.
TRAINED = ("sgd", "sam", "looksam", "momentum_sam", "bsam")


def load(card, *overrides, method=None):
    suffix = f":{method}" if method else ""
    return cards.load(f"{ROOT / 'configs' / card}.py{suffix}", *overrides)


def two_steps(settings):
    """Parameters before and after two steps of a run, and its last metrics."""
    run = build.build(settings)
    state = run.init(run.seed)
    before = jax.device_get(state.params)
    batches = run.dataset.train.batches(
        batch_size=settings.batch_size, seed=settings.seed
    )
    for _ in range(2):
        state, metrics = run.train_step(
            state, sharding.put_batch(next(batches), run.mesh)
        )
    return before, jax.device_get(state.params), jax.device_get(metrics)


def assert_trained(before, after, metrics):
    assert metrics["finite"] == 1
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)
    assert all(jax.tree.leaves(moved)), moved


def test_there_are_cards():
    assert {"digits_sam", "digits_noisy_sam", "fashion_mnist_sam"} <= set(CARDS)
    assert {"cifar10_sam", "cifar100_sam"} <= set(CARDS)


@pytest.mark.parametrize("card", CARDS)
def test_the_suffix_of_a_card_changes_the_method_alone(card):
    plain, other = load(card), load(card, method="usam")
    own = "gsam" if card.endswith("_gsam") else "sam"
    assert (plain.method.name, other.method.name) == (own, "usam")
    assert dataclasses.replace(other, method=plain.method) == plain


@pytest.mark.parametrize("method", SUFFIXES)
def test_a_card_loads_with_every_method(method):
    expected = coefficients.BASELINE if method == "sgd" else method
    assert load("digits_sam", method=method).method.name == expected


@pytest.mark.parametrize("card", CARDS)
def test_card_is_named_after_its_data_and_method(card):
    settings = load(card)
    data = settings.data.name.partition("/")[0].removesuffix("2012")
    assert card.startswith(data)
    assert card.endswith((f"_{settings.method.name}", "_fast", "_small"))


@pytest.mark.parametrize("card", CARDS)
def test_card_says_how_to_run_it_and_what_to_expect(card):
    text = (ROOT / "configs" / f"{card}.py").read_text()
    assert f"python -m sam_jax.main --config=configs/{card}.py" in text
    assert "EXPECTED" not in text, "a place holder"


@pytest.mark.parametrize(
    "method",
    [
        name
        if name in TRAINED
        else pytest.param(name, marks=pytest.mark.slow("compiles each method"))
        for name in SUFFIXES
    ],
)
def test_digits_card_trains_with_every_method(method):
    overrides = (
        *("--config.model.name=mlp", "--config.model.width=8"),
        "--config.mesh.data=1",
    )
    assert_trained(*two_steps(load("digits_sam", *overrides, method=method)))


def test_noisy_digits_card_trains():
    overrides = (
        *("--config.model.name=mlp", "--config.model.width=8"),
        *("--config.mesh.data=1", "--config.optimizer.sgd.nesterov=True"),
    )
    settings = load("digits_noisy_sam", *overrides)
    assert_trained(*two_steps(settings))
    split = build.build(settings).dataset.train.split
    assert split.num_examples == 1000
    assert np.sum(split.labels != split.true_labels) == 400


@pytest.mark.slow("compiles a wide residual network")
def test_cifar10_card_trains_on_an_archive_without_a_network(tmp_path):
    data_dir = archives.prepare(tmp_path, "cifar10")
    overrides = (
        *("--config.model.width=2", "--config.batch_size=8", "--config.mesh.data=1"),
        *("--config.data.download=False", f"--config.data.data_dir={data_dir}"),
    )
    assert_trained(*two_steps(load("cifar10_sam", *overrides)))
