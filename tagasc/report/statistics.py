"""Confidence intervals, significance tests and effect sizes.

Clips of one recording location are not independent. The bootstrap and the permutation test can therefore resample
whole locations. Tests that treat clips as independent are labelled so. A percentile interval of a few locations is too
narrow, so fewer than ``MIN_UNITS`` units get no interval.
"""

from collections.abc import Sequence

import numpy as np
import scipy.stats

Interval = tuple[float, float]  # lower and upper bound
MIN_UNITS = 10  # units that a bootstrap needs; below, its intervals cover far less than 95 %
LEVEL = 0.05  # p below which a permutation test is significant
_BATCH = 250  # resamples held in memory at a time


def bootstrap(values: np.ndarray, units: Sequence[str], draws: int = 2000, seed: int = 0) -> np.ndarray:
    """Compute 95 % percentile intervals of means over clips, drawing whole units with replacement.

    All rows of ``values`` share the draws, so the difference of two rows is a paired difference.

    Args:
        values: (..., clips), such as 1 for a recognised clip and 0 otherwise, or differences of these.
        units: unit of each clip: its recording location, or its id for an interval over clips.
        draws: bootstrap resamples.
        seed: random seed.

    Returns:
        (..., 2), lower and upper bounds; nan for fewer than ``MIN_UNITS`` units.
    """
    totals, counts = totals_by(values, units)
    if len(counts) < MIN_UNITS:
        return np.full((*totals.shape[:-1], 2), np.nan)

    def means(drawn: np.ndarray, axis: int) -> np.ndarray:
        """Compute the mean over clips of each resample: indices (resamples, units) → (..., resamples)."""
        rows = drawn + len(counts) * np.arange(len(drawn))[:, None]
        times = np.bincount(rows.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(float)
        return totals @ times.T / (times @ counts)

    indices = np.arange(len(counts))
    interval = scipy.stats.bootstrap(
        (indices,), means, n_resamples=draws, batch=_BATCH, method="percentile", vectorized=True, rng=seed
    ).confidence_interval
    return np.stack(interval, axis=-1)


def permutation_p(
    values: np.ndarray, base: np.ndarray, units: Sequence[str], resamples: int = 9999, seed: int = 0
) -> np.ndarray:
    """Compute two-sided p values of differences in accuracy, swapping whole units between each system and the base.

    If there are at most ``resamples`` permutations, all are evaluated and p is exact.

    Args:
        values: (systems, clips), accuracy by clip of the systems.
        base: (clips,), accuracy by clip of the system that they are compared with.
        units: unit of each clip: its recording location.
        resamples: random permutations.
        seed: random seed.

    Returns:
        (systems,).
    """
    totals, _ = totals_by(values, units)
    base_totals = np.broadcast_to(totals_by(base, units)[0], totals.shape)

    def difference(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
        return (first - second).sum(axis=axis)

    settings = {"permutation_type": "samples", "vectorized": True, "n_resamples": resamples, "batch": _BATCH}
    return scipy.stats.permutation_test((totals, base_totals), difference, axis=-1, rng=seed, **settings).pvalue


def is_significant(interval: Interval, p: float) -> bool:
    """Return whether a difference counts as significant: two tests over the same units agree.

    Args:
        interval: 95 % bootstrap interval of the difference; nan: unknown.
        p: of the permutation test.
    """
    return (interval[0] > 0 or interval[1] < 0) and p < LEVEL


def holm(p: Sequence[float]) -> np.ndarray:
    """Apply Holm's correction to a family of p values; return them in the given order, at most 1, (tests,)."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]).clip(max=1)
    return corrected


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the exact two-sided p of McNemar's test, treating clips as independent.

    Args:
        first: whether the first system recognises each clip, bool (clips,).
        second: the same for the second system.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differing = only_first + only_second
    return float(scipy.stats.binomtest(only_first, differing).pvalue) if differing else 1.0


def totals_by(values: np.ndarray, units: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sum over the clips of each unit: (..., clips) → (..., units); also return the clips per unit, (units,)."""
    names, unit_indices = np.unique(np.asarray(units), return_inverse=True)
    values = np.asarray(values, dtype=float)
    totals = np.zeros((len(names), *values.shape[:-1]))
    np.add.at(totals, unit_indices, np.moveaxis(values, -1, 0))
    return np.moveaxis(totals, 0, -1), np.bincount(unit_indices)


def mean_by_scene(values: np.ndarray, scene_indices: np.ndarray, scenes: int) -> np.ndarray:
    """Average over the clips of each scene: (clips, values) → (scenes, values)."""
    return np.array([values[scene_indices == scene].mean(axis=0) for scene in range(scenes)])


def eta_squared(values: np.ndarray, scene_indices: np.ndarray, scenes: int) -> np.ndarray:
    """Compute the share of each value's variance that is between scenes (η²): (clips, values) → (values,), 0 to 1."""
    means, counts = mean_by_scene(values, scene_indices, scenes), np.bincount(scene_indices, minlength=scenes)
    between = (counts[:, None] * (means - values.mean(axis=0)) ** 2).sum(axis=0)
    total = ((values - values.mean(axis=0)) ** 2).sum(axis=0)
    return np.divide(between, total, out=np.zeros_like(total), where=total > 0)


def attention_perplexity(maps: np.ndarray) -> np.ndarray:
    """Compute how many filters each head effectively uses: exp of the entropy, mean over clips.

    Args:
        maps: attention maps, (clips, heads, filters per head).

    Returns:
        (heads,), between 1 and the filters per head.
    """
    return np.exp(scipy.stats.entropy(maps, axis=2)).mean(axis=0)
