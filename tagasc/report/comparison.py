"""Compare systems with each other: differences in accuracy, their confidence intervals and tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from tagasc.report.results import BASELINE, SVM, SystemResult
from tagasc.report.statistics import Interval, bootstrap, holm, is_significant, mcnemar, permutation_p
from tagasc.scene.experiment import best_on_validation
from tagasc.scene.systems import System


@dataclass(frozen=True)
class Difference:
    """One system minus another on the same clips; fractions, not percent.

    Attributes:
        mean: difference of the accuracies, each a mean over seeds.
        locations: number of recording locations of the clips.
        by_location: 95 % confidence interval, paired bootstrap over recording locations; nan for too few of them.
        by_clip: the same over clips, treating them as independent.
        p: two-sided, of a permutation test that swaps whole locations.
        mcnemar_p: exact p of McNemar's test for the first shared seed, treating clips as independent; None without a
            shared seed.
        seed_deviation: standard deviation of the difference over shared seeds; None for fewer than three.
    """

    mean: float
    locations: int
    by_location: Interval
    by_clip: Interval
    p: float
    mcnemar_p: float | None
    seed_deviation: float | None

    @property
    def significant(self) -> bool:
        """Whether the confidence interval over locations excludes 0 and the permutation test agrees."""
        return is_significant(self.by_location, self.p)

    def negated(self) -> "Difference":
        """Return the second system minus the first."""
        return replace(
            self,
            mean=-self.mean,
            by_location=(-self.by_location[1], -self.by_location[0]),
            by_clip=(-self.by_clip[1], -self.by_clip[0]),
        )


def accuracy_intervals(results: Sequence[SystemResult], split: str) -> dict[str, Interval]:
    """Compute the 95 % confidence interval of each system's accuracy, over locations."""
    clips = results[0].clips
    values = np.array([result.accuracy_by_clip(split) for result in results])
    intervals = bootstrap(values, clips.locations[clips.in_split(split)])
    return {result.name: tuple(map(float, pair)) for result, pair in zip(results, intervals, strict=True)}


def compute_differences(results: Sequence[SystemResult], base: SystemResult, split: str) -> dict[str, Difference]:
    """Subtract ``base`` from every other system, by name."""
    others = [result for result in results if result is not base]
    if not others:
        return {}
    mask = base.clips.in_split(split)
    locations, ids = base.clips.locations[mask], base.clips.ids[mask]
    accuracy = np.array([result.accuracy_by_clip(split) for result in others])
    base_accuracy = base.accuracy_by_clip(split)
    by_clip = accuracy - base_accuracy
    over_locations, over_clips = bootstrap(by_clip, locations), bootstrap(by_clip, ids)
    p = permutation_p(accuracy, base_accuracy, locations)
    return {
        result.name: Difference(
            float(by_clip[n].mean()),
            len(set(locations)),
            tuple(map(float, over_locations[n])),
            tuple(map(float, over_clips[n])),
            float(p[n]),
            _mcnemar_p(result, base, split),
            _seed_deviation(result, base, split),
        )
        for n, result in enumerate(others)
    }


def _seed_deviation(first: SystemResult, second: SystemResult, split: str) -> float | None:
    by_seed, base = (dict(zip(each.seeds, each.accuracy_by_seed(split), strict=True)) for each in (first, second))
    gaps = [by_seed[seed] - base[seed] for seed in by_seed.keys() & base.keys()]
    return float(np.std(gaps, ddof=1)) if len(gaps) >= 3 else None


def _mcnemar_p(first: SystemResult, second: SystemResult, split: str) -> float | None:
    shared = sorted(set(first.seeds) & set(second.seeds))
    if not shared:
        return None
    mask = first.clips.in_split(split)
    runs = [next(run for run in result.runs if run.seed == shared[0]) for result in (first, second)]
    return mcnemar(*((run.predictions[SVM] == first.clips.scene_indices)[mask] for run in runs))


@dataclass(frozen=True)
class Comparison:
    """Everything that the sections of the report describe.

    Attributes:
        experiment: folder of the experiment.
        results: every scored system; controls and tags alone are last.
        systems: systems by table and name, as in ``egs/systems.yaml``.
        best: ranked system with the highest validation accuracy.
        tag_vectors: file with the tag vectors of the test clips; its folder has those of the training clips.
        out: folder of the report.
        watermark: word in the corner of every figure, such as "synthetic"; may be empty.
        papers_corpus: whether the corpus is the paper's, so that its protocol has results to be compared with.
    """

    experiment: Path
    results: Sequence[SystemResult]
    systems: Mapping[str, Mapping[str, System]]
    best: SystemResult
    tag_vectors: Path
    out: Path
    watermark: str = ""
    papers_corpus: bool = True

    @property
    def training_tags(self) -> Path:
        """File with the tag vectors of the training clips."""
        return self.tag_vectors.with_name(self.tag_vectors.name.replace("_test.", "_train."))

    @property
    def selected_on_test(self) -> bool:
        """Whether the paper's protocol has a column: on the paper's corpus, or if it was run."""
        return self.papers_corpus or any(len(result.selected_by_seed("test")) for result in self.results)

    @property
    def test_sets(self) -> list[str]:
        """Sets of clips that the systems are scored on: test and, unless unused clips leak, test+unused."""
        return list(self.best.runs[0].classifiers[SVM]["scores"])

    @cached_property
    def by_name(self) -> dict[str, SystemResult]:
        """Results by system name."""
        return {result.name: result for result in self.results}

    @property
    def baseline(self) -> SystemResult | None:
        """The baseline; None if it was not run."""
        return self.by_name.get(BASELINE)

    @cached_property
    def baseline_and_best(self) -> list[SystemResult]:
        """The baseline and the best system; if the baseline is the best, the best of the others."""
        if self.baseline is None or self.best is not self.baseline:
            return [self.best] if self.baseline is None else [self.baseline, self.best]
        others = [result for result in self.results if result.is_ranked and result is not self.baseline]
        return [self.baseline, *sorted(others, key=lambda result: -result.validation_by_seed().mean())[:1]]

    @property
    def best_with_attention(self) -> SystemResult | None:
        """The system with attention that is best on validation; None if none was run."""
        systems = {name: system for table in self.systems.values() for name, system in table.items()}
        names = [result.name for result in self.results if result.name in systems and systems[result.name].heads]
        best = best_on_validation(self.experiment, names)
        return None if best is None else self.by_name[best]

    @cached_property
    def confidence_intervals(self) -> dict[str, Interval]:
        """95 % confidence interval of each system's accuracy on test, over locations."""
        return accuracy_intervals(self.results, "test")

    @cached_property
    def to_baseline(self) -> dict[str, Difference]:
        """Each system minus the baseline, on test; empty without a baseline."""
        return compute_differences(self.results, self.baseline, "test") if self.baseline else {}

    @cached_property
    def holms_p(self) -> dict[str, float]:
        """Holm's p of each ranked system's difference to the baseline; all of them are one family."""
        ranked = [name for name in self.to_baseline if self.by_name[name].is_ranked]
        corrected = holm([self.to_baseline[name].p for name in ranked])
        return dict(zip(ranked, map(float, corrected), strict=True))
