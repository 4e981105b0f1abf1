"""Every example counts exactly once, on its true label."""

import dataclasses

import jax
import numpy as np
import pytest

from sam_jax.data import augment
from sam_jax.train import build, evaluation


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
