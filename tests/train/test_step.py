"""The one step is the step that one would write by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sam_jax import errors
from sam_jax.train import (
    build,
    losses,
    own_data,
    state,
    step,
)
from tests.train.steps import (
    SPEC,
    Trainer,
    assert_close,
    assert_same,
    batches,
    broken_by_white,
    noisy,
    plain,
)


@pytest.fixture
def trainer(tiny, net):
    """``trainer("sam", augment, dropout, **settings)``."""

    def make(method="sam", augment=plain, dropout=0.0, **settings):
        settings = {"schedule.name": "constant"} | settings
        return Trainer(tiny(method, **settings), net(dropout), augment)

    return make


# ── The mathematics ──────────────────────────────────────────────────────────────────


def test_equals_sam_with_momentum_written_by_hand(trainer, net):
    rho, learning_rate, decay, momentum, smoothing = 0.5, 0.1, 0.01, 0.9, 0.1
    steps = trainer(
        **{
            "method.rho": rho,
            "learning_rate": learning_rate,
            "weight_decay.value": decay,
            "optimizer.sgd.momentum": momentum,
            "label_smoothing": smoothing,
        }
    )
    model = net()
    params, statistics = steps.state.params, steps.state.model_state
    trace = jax.tree.map(jnp.zeros_like, params)

    @jax.jit
    def by_hand(params, statistics, trace, image, label):
        def loss_fn(params):
            logits, new = model.apply(params, statistics, image / 255, train=True)
            logp = jax.nn.log_softmax(logits)
            right = jnp.take_along_axis(logp, label[:, None], axis=1)[:, 0]
            each = (1 - smoothing) * right + smoothing * logp.mean(axis=1)
            return -each.mean(), new

        (clean, new), g = jax.value_and_grad(loss_fn, has_aux=True)(params)
        size = jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(g)))
        up = jax.tree.map(lambda w, x: w + rho * x / size, params, g)
        (perturbed, _), g_up = jax.value_and_grad(loss_fn, has_aux=True)(up)
        trace = jax.tree.map(
            lambda m, x, w: momentum * m + x + decay * w, trace, g_up, params
        )
        params = jax.tree.map(lambda w, m: w - learning_rate * m, params, trace)
        return params, new, trace, (clean, perturbed, size)

    for batch, (after, metrics) in zip(batches(4), steps.run(batches(4)), strict=True):
        params, statistics, trace, (clean, perturbed, size) = by_hand(
            params, statistics, trace, batch["image"], batch["label"]
        )
        assert_close(after.params, params)
        # The running statistics are those of the clean pass only.
        assert_close(after.model_state, statistics)
        np.testing.assert_allclose(metrics["loss"], clean, rtol=1e-5)
        np.testing.assert_allclose(metrics["perturbed_loss"], perturbed, rtol=1e-5)
        np.testing.assert_allclose(metrics["grad_norm"], size, rtol=1e-5)
        assert perturbed > clean + 0.01
    assert int(after.step) == 4


@pytest.mark.parametrize("method", ["sgd", "sam", "functional_sam", "esam"])
def test_weights_of_examples_count_like_copies_of_them(trainer, method):
    # Without dropout or BatchNorm's statistics of the batch in the way: the mean of
    # weight * loss over (a, b) with weights (2, 0) is the loss of a alone.
    settings = {"learning_rate": 0.5, "method.rho": 0.2, "method.gamma": 1.0}
    known = {"sgd": ("learning_rate",), "esam": tuple(settings)}
    names = known.get(method, ("learning_rate", "method.rho"))
    steps = trainer(method, **{name: settings[name] for name in names})
    start = steps.state

    def after(batch):
        steps.state = start
        ((state, metrics),) = steps.run([batch])
        return state.params, metrics["loss"]

    (batch,) = batches(1)
    doubled = {name: np.concatenate([x, x]) for name, x in batch.items()}
    doubled["weight"] = np.repeat(np.float32([2.0, 0.0]), len(batch["label"]))
    other = doubled["label"].copy()
    other[len(batch["label"]) :] = (batch["label"] + 1) % 4
    doubled["label"] = other
    params, loss = after(batch)
    weighted_params, weighted_loss = after(doubled)
    np.testing.assert_allclose(weighted_loss, loss, rtol=1e-5)
    assert_close(weighted_params, params, rtol=1e-3, atol=1e-5)


def test_metrics_belong_to_the_weights_before_the_update(trainer, net):
    steps = trainer("none")
    before, batch = steps.state, next(batches(1))
    [(_, metrics)] = steps.run([batch])
    logits, _ = net().apply(
        before.params, before.model_state, batch["image"] / 255, train=True
    )
    correct = np.asarray(logits).argmax(-1)
    assert metrics["accuracy"] == np.mean(correct == batch["label"])
    assert metrics["true_accuracy"] == np.mean(correct == batch["true_label"])
    assert metrics["accuracy"] != metrics["true_accuracy"]
    assert metrics["learning_rate"] == np.float32(0.1)


def test_decay_in_the_loss_is_part_of_loss_and_gradient(trainer):
    decay = {"weight_decay.value": 1.0}
    runs = [
        trainer(**decay, **{"weight_decay.kind": kind}) for kind in ("gradient", "loss")
    ]
    squares = sum(jnp.sum(w**2) for w in jax.tree.leaves(runs[0].state.params))
    [[(_, beside)], [(_, inside)]] = [each.run(batches(1)) for each in runs]
    np.testing.assert_allclose(inside["loss"], beside["loss"] + squares / 2, rtol=1e-5)
    assert inside["grad_norm"] > 2 * beside["grad_norm"]


def test_cross_entropy_with_smoothing_by_hand():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    labels = jnp.array([0, 1])
    plain = losses.cross_entropy(logits, labels)
    np.testing.assert_allclose(plain, [-np.log(0.5), -np.log(0.1)], rtol=1e-6)
    smoothed = losses.cross_entropy(logits, labels, 0.3)
    uniform = -np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]).mean(axis=1)
    np.testing.assert_allclose(smoothed, 0.7 * plain + 0.3 * uniform, rtol=1e-5)


# ── Randomness ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("augment", "dropout"), [(noisy, 0.0), (plain, 0.5)])
def test_randomness_is_of_seed_and_step_and_one_for_both_gradients(
    trainer, augment, dropout
):
    # With almost no perturbation the two gradients differ by their randomness only;
    # with the same weights and the same batch at every step the losses do.
    unmoved = {"method.rho": 1e-5, "learning_rate": 0.0}
    steps = trainer("sam", augment, dropout, **unmoved)
    batch, start = next(batches(1)), steps.state

    def losses(seed):
        steps.state = start._replace(seed=jnp.uint32(seed))
        history = [metrics for _, metrics in steps.run([batch] * 2)]
        for metrics in history:
            assert metrics["gradient_cosine"] > 0.999
            np.testing.assert_allclose(
                metrics["perturbed_loss"], metrics["loss"], rtol=1e-3
            )
        return [float(metrics["loss"]) for metrics in history]

    first, again, other = losses(1), losses(1), losses(2)
    assert first == again
    assert len({*first, *other}) == 4


MIXED = {"data.mixup": 1.0, "data.cutmix": 1.0}


def test_mixed_labels_are_soft_labels_of_one_draw_for_both_gradients(
    trainer, tiny, net
):
    steps = trainer(**MIXED, **{"method.rho": 1e-5, "label_smoothing": 0.1})
    (batch,) = batches(1)
    old, key = steps.state, jax.random.fold_in(jax.random.key(steps.state.seed), 0)
    mix = own_data.mix(tiny(**MIXED), groups=1)
    images, (others, shares) = mix(
        jax.random.fold_in(key, step.MIX_STREAM),
        plain(None, batch["image"]),
        batch["label"],
    )
    (_, metrics), *_ = steps.run([batch])
    logits, _ = net(0.0).apply(old.params, old.model_state, images, train=True, key=key)
    first, second = (jax.nn.one_hot(x, 10) for x in (batch["label"], others))
    soft = shares[:, None] * first + (1 - shares[:, None]) * second
    expected = optax.softmax_cross_entropy(logits, 0.9 * soft + 0.1 / 10).mean()
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    assert abs(metrics["gradient_cosine"] - 1) < 1e-5
    assert 0.3 < shares.mean() < 0.9


@pytest.mark.slow("compiles two steps")
def test_mixing_stays_in_the_group_and_accumulation_does_not_change_it(tiny, net):
    # Without BatchNorm chunks see what the whole group would.
    (batch,) = batches(1)
    found = []
    for steps in (1, 4):
        settings = {**MIXED, "method_group_size": 16, "accumulation_steps": steps}
        made = build.steps(tiny(**settings), SPEC, augment=plain)
        found.append(made.train_step(made.init(made.seed), batch)[0].params)
    assert_close(*found)
    mix = own_data.mix(tiny(**MIXED), groups=2)
    _, mixed = mix(jax.random.key(0), plain(None, batch["image"]), jnp.arange(32))
    assert ((mixed.labels < 16) == (jnp.arange(32) < 16)).all()


def test_examples_with_weights_are_not_mixed(tiny):
    settings = tiny(**MIXED, **{"data.sampling.name": "importance"})
    with pytest.raises(errors.UserError, match="drawn alike"):
        own_data.mix(settings, groups=1)


# ── Updates that are not finite ──────────────────────────────────────────────────────


def test_skip_leaves_the_state_but_counts_the_step(trainer):
    settings = {"on_nonfinite": "skip", "ema_decay": 0.5}
    steps = trainer(augment=broken_by_white, **settings)
    (before, good), (after, bad), (last, _) = steps.run(batches(3, white=[1]))
    assert (good["finite"], bad["finite"]) == (1, 0)
    assert not np.isfinite(bad["loss"])
    assert_same(after._replace(step=before.step), before)
    assert int(after.step) == 2
    # The run continues as if the batch had not been.
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(last))
    assert int(last.step) == 3
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), last.params, after.params)
    assert any(jax.tree.leaves(moved))


def test_stop_reports_an_update_that_is_not_finite(trainer):
    steps = trainer(augment=broken_by_white)
    history = steps.run(batches(2, white=[1]))
    assert [metrics["finite"] for _, metrics in history] == [1, 0]


def test_an_infinite_update_is_not_finite_though_the_loss_is(trainer):
    too_large = {"weight_decay.value": 1e3, "learning_rate": 3e38}
    [(_, metrics)] = trainer("none", **too_large).run(batches(1))
    assert np.isfinite(metrics["loss"])
    assert not np.isfinite(metrics["update_norm"])
    assert metrics["finite"] == 0


@jax.custom_vjp
def finite_with_infinite_gradient(logits, white):
    return logits


finite_with_infinite_gradient.defvjp(
    lambda logits, white: (logits, white),
    lambda white, g: (jnp.where(white, jnp.inf, g), jnp.zeros_like(white)),
)


def test_a_gradient_kept_for_later_is_judged_as_well(tiny, net):
    # Loss and update are finite where asynchronous SAM takes the gradient in store;
    # what it stores for the next update is not.
    inner = net()
    visits = []

    def apply(params, model_state, images, **options):
        logits, model_state = inner.apply(params, model_state, images, **options)
        visits.append(images)
        if len(visits) == 1:  # traced first: the pass at the weights
            white = (images.max() == 1).astype(logits.dtype)
            logits = finite_with_infinite_gradient(logits, white)
        return logits, model_state

    settings = {"on_nonfinite": "skip", "schedule.name": "constant"}
    model = inner._replace(apply=apply)
    steps = Trainer(tiny("async_sam", **settings), model, plain)
    visits.clear()
    history = steps.run(batches(5, white=[2]))
    assert [metrics["finite"] for _, metrics in history] == [1, 1, 0, 1, 1]
    assert np.isfinite(history[2][1]["loss"])
    assert np.isfinite(history[2][1]["update_norm"])


# ── Moving averages ──────────────────────────────────────────────────────────────────


def test_moving_averages_follow_their_recursion(trainer):
    decay = 0.25
    steps = trainer(ema_decay=decay)
    average = jax.device_get((steps.state.params, steps.state.model_state))
    for number, (after, _) in enumerate(steps.run(batches(6))):
        rate = min(decay, (1 + number) / (10 + number))
        average = jax.tree.map(
            lambda old, new, rate=rate: rate * old + (1 - rate) * np.asarray(new),
            average,
            (after.params, after.model_state),
        )
        assert_close(after.average, average)
    assert (1 + 0) / (10 + 0) < decay < (1 + 5) / (10 + 5), "both branches were used"
    assert_same(state.evaluated(after, steps.optimizer), after.average)


def test_the_mean_of_weights_begins_late_and_is_that_of_all_since(trainer):
    steps = trainer(swa_start=0.25)  # of 12 updates
    seen = []
    for after, _ in steps.run(batches(6)):
        seen.append(jax.device_get((after.params, after.model_state)))
        late = seen[3:] or seen[-1:]  # before, the weights themselves
        expected = jax.tree.map(lambda *each: np.mean(each, axis=0), *late)
        assert_close(after.average, expected)
    assert_same(state.evaluated(after, steps.optimizer), after.average)


def test_two_averages_are_refused(tiny):
    with pytest.raises(errors.UserError, match="two averages: leave one"):
        build.build(tiny(ema_decay=0.9, swa_start=0.5))


def test_without_averages_the_weights_are_evaluated(trainer):
    steps = trainer()
    assert steps.state.average is None
    weights = steps.state.params, steps.state.model_state
    assert_same(state.evaluated(steps.state, steps.optimizer), weights)
