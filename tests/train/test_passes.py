"""What a method may ask of the examples of its group."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import models
from sam_jax.data import mixing
from sam_jax.train import averaging, build, groups, losses, passes
from tests.train import steps


@pytest.mark.parametrize(
    ("chunks", "norm_examples", "length"),
    [(1, 1, 3), (2, 1, 4), (4, 1, 4), (1, 2, 4), (2, 2, 4), (1, 4, 3), (1, 3, 3)],
)
def test_the_mean_over_a_subset_is_that_of_its_rows(chunks, norm_examples, length):
    generator = np.random.default_rng(0)
    losses, weights = generator.uniform(1, 2, (2, 8)).astype(np.float32)
    rows = np.array([5, 1, 7])
    examples = passes.Examples(jnp.asarray(losses), jnp.arange(8), jnp.asarray(weights))
    found = passes.subset(examples, jnp.asarray(rows), chunks, norm_examples)
    assert len(found.labels) == length
    np.testing.assert_array_equal(found.labels[:3], rows)
    # The images stand for the losses.
    np.testing.assert_allclose(
        np.mean(found.weights * found.images),
        np.mean(weights[rows] * losses[rows]),
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("esam", {"method.gamma": 0.25}),  # 8 of 32 examples
        ("esam", {"method.gamma": 0.75}),  # 24
        ("sparse_sam", {"method.every": 1}),  # one
    ],
)
def test_a_subset_passes_batch_norm_of_so_many_examples(tiny, method, changes):
    """Whatever its number is."""
    changes |= {"model.name": "resnet_digits", "model.options": {}, "batch_norm": 16}
    made = build.steps(tiny(method, **changes), steps.SPEC)
    made.trace()


@pytest.mark.parametrize("mixed", [False, True])
def test_shares_of_classes_and_weighted_losses(mixed):
    [batch] = steps.batches(1, size=6)
    model, shares = steps.net(), np.linspace(0.0, 0.18, 10, dtype=np.float32)
    params, state = model.init(jax.random.key(0), jnp.zeros((1, *steps.SHAPE)))
    labels, others = jnp.asarray(batch["label"]), jnp.asarray(batch["true_label"])
    parts = jnp.linspace(0.5, 1.0, 6)
    examples = passes.Examples(
        *(batch["image"] / 255.0, labels, jnp.linspace(1.0, 2.0, 6)),
        mixing.Mixed(others, parts) if mixed else (),
    )

    def of_each(outputs, batch):
        return losses.cross_entropy(outputs, batch["label"])

    made = passes.Passes(model, of_each, lambda params: jnp.zeros([]))
    given = params, state, examples, jax.random.key(1)
    clean = made.value_and_grad(*given)
    call = passes.method_keywords(made, *given[1:], clean, shares)
    expected = shares[labels]
    if mixed:
        expected = parts * expected + (1 - parts) * shares[others]
    np.testing.assert_allclose(call["class_shares"], expected, rtol=1e-6)
    factors = jnp.linspace(3.0, 0.0, 6)
    loss, _ = call["weighted_value_and_grad_fn"](params, factors)
    weighted = np.mean(factors * examples.weights * clean.losses)
    np.testing.assert_allclose(loss, weighted, rtol=1e-6)


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
@pytest.mark.parametrize("m", [None, 8])
def test_whole_numbers_of_a_state_stay_what_they_are(tiny, devices, dtype, m):
    """A count of passes, which a part of a batch adds to as the batch does."""
    network = steps.net()

    def init(key, images):
        params, state = network.init(key, images)
        return params, state | {"count": jnp.zeros([], dtype)}

    def apply(params, state, images, **options):
        count = state["count"] | 1 if dtype == "bool" else state["count"] + 1
        others = {name: state[name] for name in ("mean", "var")}
        logits, new = network.apply(params, others, images, **options)
        return logits, new | {"count": count.astype(dtype)}

    parts = {"accumulation_steps": 4, "method_group_size": m, "batch_size": 64}
    config = tiny("sam", **parts, **{"mesh.data": devices})
    made = build.steps(config, steps.SPEC, model=models.Model(init, apply))
    before = made.abstract_state()
    after, _ = jax.eval_shape(made.train_step, before, made.abstract_batch())
    for old, new in zip(*map(jax.tree.leaves, (before, after)), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)


def test_a_count_is_not_averaged():
    old = {"w": jnp.float32(0), "count": jnp.int32(0)}
    before = types.SimpleNamespace(step=jnp.int32(1), average=old)
    new = {"w": jnp.float32(2), "count": jnp.int32(7)}
    found = averaging.averaged(lambda step: 0.5, before, new)
    assert (found["w"], found["count"]) == (1, 7)


@pytest.mark.parametrize("many", [2**30, -(2**30)])
def test_whole_numbers_of_parts_are_exact(many):
    """Their sum over the parts would be too large, and their quotient a float."""

    def counted(count, x, key):
        return count + 1

    count = jnp.asarray(many, jnp.int32)
    found = groups.accumulate(counted, groups.MEAN, 4)(
        count, jnp.zeros(8), jax.random.key(0)
    )
    assert found == many + 1 and found.dtype == jnp.int32
