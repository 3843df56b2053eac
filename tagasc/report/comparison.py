"""Where each system stands against another: differences, their intervals and tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from tagasc.report.results import BASELINE, SVM, SystemResult
from tagasc.report.statistics import Interval, bootstrap, holm, mcnemar, permutation_p
from tagasc.scene.experiment import best_on_validation
from tagasc.scene.systems import System


@dataclass(frozen=True)
class Difference:
    """One system minus another, on the same clips; fractions, not percent.

    Attributes:
        mean: difference in accuracy, each the mean over the system's seeds.
        by_location: 95 % interval of a paired bootstrap over recording locations.
        by_clip: the same over clips, which treats them as independent.
        p: two-sided, of a permutation test that swaps whole locations.
        mcnemar_p: exact p of McNemar's test for the first seed that both have (treats clips as independent); None
            where they share no seed.
    """

    mean: float
    by_location: Interval
    by_clip: Interval
    p: float
    mcnemar_p: float | None
    seed_deviation: float | None

    @property
    def significant(self) -> bool:
        """Whether the interval over locations leaves out 0."""
        return self.by_location[0] > 0 or self.by_location[1] < 0

    def negated(self) -> "Difference":
        """The other system minus this one."""
        return replace(
            self,
            mean=-self.mean,
            by_location=(-self.by_location[1], -self.by_location[0]),
            by_clip=(-self.by_clip[1], -self.by_clip[0]),
        )


def accuracy_intervals(results: Sequence[SystemResult], split: str) -> dict[str, Interval]:
    """95 % interval over locations of each system's accuracy."""
    clips = results[0].clips
    bounds = bootstrap(
        np.array([result.accuracy_by_clip(split) for result in results]), clips.locations[clips.in_split(split)]
    )
    return {result.name: tuple(map(float, pair)) for result, pair in zip(results, bounds, strict=True)}


def compute_differences(results: Sequence[SystemResult], base: SystemResult, split: str) -> dict[str, Difference]:
    """Each system minus ``base``, by name; ``base`` itself is left out."""
    others = [result for result in results if result is not base]
    if not others:
        return {}
    here = base.clips.in_split(split)
    locations, ids = base.clips.locations[here], base.clips.ids[here]
    rights, of_base = np.array([result.accuracy_by_clip(split) for result in others]), base.accuracy_by_clip(split)
    gains = rights - of_base
    by_location, by_clip = bootstrap(gains, locations), bootstrap(gains, ids)
    p = permutation_p(rights, of_base, locations)
    return {
        result.name: Difference(
            float(gains[n].mean()),
            tuple(map(float, by_location[n])),
            tuple(map(float, by_clip[n])),
            float(p[n]),
            _mcnemar_p(result, base, split),
            _seed_deviation(result, base, split),
        )
        for n, result in enumerate(others)
    }


def _seed_deviation(one: SystemResult, other: SystemResult, split: str) -> float | None:
    of_one, of_other = (dict(zip(each.seeds, each.accuracy_by_seed(split), strict=True)) for each in (one, other))
    gains = [of_one[seed] - of_other[seed] for seed in of_one.keys() & of_other.keys()]
    return float(np.std(gains, ddof=1)) if len(gains) >= 3 else None


def _mcnemar_p(one: SystemResult, other: SystemResult, split: str) -> float | None:
    shared = sorted(set(one.seeds) & set(other.seeds))
    if not shared:
        return None
    here = one.clips.in_split(split)
    rights = [
        next(run.predictions[SVM] for run in result.runs if run.seed == shared[0])[here]
        == result.clips.scene_indices[here]
        for result in (one, other)
    ]
    return mcnemar(*rights)


@dataclass(frozen=True)
class Comparison:
    """All that the sections speak of.

    Attributes:
        experiment: folder of the experiment.
        results: every scored system, controls and tags alone last.
        systems: the records of the systems, by table.
        best: the ranked system that is best on validation.
        tag_vectors: the tag vectors of the test clips.
        out: folder of the report.
        watermark: a word on every picture, such as "synthetic"; may be empty.
    """

    experiment: Path
    results: Sequence[SystemResult]
    systems: Mapping[str, Mapping[str, System]]
    best: SystemResult
    tag_vectors: Path
    out: Path
    watermark: str = ""

    @cached_property
    def by_name(self) -> dict[str, SystemResult]:
        """The results by name."""
        return {result.name: result for result in self.results}

    @property
    def baseline(self) -> SystemResult | None:
        """The baseline, if it was run."""
        return self.by_name.get(BASELINE)

    @cached_property
    def baseline_and_best(self) -> list[SystemResult]:
        """The baseline and the best system beside it; where the baseline is the best, the best of the others."""
        if self.baseline is None or self.best is not self.baseline:
            return [self.best] if self.baseline is None else [self.baseline, self.best]
        others = [result for result in self.results if result.is_ranked and result is not self.baseline]
        return [self.baseline, *([max(others, key=lambda one: one.validation_by_seed().mean())] if others else [])]

    @property
    def best_with_attention(self) -> SystemResult | None:
        """The system with attention that is best on validation, if one was run."""
        systems = {name: system for table in self.systems.values() for name, system in table.items()}
        names = [result.name for result in self.results if result.name in systems and systems[result.name].heads]
        best = best_on_validation(self.experiment, names)
        return None if best is None else self.by_name[best]

    @cached_property
    def confidence_intervals(self) -> dict[str, Interval]:
        """Each system's interval over locations, on test."""
        return accuracy_intervals(self.results, "test")

    @cached_property
    def to_baseline(self) -> dict[str, Difference]:
        """Each system minus the baseline, on test; nothing without a baseline."""
        return compute_differences(self.results, self.baseline, "test") if self.baseline else {}

    @cached_property
    def holms_p(self) -> dict[str, float]:
        """Holm's p of each ranked system's difference to the baseline, of all of them one family."""
        ranked = [name for name in self.to_baseline if self.by_name[name].is_ranked]
        corrected = holm([self.to_baseline[name].p for name in ranked])
        return dict(zip(ranked, map(float, corrected), strict=True))
