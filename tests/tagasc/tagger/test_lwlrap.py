import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagasc.tagger.lwlrap import lwlrap, lwlrap_by_class

TRUTH = np.array([[1, 0, 1, 0], [0, 1, 0, 0]])
SCORES = np.array([[0.9, 0.8, 0.7, 0.1], [0.2, 0.1, 0.4, 0.3]])


def by_definition(truth, scores):
    """Mean over all labels of the precision at that label's rank, written out."""
    precisions = []
    for labels, values in zip(truth, scores, strict=True):
        for label in np.flatnonzero(labels):
            above = [other for other in range(len(values)) if values[other] >= values[label]]
            precisions.append(sum(labels[other] for other in above) / len(above))
    return np.mean(precisions)


def test_worked_example():
    assert lwlrap(TRUTH, SCORES) == pytest.approx(0.638889, abs=1e-6)


random_case = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@given(random_case)
def test_definition_order_and_classes(random):
    truth = (random.random((12, 5)) < 0.3).astype(int)
    truth[0, 0] = 1
    scores = random.integers(0, 6, (12, 5)) / 5  # ties
    found = lwlrap(truth, scores)
    assert found == pytest.approx(by_definition(truth, scores))
    order = random.permutation(12)
    assert lwlrap(truth[order], scores[order]) == pytest.approx(found)
    by_class, labels = lwlrap_by_class(truth, scores), truth.sum(axis=0)
    assert np.nansum(by_class * labels) / labels.sum() == pytest.approx(found)


def test_clips_without_labels_do_not_count():
    truth, scores = np.vstack([TRUTH, np.zeros(4)]), np.vstack([SCORES, np.ones(4)])
    assert lwlrap(truth, scores) == pytest.approx(lwlrap(TRUTH, SCORES))
    assert np.isnan(lwlrap(np.zeros((2, 3)), np.ones((2, 3))))


def test_equal_scores_have_the_last_rank():
    """The released code of [13] ranks them in the order of the classes, here with 1 and 1/2."""
    truth, scores = np.array([[1, 0], [0, 1]]), np.full((2, 2), 0.5)
    assert lwlrap(truth, scores) == 0.5
    by_order = [lwlrap(truth[[n]], scores[[n]] - 1e-9 * np.arange(2)) for n in (0, 1)]
    assert by_order == [1, 0.5]
