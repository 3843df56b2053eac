import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagasc.metrics import class_averaged, location_bootstrap, lwlrap, lwlrap_by_class

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


def test_intervals_over_locations_are_wider_than_over_clips():
    """Clips that are right or wrong by whole locations carry the information of the locations only."""
    random = np.random.default_rng(0)
    locations = np.repeat(np.arange(20), 50).astype(str)
    values = np.repeat((random.random(20) < 0.5).astype(float), 50)
    low, high = location_bootstrap(values, locations)
    one, other = location_bootstrap(values, np.arange(1000).astype(str))
    assert high - low > 4 * (other - one)
    assert low <= values.mean() <= high
    assert np.isnan(location_bootstrap(values, ["a"] * 1000)[0])


def test_interval_covers_the_truth_about_as_often_as_it_says():
    random, covered = np.random.default_rng(1), 0
    for trial in range(200):
        places = random.random(40) < 0.6
        low, high = location_bootstrap(places.astype(float), np.arange(40).astype(str), draws=400, seed=trial)
        covered += low <= 0.6 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_class_average_weighs_classes_alike():
    assert class_averaged(["a", "a", "a", "b"], ["a", "a", "a", "a"]) == 0.5
