import itertools

import numpy as np
import pytest
from sklearn.feature_selection import f_classif

from tagasc.report.statistics import attention_perplexity, bootstrap, eta_squared, holm, mcnemar, permutation_p

RANDOM = np.random.default_rng(0)
LOCATIONS = np.array(["a", "a", "a", "b", "b", "c", "c", "c", "c", "d"])
VALUES = RANDOM.random((3, 10))


def by_loop(values, locations, draws, seed):
    """The bootstrap written out: draw locations, pool their clips, take the mean."""
    names, random, means = sorted(set(locations)), np.random.default_rng(seed), []
    for _ in range(draws):
        pooled = [values[locations == names[n]] for n in random.integers(len(names), size=len(names))]
        means.append(np.concatenate(pooled).mean())
    return np.percentile(means, [2.5, 97.5])


def test_bootstrap_is_that_of_a_plain_loop_with_the_same_draws():
    found = bootstrap(VALUES, LOCATIONS, draws=600, seed=3)
    assert found.shape == (3, 2)
    for row, bounds in zip(VALUES, found, strict=True):
        np.testing.assert_allclose(bounds, by_loop(row, LOCATIONS, 600, 3))


def test_rows_see_the_same_draws():
    """So a constant shift shifts the bounds, and the difference of two such rows is certain."""
    shifted = bootstrap(np.stack([VALUES[0], VALUES[0] + 1]), LOCATIONS)
    np.testing.assert_allclose(shifted[1], shifted[0] + 1)


def test_intervals_over_locations_are_wider_than_over_clips():
    """Clips that are right or wrong by whole locations carry the information of the locations only."""
    random = np.random.default_rng(0)
    locations = np.repeat(np.arange(20), 50).astype(str)
    values = np.repeat((random.random(20) < 0.5).astype(float), 50)
    low, high = bootstrap(values, locations)
    one, other = bootstrap(values, np.arange(1000).astype(str))
    assert high - low > 4 * (other - one)
    assert low <= values.mean() <= high
    assert np.isnan(bootstrap(values, ["a"] * 1000)[0])


def test_interval_covers_the_truth_about_as_often_as_it_says():
    random, covered = np.random.default_rng(1), 0
    for trial in range(200):
        places = random.random(40) < 0.6
        low, high = bootstrap(places.astype(float), np.arange(40).astype(str), draws=400, seed=trial)
        covered += low <= 0.6 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_permutation_swaps_whole_locations():
    """Against all 2^4 ways of swapping, written out; the difference of a location's clips stays together."""
    one, other = np.array([[1, 1, 1, 1, 0, 1, 1, 1, 0, 1.0]]), np.array([0, 0, 1, 1, 0, 0, 0, 0, 1, 1.0])
    totals = [float((one[0] - other)[name == LOCATIONS].sum()) for name in "abcd"]
    sums = [sum(sign * total for sign, total in zip(signs, totals, strict=True))
            for signs in itertools.product((1, -1), repeat=4)]  # fmt: skip
    expected = np.mean([abs(value) >= abs(sum(totals)) for value in sums])
    assert permutation_p(one, other, LOCATIONS) == pytest.approx([expected])
    assert permutation_p(other[None], other, LOCATIONS) == pytest.approx([1.0])


def test_a_drawn_permutation_p_is_near_the_exact_one():
    """12 locations: 4096 ways of swapping are all taken; 900 drawn ones must agree within their error."""
    locations = np.repeat(np.arange(12), 5).astype(str)
    one = (RANDOM.random((4, 60)) < 0.7).astype(float)
    other = (RANDOM.random(60) < 0.5).astype(float)
    exact, drawn = permutation_p(one, other, locations), permutation_p(one, other, locations, resamples=900)
    np.testing.assert_allclose(drawn, exact, atol=0.06)
    assert exact.min() < 0.5


def test_holm_by_hand():
    """Sorted: 0.01 × 4, 0.02 × 3, 0.03 × 2, 0.04 × 1, each at least the one before."""
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.5, 0.9]), [1, 1])


def test_mcnemar_by_hand():
    """Of 5 clips on which only one is right, all are the first system's: p = 2 / 2^5."""
    one, other = np.array([1, 1, 1, 1, 1, 1, 0]) > 0, np.array([0, 0, 0, 0, 0, 1, 0]) > 0
    assert mcnemar(one, other) == pytest.approx(2 / 32)
    assert mcnemar(other, one) == pytest.approx(2 / 32)
    assert mcnemar(one, one) == 1


SCENES = np.arange(60) % 3
TAGS = np.random.default_rng(1).random((60, 4)) + np.eye(3, 4)[SCENES]


def test_dependence_is_the_share_of_variance_between_scenes():
    """η² follows from the F of an analysis of variance with 3 groups and 60 clips."""
    f, _ = f_classif(TAGS, SCENES)
    np.testing.assert_allclose(eta_squared(TAGS, SCENES, 3), 2 * f / (2 * f + 57))
    assert eta_squared(np.ones((60, 1)), SCENES, 3).tolist() == [0]


def test_effective_filters():
    even, one = np.ones((2, 1, 4)), np.array([[[4.0, 0, 0, 0]]] * 2)
    np.testing.assert_allclose(attention_perplexity(np.concatenate([even, one], axis=1)), [4, 1], rtol=1e-6)
