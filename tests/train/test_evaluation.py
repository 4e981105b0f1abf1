"""Every example counts exactly once, on its true label."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import errors
from sam_jax.data import augment
from sam_jax.train import build, evaluation, losses, scores, settings, step
from tests.data import images
from tests.train.steps import SHAPE, assert_close, batches


def reference(run, source, params):
    """Loss and accuracy of the MLP in NumPy, all examples at once."""
    split = source.split
    images = np.asarray(
        augment.normalize(split.images, run.dataset.mean, run.dataset.std)
    )
    hidden, head = (params[name] for name in ("Dense_0", "Dense_1"))
    x = images.reshape(len(images), -1).astype(np.float64)
    x = np.maximum(x @ hidden["kernel"] + hidden["bias"], 0)
    logits = x @ head["kernel"] + head["bias"]
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return {
        "loss": -logp[np.arange(len(logp)), split.true_labels].mean(),
        "accuracy": np.mean(logp.argmax(-1) == split.true_labels),
    }


@pytest.mark.parametrize(
    ("eval_batch_size", "devices"), [(500, 1), (97, 1), (2000, 1), (5, 8)]
)
def test_every_example_counts_once(tiny, eval_batch_size, devices):
    settings = {"eval_batch_size": eval_batch_size, "mesh.data": devices}
    run = build.build(tiny(**settings))
    start = run.init(run.seed)
    told = {}
    scores = evaluation.evaluate(run, start, told.__setitem__)
    params = jax.device_get(start.params)
    assert set(scores) == {"validation", "test"}
    for name, seen in scores.items():
        source = getattr(run.dataset, name)
        expected = reference(run, source, params)
        assert seen["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-9)
        assert seen["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        each = told[name]
        np.testing.assert_array_equal(each.label, source.split.true_labels)
        right = each.predicted == each.label
        assert right.mean() == pytest.approx(seen["accuracy"], abs=1e-9)
        assert each.nll.mean() == pytest.approx(seen["loss"], rel=1e-5)
        np.testing.assert_array_equal(right, each.rank == 0)
    assert run.eval_step._cache_size() == 1


def streamed(tiny, folder, broken, **changes):
    """A run on a streamed folder, some of whose images are broken."""
    sizes = {"train/a": 4, "train/b": 4, "val/a": 7, "val/b": 7}
    images.folder(folder, sizes)
    for name in broken:
        (folder / name).write_text("none")
    given = {"name": "folder", "path": str(folder), "stream": True, "image_size": 4}
    given |= {"skip_broken": True, "train_examples": None, "validation": 0}
    given = {f"data.{key}": value for key, value in given.items()}
    return build.build(tiny(batch_size=2, eval_batch_size=3, **given, **changes))


@pytest.mark.parametrize("devices", [1, 2])
def test_broken_images_of_a_stream_do_not_count(tiny, tmp_path, devices):
    # In the middle, and one batch of nothing else.
    broken = [f"val/a/{number}.png" for number in (1, 3, 4, 5)] + ["val/b/6.png"]
    run = streamed(tiny, tmp_path, broken, **{"mesh.data": devices})
    told = {}
    found = evaluation.evaluate(run, run.init(run.seed), told.__setitem__)["test"]
    each = told["test"]
    np.testing.assert_array_equal(each.label, [0] * 3 + [1] * 6)
    of_each = scores.of_predictions(each, ("a", "b"))
    assert of_each.accuracy == pytest.approx(found["accuracy"], abs=1e-9)
    assert of_each.loss == pytest.approx(found["loss"], rel=1e-5)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_of_nothing_but_broken_images_is_refused(tiny, tmp_path, split):
    run = streamed(tiny, tmp_path, [])
    source = run.dataset.test

    class Masked:
        num_examples = source.num_examples

        def eval_batches(self, *args):
            for batch in source.eval_batches(*args):
                yield batch | {"mask": np.zeros_like(batch["mask"])}

    dataset = dataclasses.replace(run.dataset, **{split: Masked()})
    with pytest.raises(errors.UserError, match=f"none of the 14 {split} examples of"):
        evaluation.evaluate(
            dataclasses.replace(run, dataset=dataset), run.init(run.seed)
        )


def test_label_noise_is_for_training_only(tiny):
    clean, noisy = (
        build.build(tiny(**{"data.label_noise": noise})) for noise in (0.0, 0.5)
    )
    start = clean.init(clean.seed)
    split = noisy.dataset.train.split
    assert np.mean(split.labels != split.true_labels) == 0.5
    assert evaluation.evaluate(noisy, start) == evaluation.evaluate(clean, start)
    # Should a split to evaluate carry wrong labels, they do not count.
    splits = type("Splits", (), {"validation": None, "test": noisy.dataset.train})
    on_training = dataclasses.replace(noisy, dataset=splits)
    expected = reference(noisy, noisy.dataset.train, jax.device_get(start.params))
    seen = evaluation.evaluate(on_training, start)
    assert seen["test"]["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_averages_are_evaluated_where_there_are_some(tiny):
    run = build.build(tiny(ema_decay=0.9))
    first, second = (run.init(np.uint32(seed)) for seed in (0, 1))
    mixed = first._replace(average=second.average)
    assert evaluation.evaluate(run, mixed) == evaluation.evaluate(run, second)
    assert evaluation.evaluate(run, mixed) != evaluation.evaluate(run, first)


def test_without_validation_only_the_test_is_evaluated(tiny):
    run = build.build(tiny(**{"data.validation": 0}))
    assert set(evaluation.evaluate(run, run.init(run.seed))) == {"test"}


def test_evaluation_step_sums_what_the_mask_keeps_on_true_labels(net):
    model = net()
    params, statistics = model.init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    batch = next(batches(1))
    mask = np.arange(32) < 20
    # Padding may be anything.
    batch["image"][~mask] = 255
    normalize = augment.make_normalize(mean=(0.5,), std=(0.25,))

    measure = losses.make_losses(settings.Settings(), 10).measure
    seen, of_each = step.make_eval_step(model, measure, normalize)(
        params, statistics, {**batch, "mask": mask}
    )
    kept = batch["image"][mask] / np.float32(255)
    logits, _ = model.apply(params, statistics, (kept - 0.5) / 0.25, train=False)
    logp = np.asarray(jax.nn.log_softmax(logits))
    labels = batch["true_label"][mask]
    expected = {
        "loss": -logp[np.arange(20), labels].sum(),
        "accuracy": np.sum(logp.argmax(-1) == labels),
        "examples": 20,
    }
    assert_close(seen, expected)
    assert [x.shape for x in of_each] == [(32,)] * 5
    np.testing.assert_array_equal(of_each.predicted[mask], logp.argmax(-1))
    assert_close(of_each.nll[mask], -logp[np.arange(20), labels])
