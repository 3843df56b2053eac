"""How sure one can be of a figure or of a difference: bootstrap, permutation, Holm's correction, McNemar's test.

Clips of one recording location are not independent, so the bootstrap and the permutation test can take whole
locations; a test that treats clips as independent says so.
"""

from collections.abc import Sequence

import numpy as np
import scipy.stats

Interval = tuple[float, float]
_BLOCK = 250  # draws held in memory at a time


def bootstrap(values: np.ndarray, units: Sequence[str], draws: int = 2000, seed: int = 0) -> np.ndarray:
    """95 % percentile intervals of means over clips, drawing whole units with replacement.

    All rows of ``values`` see the same draws, so that a difference of rows is a paired difference.

    Args:
        values: (..., clips), for instance 1 where a clip is right and 0 where it is wrong, or differences of such.
        units: each clip's unit: its recording location; its own id for an interval over single clips.
        draws: how often the units are drawn.
        seed: of the drawing.

    Returns:
        (..., 2), lower and upper bounds; nan with fewer than two units.
    """
    totals, counts = totals_by(values, units)
    if len(counts) < 2:
        return np.full((*totals.shape[:-1], 2), np.nan)

    def means(drawn: np.ndarray, axis: int) -> np.ndarray:
        rows = drawn + len(counts) * np.arange(len(drawn))[:, None]
        times = np.bincount(rows.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(float)
        return totals @ times.T / (times @ counts)

    numbers = np.arange(len(counts))
    interval = scipy.stats.bootstrap(
        (numbers,), means, n_resamples=draws, batch=_BLOCK, method="percentile", vectorized=True, rng=seed
    ).confidence_interval
    return np.stack(interval, axis=-1)


def permutation_p(
    values: np.ndarray, base: np.ndarray, units: Sequence[str], resamples: int = 9999, seed: int = 0
) -> np.ndarray:
    """Two-sided p of differences in accuracy, swapping whole units between each system and the base.

    With so few units that all ways of swapping are no more than ``resamples``, all are taken and p is exact.

    Args:
        values: (systems, clips), the systems' right and wrong answers.
        base: (clips,), those of the system they are compared to.
        units: each clip's unit, its recording location.
        resamples: how many ways of swapping are drawn.
        seed: of the drawing.

    Returns:
        (systems,).
    """
    ours, _ = totals_by(values, units)
    theirs = np.broadcast_to(totals_by(base, units)[0], ours.shape)

    def difference(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
        return (one - other).sum(axis=axis)

    settings = {"permutation_type": "samples", "vectorized": True, "n_resamples": resamples, "batch": _BLOCK}
    return scipy.stats.permutation_test((ours, theirs), difference, axis=-1, rng=seed, **settings).pvalue


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's correction of a family of p values: (tests,), in the order given, at most 1."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]).clip(max=1)
    return corrected


def mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    """Exact two-sided McNemar's test of two systems' right answers, bool (clips,); treats clips as independent."""
    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    return float(scipy.stats.binomtest(only_one, only_one + only_other).pvalue) if only_one + only_other else 1.0


def totals_by(values: np.ndarray, units: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the clips of each unit: (..., clips) → (..., units), and the number of clips of each, (units,)."""
    names, of_clip = np.unique(np.asarray(units), return_inverse=True)
    values = np.asarray(values, dtype=float)
    totals = np.zeros((len(names), *values.shape[:-1]))
    np.add.at(totals, of_clip, np.moveaxis(values, -1, 0))
    return np.moveaxis(totals, 0, -1), np.bincount(of_clip)


def mean_by_scene(values: np.ndarray, scene_indices: np.ndarray, scenes: int) -> np.ndarray:
    """Means over the clips of each scene: (clips, values) and positions of the scenes (clips,) → (scenes, values)."""
    return np.array([values[scene_indices == scene].mean(axis=0) for scene in range(scenes)])


def eta_squared(values: np.ndarray, scene_indices: np.ndarray, scenes: int) -> np.ndarray:
    """Share of each value's variance over clips that lies between scenes (η²): (clips, values) → (values,), 0..1."""
    means, counts = mean_by_scene(values, scene_indices, scenes), np.bincount(scene_indices, minlength=scenes)
    between = (counts[:, None] * (means - values.mean(axis=0)) ** 2).sum(axis=0)
    total = ((values - values.mean(axis=0)) ** 2).sum(axis=0)
    return np.divide(between, total, out=np.zeros_like(total), where=total > 0)


def attention_perplexity(maps: np.ndarray) -> np.ndarray:
    """How many filters each head spreads its attention over: exp of the entropy, mean over clips, (heads,)."""
    return np.exp(scipy.stats.entropy(maps, axis=2)).mean(axis=0)
