"""Read the scored runs of an experiment: systems, their seeds, and the test clips that they share."""

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
from tagasc.training.result import find_history, read_training_record
from tagasc.utils import provenance
from tagasc.utils.errors import UserError
from tagasc.utils.files import read_json
from tagasc.utils.log import log

BASELINE = "baseline"
SVM, STANDARDISED, SOFTMAX = "svm", "svm_standardised", "softmax"
_SVM_STAGE = "stage 7 (svm)"


@dataclass(frozen=True)
class ScoredClips:
    """The test clips that all runs were scored on: id, split, true scene and location, str (clips,) each."""

    ids: np.ndarray
    splits: np.ndarray
    scenes: np.ndarray
    locations: np.ndarray

    @cached_property
    def scene_names(self) -> list[str]:
        """Scenes in alphabetical order."""
        return sorted(set(self.scenes.tolist()))

    @cached_property
    def scene_indices(self) -> np.ndarray:
        """True scene of each clip as an index into ``scene_names``, int16 (clips,)."""
        return self.indices_of(self.scenes)

    def indices_of(self, scenes: Sequence[str]) -> np.ndarray:
        """Return indices into ``scene_names``, int16 (clips,); -1 for a scene that no clip has."""
        index = {name: number for number, name in enumerate(self.scene_names)}
        return np.array([index.get(name, -1) for name in scenes], dtype=np.int16)

    def in_split(self, split: str) -> np.ndarray:
        """Return a mask of the clips in ``test`` or ``test+unused``, bool (clips,)."""
        return np.isin(self.splits, split.split("+"))


@dataclass(frozen=True)
class ScoredRun:
    """One system with one seed, scored.

    Attributes:
        paths: folders and files of the run.
        classifiers: settings and scores by classifier (svm, svm_standardised, softmax); see ``score_svm``.
        predictions: predicted scenes by classifier, as indices into ``ScoredClips.scene_names``, int16 (clips,).
        history: learning curves and best epoch of the network; None for tags alone, or if they are lost.
        provenance: provenance record of the network, or of the SVM for tags alone.
        test_by_epoch: accuracies on test after every epoch (the paper's protocol), or None.
        final_classifiers: like ``classifiers``, after the final fit on all training clips, or None.
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
        """Return the best accuracy over epochs and kernels, selected on the test set itself (the paper's protocol)."""
        epochs = self.test_by_epoch["epochs"] if self.test_by_epoch else []
        return max((epoch[split] for epoch in epochs if split in epoch), default=None)


@dataclass
class SystemResult:
    """All scored runs of one system."""

    name: str
    clips: ScoredClips
    runs: list[ScoredRun] = field(default_factory=list)

    @property
    def is_ranked(self) -> bool:
        """Whether the system takes part in the comparison; controls and tags alone do not."""
        return "@" not in self.name and self.name != TAGS_ONLY

    @property
    def uses_the_label(self) -> bool:
        """Whether the tags depend on the true scene, so that the accuracy is not a recognition accuracy."""
        return self.name.partition("@")[2] in USE_THE_LABEL

    @property
    def title(self) -> str:
        """Name, with a warning if the true label is used."""
        return self.name + (" (uses the true label)" if self.uses_the_label else "")

    @property
    def parameters(self) -> int | None:
        """Trainable parameters of the network; None for tags alone, or if the learning curves are lost."""
        return next((run.history["parameters"] for run in self.runs if run.history), None)

    @property
    def seeds(self) -> list[int]:
        """Seeds in increasing order."""
        return [run.seed for run in self.runs]

    def accuracy_by_seed(self, split: str, classifier: str = SVM, kind: str = "accuracy") -> np.ndarray:
        """Return one accuracy per seed that has this classifier, (seeds,)."""
        scores = [run.classifiers[classifier]["scores"] for run in self.runs if classifier in run.classifiers]
        return np.array([of_run[split][kind] for of_run in scores if split in of_run])

    def final_by_seed(self, split: str) -> np.ndarray:
        """Return the SVM's accuracy after the final fit, for the seeds that have one, (seeds,)."""
        scores = [run.final_classifiers[SVM]["scores"] for run in self.runs if run.final_classifiers]
        return np.array([of_run[split]["accuracy"] for of_run in scores if split in of_run])

    def selected_by_seed(self, split: str) -> np.ndarray:
        """Return the accuracy selected on test, for the seeds that have one (the paper's protocol), (seeds,)."""
        values = [run.best_on_test(split) for run in self.runs]
        return np.array([value for value in values if value is not None])

    def validation_by_seed(self) -> np.ndarray:
        """Return the network's validation accuracy at its best epoch, (seeds,)."""
        return np.array([best_epoch_metrics(run.history)["validation_accuracy"] for run in self.runs if run.history])

    def correct_by_seed(self, split: str) -> np.ndarray:
        """Return whether each seed's SVM recognises each clip, bool (seeds, clips of the split)."""
        correct = np.array([run.predictions[SVM] == self.clips.scene_indices for run in self.runs])
        return correct[:, self.clips.in_split(split)]

    def accuracy_by_clip(self, split: str) -> np.ndarray:
        """Return the share of seeds whose SVM recognises each clip, float (clips of the split,)."""
        return self.correct_by_seed(split).mean(axis=0)

    def confusion_shares(self, split: str) -> np.ndarray:
        """Return the share of each true scene's clips (row) by predicted scene (column), mean over seeds."""
        mask, labels = self.clips.in_split(split), np.arange(len(self.clips.scene_names))
        truth = self.clips.scene_indices[mask]
        counts = sum(confusion_matrix(truth, run.predictions[SVM][mask], labels=labels) for run in self.runs)
        clips = np.bincount(truth, minlength=len(labels))[:, None] * len(self.runs)
        return counts / clips.clip(min=1)


def best_epoch_metrics(history: dict[str, Any]) -> dict[str, Any]:
    """Return loss and validation accuracy of the epoch whose weights were kept."""
    return history["epochs"][history["best_epoch"] - 1]


def read_results(experiment: Path, order: Sequence[str]) -> list[SystemResult]:
    """Read every scored run: systems in the given order, unknown systems, controls, tags alone.

    The run scored last defines the test clips. Runs scored on other clips, of a corpus that has changed since, are
    left out with a warning.

    Raises:
        UserError: no run is scored, or a file is damaged, lost or of an older format.
    """
    for folder in sorted((experiment / "svm").glob("*/seed*")):
        provenance.require_present(folder, _SVM_STAGE)
    scored = scored_runs(experiment)
    if not scored:
        raise UserError(f"{experiment} holds no scores; run stage 7 (svm)")
    clips, _ = _read_predictions(max(scored, key=lambda run: run.scores.stat().st_mtime).predictions)
    results: dict[str, SystemResult] = {}
    for paths in scored:
        own_clips, predictions = _read_predictions(paths.predictions)
        if np.array_equal(own_clips.ids, clips.ids) and np.array_equal(own_clips.scenes, clips.scenes):
            indices = {classifier: clips.indices_of(scenes) for classifier, scenes in predictions.items()}
            results.setdefault(paths.system, SystemResult(paths.system, clips)).runs.append(_read_run(paths, indices))
        else:
            log.warning("%s was scored on other clips and is left out; run its stages 6 and 7 again", paths.title)
    position = {name: number for number, name in enumerate(order)}
    controls = ["", *CONTROLS]

    def sort_key(result: SystemResult) -> tuple[int, int, int]:
        system, _, control = result.name.partition("@")
        group = 0 if result.is_ranked else 2 if result.name == TAGS_ONLY else 1
        rank = controls.index(control) if control in controls else len(controls)
        return group, position.get(system, len(order)), rank

    return sorted(results.values(), key=sort_key)


def _read_run(paths: RunPaths, predictions: dict[str, np.ndarray]) -> ScoredRun:
    trained = paths.system != TAGS_ONLY
    final = paths.of_fit(FINAL_FIT).scores
    return ScoredRun(
        paths,
        _read_classifiers(paths.scores, _SVM_STAGE),
        predictions,
        find_history(paths.network) if trained else None,
        (read_training_record(paths.network) if trained else provenance.read(paths.svm)) or {},
        _read_test_by_epoch([paths.of_fit(PAPER_FIT).test_by_epoch, paths.test_by_epoch]),
        _read_classifiers(final, "stage 7 with --final-fit all") if final.exists() else None,
    )


def _read_classifiers(path: Path, made_by: str) -> dict[str, Any]:
    scores = read_json(path, made_by)
    try:
        chosen, accuracy = (scores["classifiers"][SVM][key] for key in ("chosen", "scores"))
        if {"kernel", "C"} <= chosen.keys() and {"accuracy", "class_averaged"} <= accuracy["test"].keys():
            return scores["classifiers"]
    except (KeyError, TypeError, AttributeError):
        pass
    raise UserError(f"{path} has an older format; run stage 7 (svm) again")


def _read_test_by_epoch(paths: Sequence[Path]) -> dict[str, Any] | None:
    """Read the first of the files that exists; without a damaged one only the column of the paper's protocol lacks."""
    for path in (path for path in paths if path.exists()):
        try:
            content = read_json(path, "stage 5 (scenes)")
            if isinstance(content, dict) and content.get("epochs") and "trained_on" in content:
                return content
        except UserError:
            pass
        log.warning("%s is damaged; the report does without, and training again with --force makes it again", path)
    return None


def _read_predictions(path: Path) -> tuple[ScoredClips, dict[str, Sequence[str]]]:
    """Read the test clips and, by classifier, the predicted scenes."""
    provenance.require_whole(path, _SVM_STAGE)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        clips = ScoredClips(*(np.array(columns.pop(name)) for name in ("clip", "split", "scene", "location")))
        return clips, {SVM: columns.pop(SVM), **columns}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run stage 7 (svm) to create it") from None
    except (ValueError, KeyError):
        raise UserError(f"{path} is incomplete; run stage 7 (svm) again") from None
