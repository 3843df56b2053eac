"""Experiments of one recipe and trunk that differ in their tags: which there are, and what is known about each tagger.

An *ear* is a tagger with a scale of its tags. Its experiment is ``exp/<trunk>-<tagger>`` or, with ``--tag-scale``,
``exp/<trunk>-<tagger>-<scale>``, its tag vectors are in ``dump/tags/<tagger>``. What other programs write about a
tagger is data to show, never to trust.
"""

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np

from tagasc.report.results import BASELINE, SystemResult, read_results
from tagasc.tagger.tags import TagScale, TagVectors
from tagasc.utils import provenance
from tagasc.utils.errors import UserError
from tagasc.utils.files import read_json
from tagasc.utils.log import log

_SCALE = f"(?:-({'|'.join(get_args(TagScale))}))?"
_COMPARED = ("trunk", "training", "precision")  # settings that should agree between experiments


@dataclass(frozen=True)
class Ear:
    """A tagger with a scale of its tags, and the systems trained on them.

    Attributes:
        name: name of the experiment, without the trunk.
        tags: folder of the tag vectors.
        vectors: tag vectors of the test clips.
        results: scored systems.
    """

    name: str
    tags: Path
    vectors: TagVectors
    results: Sequence[SystemResult]

    @cached_property
    def by_name(self) -> dict[str, SystemResult]:
        """Results by system name."""
        return {result.name: result for result in self.results}

    @property
    def tag_systems(self) -> list[SystemResult]:
        """Ranked systems with tags that have a validation accuracy."""
        ranked = [result for result in self.results if result.is_ranked and result.name != BASELINE]
        return [result for result in ranked if len(result.validation_by_seed())]

    @property
    def best(self) -> SystemResult | None:
        """The tag system with the highest validation accuracy; the test clips play no part."""
        return max(self.tag_systems, key=lambda result: result.validation_by_seed().mean(), default=None)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Settings of the first network, by dotted name."""
        records = [run.provenance.get("config") for result in self.results for run in result.runs if result.parameters]
        config = next((config for config in records if isinstance(config, dict) and "training" in config), {})
        return provenance.flat({name: config[name] for name in _COMPARED if name in config})

    @property
    def scale(self) -> str:
        """Form in which the systems take the tags."""
        if not self.vectors.has_names:
            return "embedding, standardised"
        return str(self.settings.get("training.tag_scale", "probability"))

    @cached_property
    def source(self) -> dict[str, Any]:
        """What stage 4 wrote about the source of the tags; empty if it wrote nothing."""
        return _read(self.tags / "source.json")

    @property
    def lwlrap(self) -> dict[str, float]:
        """Lwlrap of the tags by split of the scene clips, where events are known."""
        scores = _read(self.tags / "scores.json").get("lwlrap")
        scores = scores if isinstance(scores, dict) else {}
        return {str(split): value for split, value in scores.items() if isinstance(value, int | float)}


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = read_json(path, "stage 4 (tags)")
    except UserError as error:
        log.warning("left out of the report: %s", error)
        return {}
    return content if isinstance(content, dict) else {}


def read_ears(
    experiment: Path, tags: Path, corpus: str, results: Sequence[SystemResult], order: Sequence[str]
) -> list[Ear]:
    """Read this experiment and every other of the same trunk whose tags exist; this one is first.

    One that cannot be read, or was scored on other clips, is left out with a warning.

    Args:
        experiment: folder of this experiment.
        tags: folder of its tag vectors.
        corpus: name of the scene corpus.
        results: its scored systems.
        order: order of the systems.
    """
    match = re.fullmatch(rf"(.+?)-{re.escape(tags.name)}{_SCALE}", experiment.name)
    if match is None:
        return []
    trunk, clips, ears = match[1], results[0].clips, []
    others = (
        path for path in sorted(experiment.parent.glob(f"{glob.escape(trunk)}-*")) if path.name != experiment.name
    )
    for folder in [experiment, *others]:
        name = folder.name.removeprefix(f"{trunk}-")
        places = [tags.parent / name, tags.parent / re.sub(f"{_SCALE}$", "", name)]
        vectors = next((path for place in places if (path := place / f"{corpus}_test.npz").exists()), None)
        if vectors is None or not list(folder.glob("svm/*/seed*/scores.json")):
            continue
        try:
            read = results if folder == experiment else read_results(folder, order)
            if not all(np.array_equal(getattr(read[0].clips, key), getattr(clips, key)) for key in ("ids", "scenes")):
                raise UserError(f"{folder} was scored on other clips; run its stages 6 and 7 again")
            ears.append(Ear(name, vectors.parent, TagVectors.read(vectors), read))
        except UserError as error:
            log.warning("left out of the comparison of taggers: %s", error)
    return ears


def common_baseline(ears: Sequence[Ear]) -> tuple[SystemResult | None, str]:
    """Return the baseline of the first ear that has one, and that ear's name; it does not depend on the tags."""
    return next(((ear.by_name[BASELINE], ear.name) for ear in ears if BASELINE in ear.by_name), (None, ""))


def other_settings(ears: Sequence[Ear]) -> list[str]:
    """Describe settings of networks in which an ear differs from the first, besides the scale of the tags."""
    lines, first = [], ears[0].settings if ears else {}
    for ear in ears[1:]:
        keys = sorted((first.keys() & ear.settings.keys()) - {"training.tag_scale"})
        changed = [f"{key} is {ear.settings[key]}, not {first[key]}" for key in keys if ear.settings[key] != first[key]]
        lines += [f"{ear.name}: {', '.join(changed)}"] if changed else []
    return lines
