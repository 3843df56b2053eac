"""Where each system stands against another: differences, their intervals and tests."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tagasc.results import SVM, SystemResult
from tagasc.statistics import bootstrap, mcnemar, permutation_p

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """One system minus another, on the same clips; fractions, not percent.

    Attributes:
        mean: difference in accuracy, each the mean over the system's seeds.
        by_location: 95 % interval of a paired bootstrap over recording locations.
        by_clip: the same over clips, which treats them as independent.
        p: two-sided, of a permutation test that swaps whole locations.
        mcnemar: exact p of McNemar's test for the first seed that both have (treats clips as independent); None
            where they share no seed.
    """

    mean: float
    by_location: Bounds
    by_clip: Bounds
    p: float
    mcnemar: float | None
    spread: float | None

    @property
    def shown(self) -> bool:
        """Whether the interval over locations leaves out 0."""
        return self.by_location[0] > 0 or self.by_location[1] < 0

    def turned(self) -> "Difference":
        """The other system minus this one."""
        return replace(
            self,
            mean=-self.mean,
            by_location=(-self.by_location[1], -self.by_location[0]),
            by_clip=(-self.by_clip[1], -self.by_clip[0]),
        )


def intervals(results: Sequence[SystemResult], split: str) -> dict[str, Bounds]:
    """95 % interval over locations of each system's accuracy."""
    clips = results[0].clips
    bounds = bootstrap(np.array([result.right(split) for result in results]), clips.locations[clips.of(split)])
    return {result.name: tuple(map(float, pair)) for result, pair in zip(results, bounds, strict=True)}


def differences(results: Sequence[SystemResult], base: SystemResult, split: str) -> dict[str, Difference]:
    """Each system minus ``base``, by name; ``base`` itself is left out."""
    others = [result for result in results if result is not base]
    if not others:
        return {}
    here = base.clips.of(split)
    locations, ids = base.clips.locations[here], base.clips.ids[here]
    rights, of_base = np.array([result.right(split) for result in others]), base.right(split)
    gains = rights - of_base
    by_location, by_clip = bootstrap(gains, locations), bootstrap(gains, ids)
    p = permutation_p(rights, of_base, locations)
    return {
        result.name: Difference(
            float(gains[n].mean()),
            tuple(map(float, by_location[n])),
            tuple(map(float, by_clip[n])),
            float(p[n]),
            _mcnemar(result, base, split),
            _spread(result, base, split),
        )
        for n, result in enumerate(others)
    }


def _spread(one: SystemResult, other: SystemResult, split: str) -> float | None:
    of_one, of_other = (dict(zip(each.seeds, each.accuracies(split), strict=True)) for each in (one, other))
    gains = [of_one[seed] - of_other[seed] for seed in of_one.keys() & of_other.keys()]
    return float(np.std(gains, ddof=1)) if len(gains) >= 3 else None


def _mcnemar(one: SystemResult, other: SystemResult, split: str) -> float | None:
    shared = sorted(set(one.seeds) & set(other.seeds))
    if not shared:
        return None
    here = one.clips.of(split)
    rights = [
        next(run.named[SVM] for run in result.runs if run.seed == shared[0])[here] == result.clips.truth[here]
        for result in (one, other)
    ]
    return mcnemar(*rights)
