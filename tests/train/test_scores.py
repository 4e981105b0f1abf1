"""Scores of predictions, against scikit-learn and a plain loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from sam_jax.train import scores


def drawn(seed, examples, classes):
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (examples, classes)).astype(np.float32)
    labels = generator.integers(0, classes, examples)
    return logits, labels, scores.score(logits, labels, tuple(map(str, range(classes))))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(2, 9))
def test_as_scikit_learn_computes_them(seed, examples, classes):
    logits, labels, found = drawn(seed, examples, classes)
    every = list(range(classes))
    exp = np.exp(logits.astype(np.float64))
    probabilities = exp / exp.sum(1, keepdims=True)
    predicted = probabilities.argmax(1)
    assert found.examples == examples
    assert found.accuracy == pytest.approx((predicted == labels).mean())
    loss = -np.log(probabilities[np.arange(examples), labels]).mean()
    assert found.loss == pytest.approx(loss)
    matrix = metrics.confusion_matrix(labels, predicted, labels=every)
    np.testing.assert_array_equal(found.confusion, matrix)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=np.nan
    )
    np.testing.assert_allclose(found.precision, precision)
    np.testing.assert_allclose(found.recall, recall)
    np.testing.assert_allclose(found.f1, f1)
    np.testing.assert_array_equal(found.support, support)
    if classes > 5:
        top = metrics.top_k_accuracy_score(labels, logits, k=5, labels=every)
        assert found.top_5 == pytest.approx(top)
    else:
        assert found.top_5 == 1


def test_calibration_error_bin_by_bin():
    logits, labels, found = drawn(0, 500, 4)
    exp = np.exp(logits.astype(np.float64))
    probabilities = exp / exp.sum(1, keepdims=True)
    error = 0.0
    for low in range(15):
        confidence = probabilities.max(1)
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            right = (probabilities.argmax(1) == labels)[inside].mean()
            error += inside.mean() * abs(right - confidence[inside].mean())
    assert found.ece == pytest.approx(error)
    assert error > 0.1


def test_sure_and_right_is_perfect_and_equals_are_ranked_by_number():
    sure = scores.score(1e4 * np.eye(3), np.arange(3), ("a", "b", "c"))
    assert (sure.loss, sure.accuracy, sure.ece) == (0, 1, 0)
    flat = scores.score(np.zeros((7, 7)), np.arange(7), tuple("abcdefg"))
    assert flat.accuracy == pytest.approx(1 / 7)
    assert flat.top_5 == pytest.approx(5 / 7)


def test_a_class_that_nobody_saw_has_no_scores():
    found = scores.score(np.eye(3)[:2], np.arange(2), ("a", "b", "c"))
    *_, last = found.per_class()
    assert last["class"] == "c"
    assert last["support"] == 0
    assert np.isnan([last["precision"], last["recall"], last["f1"]]).all()
    assert found.plain()["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
