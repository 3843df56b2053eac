import itertools

import numpy as np
import pytest
from sklearn.feature_selection import f_classif

from tagasc.report.statistics import (
    attention_perplexity,
    bootstrap,
    eta_squared,
    holm,
    is_significant,
    mcnemar,
    permutation_p,
)

RANDOM = np.random.default_rng(0)
LOCATIONS = np.array(["a", "a", "a", "b", "b", "c", "c", "c", "c", "d"])
VALUES = RANDOM.random((3, 10))
TEN = np.array(list("abbcdefghhhij"))  # the fewest units that have an interval
LONGER = RANDOM.random((3, len(TEN)))


def by_loop(values, locations, draws, seed):
    """Bootstrap in a plain loop: draw locations, pool their clips, take the mean."""
    names, random, means = sorted(set(locations)), np.random.default_rng(seed), []
    for _ in range(draws):
        pooled = [values[locations == names[n]] for n in random.integers(len(names), size=len(names))]
        means.append(np.concatenate(pooled).mean())
    return np.percentile(means, [2.5, 97.5])


def test_bootstrap_equals_a_plain_loop_with_the_same_draws():
    intervals = bootstrap(LONGER, TEN, draws=600, seed=3)
    assert intervals.shape == (3, 2)
    for row, interval in zip(LONGER, intervals, strict=True):
        np.testing.assert_allclose(interval, by_loop(row, TEN, 600, 3))


def test_rows_share_the_draws():
    """A constant shift of the values shifts the interval."""
    shifted = bootstrap(np.stack([LONGER[0], LONGER[0] + 1]), TEN)
    np.testing.assert_allclose(shifted[1], shifted[0] + 1)


def test_intervals_over_locations_are_wider_than_over_clips():
    """If all clips of a location agree, they carry as much information as the location."""
    random = np.random.default_rng(0)
    locations = np.repeat(np.arange(20), 50).astype(str)
    values = np.repeat((random.random(20) < 0.5).astype(float), 50)
    low, high = bootstrap(values, locations)
    clip_low, clip_high = bootstrap(values, np.arange(1000).astype(str))
    assert high - low > 4 * (clip_high - clip_low)
    assert low <= values.mean() <= high


@pytest.mark.parametrize("units", [1, 2, 9])
def test_fewer_than_ten_locations_have_no_interval(units):
    """However many clips they have, and however clear the difference is."""
    assert np.isnan(bootstrap(np.ones((2, 900)), np.arange(900).astype(str)[np.arange(900) % units])).all()
    assert not np.isnan(bootstrap(np.ones(900), np.arange(900) % 10)).any()


def test_significance_needs_interval_and_permutation_test_to_agree():
    assert is_significant((0.01, 0.2), 0.049)
    assert is_significant((-0.2, -0.01), 0.049)
    assert not is_significant((0.01, 0.2), 0.051)
    assert not is_significant((-0.01, 0.2), 0.001)
    assert not is_significant((np.nan, np.nan), 0.001)


def test_an_interval_that_the_exact_test_contradicts_is_not_significant():
    """A gain in four of ten locations, and no change in the others: p = 2 / 2^4."""
    locations, base = np.arange(10).astype(str), np.zeros(10)
    gain = np.array([1.0] * 4 + [0.0] * 6)
    interval, p = bootstrap(gain, locations), permutation_p(gain[None], base, locations)[0]
    assert interval[0] > 0
    assert p == pytest.approx(2 / 16)
    assert not is_significant(interval, p)


def test_intervals_have_about_nominal_coverage():
    random, covered = np.random.default_rng(1), 0
    for trial in range(200):
        correct = random.random(40) < 0.6
        low, high = bootstrap(correct.astype(float), np.arange(40).astype(str), draws=400, seed=trial)
        covered += low <= 0.6 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_permutation_swaps_whole_locations():
    """Compare with all 2^4 permutations."""
    first, second = np.array([[1, 1, 1, 1, 0, 1, 1, 1, 0, 1.0]]), np.array([0, 0, 1, 1, 0, 0, 0, 0, 1, 1.0])
    totals = [float((first[0] - second)[name == LOCATIONS].sum()) for name in "abcd"]
    sums = [sum(sign * total for sign, total in zip(signs, totals, strict=True))
            for signs in itertools.product((1, -1), repeat=4)]  # fmt: skip
    expected = np.mean([abs(value) >= abs(sum(totals)) for value in sums])
    assert permutation_p(first, second, LOCATIONS) == pytest.approx([expected])
    assert permutation_p(second[None], second, LOCATIONS) == pytest.approx([1.0])


def test_random_permutations_approximate_the_exact_p():
    """12 locations have 4096 permutations."""
    locations = np.repeat(np.arange(12), 5).astype(str)
    first = (RANDOM.random((4, 60)) < 0.7).astype(float)
    second = (RANDOM.random(60) < 0.5).astype(float)
    exact, drawn = permutation_p(first, second, locations), permutation_p(first, second, locations, resamples=900)
    np.testing.assert_allclose(drawn, exact, atol=0.06)
    assert exact.min() < 0.5


def test_holms_correction():
    """Sorted: 0.01 × 4, 0.02 × 3, 0.03 × 2, 0.04 × 1, none below its predecessor."""
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.5, 0.9]), [1, 1])


def test_mcnemar():
    """On 5 clips only the first system is correct, on none only the second: p = 2 / 2^5."""
    first, second = np.array([1, 1, 1, 1, 1, 1, 0]) > 0, np.array([0, 0, 0, 0, 0, 1, 0]) > 0
    assert mcnemar(first, second) == pytest.approx(2 / 32)
    assert mcnemar(second, first) == pytest.approx(2 / 32)
    assert mcnemar(first, first) == 1


SCENES = np.arange(60) % 3
TAGS = np.random.default_rng(1).random((60, 4)) + np.eye(3, 4)[SCENES]


def test_eta_squared_agrees_with_an_analysis_of_variance():
    """With 3 groups and 60 clips, η² = 2 F / (2 F + 57)."""
    f, _ = f_classif(TAGS, SCENES)
    np.testing.assert_allclose(eta_squared(TAGS, SCENES, 3), 2 * f / (2 * f + 57))
    assert eta_squared(np.ones((60, 1)), SCENES, 3).tolist() == [0]


def test_perplexity_of_uniform_and_concentrated_attention():
    even, one = np.ones((2, 1, 4)), np.array([[[4.0, 0, 0, 0]]] * 2)
    np.testing.assert_allclose(attention_perplexity(np.concatenate([even, one], axis=1)), [4, 1], rtol=1e-6)
