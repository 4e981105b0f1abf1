"""BatchNorm over a named axis: groups in lockstep see the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import models
from sam_jax.models import layers

GROUPS, SIZE = 4, 8


def images():
    # Groups of different means and variances.
    noise = jax.random.normal(jax.random.key(7), (GROUPS, SIZE, 8, 8, 3))
    return noise * jnp.arange(1, 5).reshape(-1, 1, 1, 1, 1) + 1


def loss(model, params, state, images):
    logits, state = model.apply(params, state, images, train=True)
    return -jnp.mean(jax.nn.log_softmax(logits)[:, 0]), (logits, state)


def gradient(model, *args):
    call = jax.value_and_grad(lambda *args: loss(model, *args), has_aux=True)
    return call(*args)


@pytest.mark.parametrize(
    ("name", "remat"), [("resnet_digits", False), ("wrn10_1", True)]
)
def test_groups_in_lockstep_are_the_whole_batch(name, remat):
    build = {"num_classes": 5, "width": 4}
    alone = models.build(name, **build)
    grouped = models.build(name, norm_axis="groups", remat=remat, **build)
    # Neither needs the axis.
    params, state = jax.jit(grouped.init)(jax.random.key(0), images()[0])
    evaluated, _ = grouped.apply(params, state, images()[0], train=False)
    assert evaluated.shape == (SIZE, 5)

    def whole(params, state):
        return gradient(alone, params, state, images().reshape(-1, 8, 8, 3))

    def groups(params, state):
        weights = jax.tree.map(lambda w: jnp.stack([w] * GROUPS), params)
        return jax.vmap(
            lambda params, images: gradient(grouped, params, state, images),
            axis_name="groups",
        )(weights, images())

    (loss, (logits, new_state)), grads = jax.jit(whole)(params, state)
    (losses, (group_logits, group_states)), group_grads = jax.jit(groups)(params, state)
    assert np.ptp(losses) > 0.01
    np.testing.assert_allclose(losses.mean(), loss, rtol=1e-5)
    close(group_logits.reshape(-1, 5), logits)
    for group in range(GROUPS):
        jax.tree.map(lambda x, y, g=group: close(x[g], y), group_states, new_state)
    jax.tree.map(lambda x, y: close(x.mean(0), y), group_grads, grads)
    # A group alone sees something else.
    own, _ = alone.apply(params, state, images()[0], train=True)
    assert np.abs(own - logits[:SIZE]).max() > 0.05


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * (np.abs(b).max() + 1e-3))


@pytest.mark.parametrize("examples", [SIZE, GROUPS * SIZE])
def test_statistics_of_so_many_examples(examples):
    """Against Flax's own layer on each part, with its running statistics averaged."""
    make = layers.Layers("float32", norm_examples=examples)
    x = images().reshape(-1, 8, 8, 3)
    ours, flax = make.batch_norm(train=True), make.batch_norm(train=False)
    variables = ours.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(
        jnp.shape, flax.init(jax.random.key(0), x)
    )
    found, state = ours.apply(variables, x, mutable=["batch_stats"])
    plain = layers.Layers("float32").batch_norm(train=True)
    parts = [
        plain.apply(variables, part, mutable=["batch_stats"])
        for part in x.reshape(-1, examples, 8, 8, 3)
    ]
    expected = jnp.concatenate([part for part, _ in parts])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    mean = jax.tree.map(lambda *x: jnp.stack(x).mean(0), *(s for _, s in parts))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state, mean)
    other = layers.Layers("bfloat16", norm_examples=examples).batch_norm(train=True)
    assert other.apply(variables, x, mutable=["batch_stats"])[0].dtype == jnp.bfloat16
