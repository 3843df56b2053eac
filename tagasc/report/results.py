"""What has been scored in an experiment, read from its folder: systems, their seeds, and the test clips they share."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tagasc.backend.paper_protocol import PAPER
from tagasc.scene.controls import CONTROLS, USE_THE_LABEL
from tagasc.scene.systems import TAGS_ALONE
from tagasc.training.result import HISTORY
from tagasc.utils import provenance
from tagasc.utils.errors import UserError
from tagasc.utils.files import read_json
from tagasc.utils.log import log

BASELINE = "baseline"
SVM, STANDARDISED, SOFTMAX = "svm", "svm_standardised", "softmax"


@dataclass(frozen=True)
class Clips:
    """The clips that all compared runs were scored on, with each clip's split, true scene and location, (clips,)."""

    ids: np.ndarray
    splits: np.ndarray
    scenes: np.ndarray
    locations: np.ndarray

    @cached_property
    def names(self) -> list[str]:
        """The scenes in alphabetical order."""
        return sorted(set(self.scenes.tolist()))

    @cached_property
    def truth(self) -> np.ndarray:
        """Each clip's scene as its position in ``names``."""
        return self.places(self.scenes)

    def places(self, scenes: Sequence[str]) -> np.ndarray:
        """Positions in ``names``, int16 (clips,); -1 where no clip is of that scene."""
        place = {name: number for number, name in enumerate(self.names)}
        return np.array([place.get(name, -1) for name in scenes], dtype=np.int16)

    def of(self, split: str) -> np.ndarray:
        """Which clips belong to a test set, ``test`` or ``test+unused``."""
        return np.isin(self.splits, split.split("+"))


@dataclass(frozen=True)
class Run:
    """One system with one seed, scored.

    Attributes:
        seed: its seed.
        machines: by name (svm, svm_standardised, softmax), what was chosen and its scores (see ``score_svm``).
        named: by machine, the scene that each clip was given, as positions in ``Clips.names``.
        history: curves and best epoch of the network; None where there is no network.
        record: what it was made from.
        paper: accuracies on test after every epoch (the paper's protocol), or None.
        final: scores of the machines after a last fit on all training clips, or None.
    """

    seed: int
    machines: dict[str, Any]
    named: dict[str, np.ndarray]
    history: dict[str, Any] | None
    record: dict[str, Any]
    paper: dict[str, Any] | None = None
    final: dict[str, Any] | None = None

    def selected_on_test(self, split: str) -> float | None:
        """The best accuracy over epochs and kernels on that very test set: the paper's protocol."""
        values = [] if self.paper is None else [epoch[split] for epoch in self.paper["epochs"] if split in epoch]
        return max(values, default=None)


@dataclass
class SystemResult:
    """Every scored run of one system."""

    name: str
    clips: Clips
    runs: list[Run] = field(default_factory=list)

    @property
    def is_ranked(self) -> bool:
        """Whether it is one of the systems compared, and not a control or tags alone."""
        return "@" not in self.name and self.name != TAGS_ALONE

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

    def accuracies(self, split: str, machine: str = SVM, kind: str = "accuracy") -> np.ndarray:
        """One value a seed, of the seeds that have that machine."""
        tables = [run.machines[machine]["scores"] for run in self.runs if machine in run.machines]
        return np.array([table[split][kind] for table in tables if split in table])

    def of_final_fit(self, split: str) -> np.ndarray:
        """One value a seed, of the seeds that were fitted once more on all training clips."""
        tables = [run.final[SVM]["scores"] for run in self.runs if run.final]
        return np.array([table[split]["accuracy"] for table in tables if split in table])

    def selected_on_test(self, split: str) -> np.ndarray:
        """One value a seed, of the seeds for which the paper's protocol was run."""
        values = [run.selected_on_test(split) for run in self.runs]
        return np.array([value for value in values if value is not None])

    def validation(self) -> np.ndarray:
        """The networks' own validation accuracy at the kept epoch, one value a seed."""
        return np.array([kept_epoch(run.history)["validation_accuracy"] for run in self.runs if run.history])

    def right(self, split: str) -> np.ndarray:
        """Mean over the seeds of whether the SVM recognises each clip, float (clips of the test set,)."""
        return np.mean([run.named[SVM] == self.clips.truth for run in self.runs], axis=0)[self.clips.of(split)]

    def confusion(self, split: str) -> np.ndarray:
        """Share of each true scene's clips (rows) given each name (columns), mean over seeds."""
        here = self.clips.of(split)
        counts = np.zeros((len(self.clips.names), len(self.clips.names)))
        for run in self.runs:
            named = run.named[SVM][here]
            np.add.at(counts, (self.clips.truth[here][named >= 0], named[named >= 0]), 1)
        clips = np.bincount(self.clips.truth[here], minlength=len(counts))[:, None] * len(self.runs)
        return counts / clips.clip(min=1)


def kept_epoch(history: dict[str, Any]) -> dict[str, Any]:
    """The figures of the epoch whose weights were kept."""
    return history["epochs"][history["best_epoch"] - 1]


def gather(experiment: Path, order: Sequence[str]) -> list[SystemResult]:
    """Read every scored run: systems in the given order, unknown ones, then controls, then tags alone.

    Runs scored on other clips than the run scored last (of a corpus that has changed since) are left out, and named in
    the log.

    Raises:
        UserError: none has been scored, or a file is damaged or of an older form.
    """
    files = sorted(experiment.glob("svm/*/seed[0-9]*/scores.json"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise UserError(f"{experiment} holds no scores; run stage 7 (svm)")
    clips, _ = _predictions(files[-1].parent)
    results: dict[str, SystemResult] = {}
    for path in sorted(files, key=lambda path: int(path.parent.name.removeprefix("seed"))):
        name, seed = path.parts[-3], int(path.parts[-2].removeprefix("seed"))
        theirs, named = _predictions(path.parent)
        if np.array_equal(theirs.ids, clips.ids) and np.array_equal(theirs.scenes, clips.scenes):
            run = _run(experiment, name, seed, {machine: clips.places(scenes) for machine, scenes in named.items()})
            results.setdefault(name, SystemResult(name, clips)).runs.append(run)
        else:
            log.warning("%s seed %d was scored on other clips and is left out; run its stages 6 and 7", name, seed)
    place = {name: number for number, name in enumerate(order)}
    kinds = ["", *CONTROLS]

    def rank(result: SystemResult) -> tuple[int, int, int]:
        system, _, kind = result.name.partition("@")
        group = 0 if result.is_ranked else 2 if result.name == TAGS_ALONE else 1
        return group, place.get(system, len(order)), kinds.index(kind) if kind in kinds else len(kinds)

    return sorted(results.values(), key=rank)


def _run(experiment: Path, name: str, seed: int, named: dict[str, np.ndarray]) -> Run:
    place = f"{name}/seed{seed}"
    machines = _machines(experiment / "svm" / place, "stage 7 (svm)")
    network = experiment / "scene" / place
    history = None if name == TAGS_ALONE else _history(network / HISTORY)
    last = experiment / "final" / "svm" / place
    return Run(
        seed,
        machines,
        named,
        history,
        provenance.read(network if history else experiment / "svm" / place) or {},
        _paper([experiment / "paper" / "scene" / place / PAPER, network / PAPER]),
        _machines(last, "stage 7 with --final-fit all") if (last / "scores.json").exists() else None,
    )


def _history(path: Path) -> dict[str, Any]:
    history = read_json(path, "stage 5 (scenes)")
    try:
        if history["parameters"] > 0 and {"epoch", "loss", "validation_accuracy"} <= kept_epoch(history).keys():
            return history
    except (KeyError, IndexError, TypeError, AttributeError):
        pass
    raise UserError(f"{path} does not hold a training's curves; run stage 5 (scenes) again")


def _machines(folder: Path, made_by: str) -> dict[str, Any]:
    path = folder / "scores.json"
    scores = read_json(path, made_by)
    try:
        chosen, accuracy = (scores["machines"][SVM][key] for key in ("chosen", "scores"))
        if {"kernel", "C"} <= chosen.keys() and {"accuracy", "class_averaged"} <= accuracy["test"].keys():
            return scores["machines"]
    except (KeyError, TypeError, AttributeError):
        pass
    raise UserError(f"{path} is of an older form; run stage 7 (svm) again")


def _paper(paths: Sequence[Path]) -> dict[str, Any] | None:
    """The first that is there."""
    for path in paths:
        if path.exists():
            found = read_json(path, "stage 5 (scenes)")
            if not isinstance(found, dict) or not found.get("epochs") or "trained_on" not in found:
                raise UserError(f"{path} lacks its epochs; delete it and run stage 5 (scenes) again")
            return found
    return None


def _predictions(folder: Path) -> tuple[Clips, dict[str, Sequence[str]]]:
    path = folder / "predictions.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        clips = Clips(*(np.array(columns.pop(name)) for name in ("clip", "split", "scene", "location")))
        return clips, {SVM: columns.pop(SVM), **columns}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; stage 7 (svm) makes it") from None
    except (ValueError, KeyError):
        raise UserError(f"{path} is no whole table of predictions; run stage 7 (svm) again") from None
