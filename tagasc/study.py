"""All that the report's sections speak of, read and computed once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tagasc.comparison import Bounds, Difference, differences, intervals
from tagasc.models.fusion import System
from tagasc.results import BASELINE, SystemResult
from tagasc.statistics import holm


@dataclass(frozen=True)
class Study:
    """All that the sections speak of.

    Attributes:
        experiment: folder of the experiment.
        results: every scored system, controls and tags alone last.
        tables: the records of the systems, by table.
        best: the ranked system that is best on validation.
        tag_vectors: the tag vectors of the test clips.
        out: folder of the report.
        mark: a word on every picture, such as "synthetic"; may be empty.
    """

    experiment: Path
    results: Sequence[SystemResult]
    tables: Mapping[str, Mapping[str, System]]
    best: SystemResult
    tag_vectors: Path
    out: Path
    mark: str = ""

    @cached_property
    def by_name(self) -> dict[str, SystemResult]:
        """The results by name."""
        return {result.name: result for result in self.results}

    @property
    def baseline(self) -> SystemResult | None:
        """The baseline, if it was run."""
        return self.by_name.get(BASELINE)

    @cached_property
    def beside(self) -> list[SystemResult]:
        """The baseline and the best system beside it; where the baseline is the best, the best of the others."""
        if self.baseline is None or self.best is not self.baseline:
            return [self.best] if self.baseline is None else [self.baseline, self.best]
        others = [result for result in self.results if result.is_ranked and result is not self.baseline]
        return [self.baseline, *([max(others, key=lambda one: one.validation().mean())] if others else [])]

    @cached_property
    def bounds(self) -> dict[str, Bounds]:
        """Each system's interval over locations, on test."""
        return intervals(self.results, "test")

    @cached_property
    def gains(self) -> dict[str, Difference]:
        """Each system minus the baseline, on test; nothing without a baseline."""
        return differences(self.results, self.baseline, "test") if self.baseline else {}

    @cached_property
    def holms_p(self) -> dict[str, float]:
        """Holm's p of each ranked system's difference to the baseline, of all of them one family."""
        ranked = [name for name in self.gains if self.by_name[name].is_ranked]
        corrected = holm([self.gains[name].p for name in ranked])
        return dict(zip(ranked, map(float, corrected), strict=True))
