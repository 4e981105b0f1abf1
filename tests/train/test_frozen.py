"""Weights that stay, and learning rates of some arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import errors, models
from sam_jax.models import lora
from sam_jax.train import build, rates, state
from tests import tiers
from tests.train import runs
from tests.train.steps import SHAPE, Trainer, assert_close, batches, plain

MINE = "tests/train/my_parts.py:my_sam"


# ── Frozen weights ───────────────────────────────────────────────────────────────────


def constants(model, kept):
    """The network whose named parameters are the constants they begin as."""
    whole, model_state = model.init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    rest = {name: x for name, x in whole.items() if name not in kept}

    def apply(params, *args, **options):
        return model.apply({**whole, **params}, *args, **options)

    return models.Model(lambda key, images: (rest, model_state), apply)


GROUPS = {"method_group_size": 8, "mesh.data": 2, "accumulation_steps": 8}
DECAY = {"weight_decay.kind": "decoupled", "weight_decay.exclude_bias_and_norm": True}
CASES = {
    "sam": {"ema_decay": 0.9, "method.mask": "weights", **GROUPS, **DECAY},
    "functional_sam": {"weight_decay.kind": "loss", "clip_norm": 0.1},
    "sparse_sam": {"model.dtype": "float16", "method.every": 1},
    "looksam": {"learning_rate_factors": "last=0.5"},
    "bsam": {"clip_norm": None},
    MINE: {"method.radius": 0.1, "cadence.name": "every_k", "cadence.every_k.k": 2},
}


@pytest.mark.parametrize(
    "method", tiers.cases(["sam", MINE], CASES, "compiles two steps for each method")
)
def test_what_is_frozen_is_a_constant(tiny, net, method):
    kept = ("first", "bias")
    changes = {"schedule.name": "constant", "weight_decay.value": 0.1} | CASES[method]
    part = Trainer(tiny(method, **changes, freeze="^first|^b"), net(0.5), plain)
    less = Trainer(tiny(method, **changes), constants(net(0.5), kept), plain)
    before = part.state
    assert [before.params[name] for name in kept] == [None, None]
    for (after, seen), (expected, goal) in zip(
        part.run(batches(3)), less.run(batches(3)), strict=True
    ):
        assert_close(seen, goal)
        trained = {k: x for k, x in after.params.items() if x is not None}
        assert_close(trained, expected.params)
        assert_close(*(jax.tree.leaves(x.opt_state) for x in (after, expected)))
    of_state = (jax.tree.leaves(x.opt_state) for x in (after, expected))
    assert len({*map(len, of_state)}) == 1
    evaluated, _ = state.evaluated(after, part.optimizer)
    for name in kept:
        np.testing.assert_array_equal(evaluated[name], before.frozen[name])
    assert evaluated.keys() == before.params.keys()
    assert None not in evaluated.values()


BIG = build.DataSpec((8, 8, 1), num_classes=10, num_examples=1000, steps_per_epoch=4)


def extra_bytes(config, model=None):
    """What a step needs beside the state that it is given, and bytes of that frozen."""
    made = build.steps(config, BIG, model=model)
    before, batch = made.abstract_state(), made.abstract_batch()
    memory = made.train_step.lower(before, batch).compile().memory_analysis()
    of_state = memory.output_size_in_bytes - memory.alias_size_in_bytes
    kept = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(before.frozen))
    return memory.temp_size_in_bytes + of_state, kept


def test_a_step_makes_no_array_of_the_size_of_what_is_frozen(tiny, optimized):
    wide = {"model.width": 1024, "model.options": {"depth": 3}, "batch_size": 8}
    wide |= {"on_nonfinite": "skip", "ema_decay": 0.9}
    more, kept = extra_bytes(tiny(**wide, freeze="Dense_[0-2]"))
    assert kept > 8e6 > 16 * more
    adapted = lora.adapted(models.build("mlp", num_classes=10, width=1024), 4)
    more, kept = extra_bytes(tiny(**wide, freeze="^(?!.*lora)"), adapted)
    assert kept > 4e6 > 6 * more
    more, nothing = extra_bytes(tiny(**wide))
    assert more > 8e6 > nothing == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": "Dense_7"}, r"config.freeze: 'Dense_7' matches no .*Dense_0.bias,"),
        ({"freeze": "Dense"}, r"config.freeze: 'Dense' matches every array"),
        ({"freeze": "("}, r"config.freeze: '\(' is not a regular expression"),
        ({"learning_rate_factors": "Conv=2"}, r"_factors: 'Conv' matches no array"),
        ({"learning_rate_factors": ".=2 Dense_0=3"}, "'Dense_0' matches no array"),
        ({"learning_rate_factors": "Dense_0"}, "regex=factor .* got 'Dense_0'"),
        ({"learning_rate_factors": "Dense_0=0"}, "each factor above 0 .*freeze"),
        (
            {"learning_rate_factors": "Dense_0=2", "freeze": "Dense_0"},
            "'Dense_0' matches no array of the network; there are Dense_1.bias",
        ),
        (
            {"learning_rate_factors": ".=2", "optimizer.name": "schedule_free_sgd"},
            "past schedule_free_sgd, which averages",
        ),
    ],
)
def test_what_does_not_fit_is_refused_at_start(tiny, changes, message):
    with pytest.raises(errors.UserError, match=message):
        build.steps(tiny(**changes), BIG)


def test_a_method_with_a_step_of_its_own_has_one_rate(tiny):
    with pytest.raises(errors.UserError, match="bsam takes the step itself, of one"):
        build.steps(tiny("bsam", learning_rate_factors=".=2"), BIG)


# ── Learning rates ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["gradient", "decoupled"])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_factor_is_another_learning_rate(chain, name, kind):
    params = {"a": jnp.arange(3.0), "b": {"bias": jnp.ones(2)}}
    changes = {"optimizer.name": name, "weight_decay.kind": kind}
    changes |= {"weight_decay.value": 0.3}

    def updates(**more):
        tx, moved, found = runs.chain(chain(**(changes | more))), params, []
        tx_state = tx.init(params)
        for n in range(2):
            grads = jax.tree.map(lambda x, n=n: jnp.cos(x + n), moved)
            update, tx_state = tx.update(grads, tx_state, moved)
            found.append(update)
        return found

    some = updates(learning_rate_factors=r"b\.bias=0.5")
    whole, half = updates(), updates(learning_rate=runs.LEARNING_RATE / 2)
    for found, one, other in zip(some, whole, half, strict=True):
        assert_close(found, {"a": one["a"], "b": other["b"]})


def test_the_first_expression_that_matches_counts():
    params = {"a": {"bias": 1.0, "kernel": 1.0}, "b": {"bias": 1.0}}
    tx = rates.scaled_by_name("^a.bias=2 bias=3")
    found, _ = tx.update(params, tx.init(params))
    assert found == {"a": {"bias": 2, "kernel": 1}, "b": {"bias": 3}}
