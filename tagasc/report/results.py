"""What has been scored in an experiment, read from its folder: systems, their seeds, and the test clips they share."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from tagasc.scene.controls import CONTROLS, USE_THE_LABEL
from tagasc.scene.experiment import FINAL_FIT, PAPER_FIT, RunPaths, scored_runs
from tagasc.scene.systems import TAGS_ONLY
from tagasc.utils import provenance
from tagasc.utils.errors import UserError
from tagasc.utils.files import read_json
from tagasc.utils.log import log

BASELINE = "baseline"
SVM, STANDARDISED, SOFTMAX = "svm", "svm_standardised", "softmax"


@dataclass(frozen=True)
class ScoredClips:
    """The clips that all compared runs were scored on, with each clip's split, true scene and location, (clips,)."""

    ids: np.ndarray
    splits: np.ndarray
    scenes: np.ndarray
    locations: np.ndarray

    @cached_property
    def scene_names(self) -> list[str]:
        """The scenes in alphabetical order."""
        return sorted(set(self.scenes.tolist()))

    @cached_property
    def scene_indices(self) -> np.ndarray:
        """Each clip's scene as its position in ``scene_names``."""
        return self.indices_of(self.scenes)

    def indices_of(self, scenes: Sequence[str]) -> np.ndarray:
        """Positions in ``scene_names``, int16 (clips,); -1 where no clip is of that scene."""
        place = {name: number for number, name in enumerate(self.scene_names)}
        return np.array([place.get(name, -1) for name in scenes], dtype=np.int16)

    def in_split(self, split: str) -> np.ndarray:
        """Which clips belong to a test set, ``test`` or ``test+unused``."""
        return np.isin(self.splits, split.split("+"))


@dataclass(frozen=True)
class ScoredRun:
    """One system with one seed, scored.

    Attributes:
        paths: its folders and files.
        classifiers: by name (svm, svm_standardised, softmax), what was chosen and its scores (see ``score_svm``).
        predictions: by classifier, the scene that each clip was given, as positions in ``ScoredClips.scene_names``.
        history: curves and best epoch of the network; None where there is no network.
        provenance: what it was made from.
        test_by_epoch: accuracies on test after every epoch (the paper's protocol), or None.
        final_classifiers: scores of the machines after a last fit on all training clips, or None.
    """

    paths: RunPaths
    classifiers: dict[str, Any]
    predictions: dict[str, np.ndarray]
    history: dict[str, Any] | None
    provenance: dict[str, Any]
    test_by_epoch: dict[str, Any] | None = None
    final_classifiers: dict[str, Any] | None = None

    @property
    def seed(self) -> int:
        """Random seed of the network."""
        return self.paths.seed

    def best_on_test(self, split: str) -> float | None:
        """The best accuracy over epochs and kernels on that very test set: the paper's protocol."""
        values = (
            []
            if self.test_by_epoch is None
            else [epoch[split] for epoch in self.test_by_epoch["epochs"] if split in epoch]
        )
        return max(values, default=None)


@dataclass
class SystemResult:
    """Every scored run of one system."""

    name: str
    clips: ScoredClips
    runs: list[ScoredRun] = field(default_factory=list)

    @property
    def is_ranked(self) -> bool:
        """Whether it is one of the systems compared, and not a control or tags alone."""
        return "@" not in self.name and self.name != TAGS_ONLY

    @property
    def uses_the_label(self) -> bool:
        """Whether its tags were made with the true scene; then its accuracy is no accuracy."""
        return self.name.partition("@")[2] in USE_THE_LABEL

    @property
    def title(self) -> str:
        """Its name, with a warning where it uses the true label."""
        return self.name + (" (uses the true label)" if self.uses_the_label else "")

    @property
    def parameters(self) -> int | None:
        """Trainable values of the network, or None."""
        return self.runs[0].history["parameters"] if self.runs[0].history else None

    @property
    def seeds(self) -> list[int]:
        """In rising order."""
        return [run.seed for run in self.runs]

    def accuracy_by_seed(self, split: str, classifier: str = SVM, kind: str = "accuracy") -> np.ndarray:
        """One value a seed, of the seeds that have that machine."""
        tables = [run.classifiers[classifier]["scores"] for run in self.runs if classifier in run.classifiers]
        return np.array([table[split][kind] for table in tables if split in table])

    def final_by_seed(self, split: str) -> np.ndarray:
        """One value a seed, of the seeds that were fitted once more on all training clips."""
        tables = [run.final_classifiers[SVM]["scores"] for run in self.runs if run.final_classifiers]
        return np.array([table[split]["accuracy"] for table in tables if split in table])

    def selected_by_seed(self, split: str) -> np.ndarray:
        """One value a seed, of the seeds for which the paper's protocol was run."""
        values = [run.best_on_test(split) for run in self.runs]
        return np.array([value for value in values if value is not None])

    def validation_by_seed(self) -> np.ndarray:
        """The networks' own validation accuracy at the kept epoch, one value a seed."""
        return np.array([best_epoch_metrics(run.history)["validation_accuracy"] for run in self.runs if run.history])

    def accuracy_by_clip(self, split: str) -> np.ndarray:
        """Mean over the seeds of whether the SVM recognises each clip, float (clips of the test set,)."""
        return np.mean([run.predictions[SVM] == self.clips.scene_indices for run in self.runs], axis=0)[
            self.clips.in_split(split)
        ]

    def confusion_shares(self, split: str) -> np.ndarray:
        """Share of each true scene's clips (rows) given each name (columns), mean over seeds."""
        of_split, scenes = self.clips.in_split(split), np.arange(len(self.clips.scene_names))
        truth = self.clips.scene_indices[of_split]
        counts = sum(confusion_matrix(truth, run.predictions[SVM][of_split], labels=scenes) for run in self.runs)
        clips = np.bincount(truth, minlength=len(scenes))[:, None] * len(self.runs)
        return counts / clips.clip(min=1)


def best_epoch_metrics(history: dict[str, Any]) -> dict[str, Any]:
    """The figures of the epoch whose weights were kept."""
    return history["epochs"][history["best_epoch"] - 1]


def read_results(experiment: Path, order: Sequence[str]) -> list[SystemResult]:
    """Read every scored run: systems in the given order, unknown ones, then controls, then tags alone.

    Runs scored on other clips than the run scored last (of a corpus that has changed since) are left out, and named in
    the log.

    Raises:
        UserError: none has been scored, or a file is damaged or of an older form.
    """
    scored = scored_runs(experiment)
    if not scored:
        raise UserError(f"{experiment} holds no scores; run stage 7 (svm)")
    clips, _ = _predictions(max(scored, key=lambda run: run.scores.stat().st_mtime).predictions)
    results: dict[str, SystemResult] = {}
    for paths in scored:
        theirs, predictions = _predictions(paths.predictions)
        if np.array_equal(theirs.ids, clips.ids) and np.array_equal(theirs.scenes, clips.scenes):
            given = {classifier: clips.indices_of(scenes) for classifier, scenes in predictions.items()}
            results.setdefault(paths.system, SystemResult(paths.system, clips)).runs.append(_run(paths, given))
        else:
            log.warning("%s was scored on other clips and is left out; run its stages 6 and 7", paths.title)
    place = {name: number for number, name in enumerate(order)}
    kinds = ["", *CONTROLS]

    def rank(result: SystemResult) -> tuple[int, int, int]:
        system, _, kind = result.name.partition("@")
        group = 0 if result.is_ranked else 2 if result.name == TAGS_ONLY else 1
        return group, place.get(system, len(order)), kinds.index(kind) if kind in kinds else len(kinds)

    return sorted(results.values(), key=rank)


def _run(paths: RunPaths, predictions: dict[str, np.ndarray]) -> ScoredRun:
    classifiers = _classifiers(paths.scores, "stage 7 (svm)")
    history = None if paths.system == TAGS_ONLY else _history(paths.history)
    final = paths.of_fit(FINAL_FIT).scores
    return ScoredRun(
        paths,
        classifiers,
        predictions,
        history,
        provenance.read(paths.network if history else paths.svm) or {},
        _test_by_epoch([paths.of_fit(PAPER_FIT).test_by_epoch, paths.test_by_epoch]),
        _classifiers(final, "stage 7 with --final-fit all") if final.exists() else None,
    )


def _history(path: Path) -> dict[str, Any]:
    history = read_json(path, "stage 5 (scenes)")
    try:
        if history["parameters"] > 0 and {"epoch", "loss", "validation_accuracy"} <= best_epoch_metrics(history).keys():
            return history
    except (KeyError, IndexError, TypeError, AttributeError):
        pass
    raise UserError(f"{path} does not hold a training's curves; run stage 5 (scenes) again")


def _classifiers(path: Path, made_by: str) -> dict[str, Any]:
    scores = read_json(path, made_by)
    try:
        chosen, accuracy = (scores["classifiers"][SVM][key] for key in ("chosen", "scores"))
        if {"kernel", "C"} <= chosen.keys() and {"accuracy", "class_averaged"} <= accuracy["test"].keys():
            return scores["classifiers"]
    except (KeyError, TypeError, AttributeError):
        pass
    raise UserError(f"{path} is of an older form; run stage 7 (svm) again")


def _test_by_epoch(paths: Sequence[Path]) -> dict[str, Any] | None:
    """The first that is there."""
    for path in paths:
        if path.exists():
            found = read_json(path, "stage 5 (scenes)")
            if not isinstance(found, dict) or not found.get("epochs") or "trained_on" not in found:
                raise UserError(f"{path} lacks its epochs; delete it and run stage 5 (scenes) again")
            return found
    return None


def _predictions(path: Path) -> tuple[ScoredClips, dict[str, Sequence[str]]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        clips = ScoredClips(*(np.array(columns.pop(name)) for name in ("clip", "split", "scene", "location")))
        return clips, {SVM: columns.pop(SVM), **columns}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; stage 7 (svm) makes it") from None
    except (ValueError, KeyError):
        raise UserError(f"{path} is no whole table of predictions; run stage 7 (svm) again") from None
