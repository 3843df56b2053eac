"""The report's figures: gathers runs, averages over seeds, and puts intervals on what is claimed."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tagasc import provenance
from tagasc.console import log
from tagasc.errors import UserError
from tagasc.files import read_json
from tagasc.metrics import location_bootstrap
from tagasc.training import HISTORY

BASELINE = "baseline"
Table = tuple[Sequence[str], Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Run:
    """One system with one seed, scored.

    Attributes:
        seed: its seed.
        scores: accuracies by test set (see ``steps/score_svm.py``).
        chosen: kernel, C and validation accuracy.
        predictions: by column, a value per clip.
        history: curves and best epoch.
        parameters: trainable values of the network.
        record: what it was made from.
    """

    seed: int
    scores: dict[str, Any]
    chosen: dict[str, Any]
    predictions: dict[str, np.ndarray]
    history: dict[str, Any]
    parameters: int
    record: dict[str, Any]

    def right(self, split: str) -> np.ndarray:
        """float64 (clips,): 1 where the SVM is right, on ``test`` or ``test+unused``."""
        right = self.predictions["scene"] == self.predictions["svm"]
        return right[self.of(split)].astype(float)

    def of(self, split: str) -> np.ndarray:
        """Which predictions belong to a test set."""
        return np.isin(self.predictions["split"], split.split("+"))


@dataclass
class SystemResult:
    """Every scored run of one system."""

    name: str
    runs: list[Run] = field(default_factory=list)

    def accuracies(self, split: str, kind: str = "accuracy") -> np.ndarray:
        """One value a seed."""
        return np.array([run.scores[split][kind] for run in self.runs])

    def right(self, split: str) -> np.ndarray:
        """Mean over the seeds of whether each clip is recognised, (clips,)."""
        return np.mean([run.right(split) for run in self.runs], axis=0)

    def validation(self) -> float:
        """Mean validation accuracy of the chosen machines: what a best system is chosen by."""
        return float(np.mean([run.chosen["validation_accuracy"] for run in self.runs]))

    def confusion(self, split: str, scenes: Sequence[str]) -> np.ndarray:
        """Share of each true scene's clips (rows) given each name (columns), mean over seeds."""
        counts = np.zeros((len(scenes), len(scenes)))
        place = {name: number for number, name in enumerate(scenes)}
        for run in self.runs:
            here = run.of(split)
            for true, named in zip(run.predictions["scene"][here], run.predictions["svm"][here], strict=True):
                counts[place[true], place[named]] += 1
        return counts / counts.sum(axis=1, keepdims=True).clip(min=1)


def gather(experiment: Path, order: Sequence[str]) -> list[SystemResult]:
    """Read every scored run of an experiment; systems come in the given order, unknown ones last.

    Runs scored on other clips than the run scored last (of a corpus that has changed since) are left out, and named in
    the log.

    Raises:
        UserError: none has been scored.
    """
    runs = []
    for scores in sorted(experiment.glob("svm/*/seed*/scores.json"), key=lambda path: path.stat().st_mtime):
        name, seed = scores.parts[-3], int(scores.parts[-2].removeprefix("seed"))
        runs.append((name, _run(experiment, name, seed)))
    if not runs:
        raise UserError(f"{experiment} holds no scores; run stage 7 (svm)")
    clips = runs[-1][1].predictions["clip"].tolist()
    results: dict[str, SystemResult] = {}
    for name, run in sorted(runs, key=lambda one: one[1].seed):
        if run.predictions["clip"].tolist() == clips:
            results.setdefault(name, SystemResult(name)).runs.append(run)
        else:
            log.warning("%s seed %d was scored on other clips and is left out; run its stages 6 and 7", name, run.seed)
    place = {name: number for number, name in enumerate(order)}
    return sorted(results.values(), key=lambda result: place.get(result.name, len(order)))


def accuracy_table(results: Sequence[SystemResult], split: str, brief: bool = False) -> Table:
    """A row a system: parameters, accuracies, difference to the baseline; ``brief`` for a terminal."""
    header = (
        "system",
        "parameters",
        "seeds",
        "accuracy %",
        "95 % interval",
        "class-averaged %",
        "minus baseline",
        "95 % interval",
        "softmax %",
        "validation %",
    )
    base = next((result for result in results if result.name == BASELINE), None)
    rows = []
    for result in results:
        run = result.runs[0]
        locations = run.predictions["location"][run.of(split)]
        right = result.right(split)
        interval = location_bootstrap(right, locations)
        gain = ("", "")
        if base is not None and result is not base:
            difference = right - base.right(split)
            gain = (f"{100 * difference.mean():+.1f}", _interval(location_bootstrap(difference, locations), "+.1f"))
        rows.append(
            (
                result.name,
                f"{run.parameters:,}",
                str(len(result.runs)),
                _mean(result.accuracies(split)),
                _interval(interval, ".1f"),
                _mean(result.accuracies(split, "class_averaged")),
                *gain,
                _mean(result.accuracies(split, "softmax_accuracy")),
                f"{100 * result.validation():.1f}",
            )
        )
    shown = (0, 2, 3, 4, 6, 7) if brief else range(len(header))
    return [header[n] for n in shown], [[row[n] for n in shown] for row in rows]


def class_table(results: Sequence[SystemResult], split: str) -> Table:
    """A row a scene: accuracy of each system on that scene's clips, mean over seeds."""
    run = results[0].runs[0]
    truth = run.predictions["scene"][run.of(split)]
    right = {result.name: result.right(split) for result in results}
    rows = [
        (
            scene,
            str((truth == scene).sum()),
            *(f"{100 * values[truth == scene].mean():.1f}" for values in right.values()),
        )
        for scene in scenes_of(results)
    ]
    return ("scene", "clips", *right), rows


def chosen_table(results: Sequence[SystemResult]) -> Table:
    """A row a run: what validation chose."""
    rows = [
        (
            result.name,
            str(run.seed),
            f"{run.history['best_epoch']} of {len(run.history['epochs'])}",
            run.chosen["kernel"],
            f"{run.chosen['C']:g}",
            f"{100 * run.scores['test']['accuracy']:.2f}",
        )
        for result in results
        for run in result.runs
    ]
    return ("system", "seed", "epoch", "kernel", "C", "test accuracy %"), rows


def scenes_of(results: Sequence[SystemResult]) -> list[str]:
    """Names of the scenes in alphabetical order."""
    return sorted(set(results[0].runs[0].predictions["scene"]))


def best_of(results: Sequence[SystemResult]) -> SystemResult:
    """The system with the highest validation accuracy; test plays no part."""
    return max(results, key=SystemResult.validation)


def markdown(table: Table) -> str:
    """A table in Markdown, figures to the right."""
    header, rows = table
    align = [":--"] + ["--:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, align, *rows)) + "\n"


def aligned(table: Table) -> str:
    """A table in plain text, for a terminal: first column to the left, the others to the right."""
    header, rows = table
    widths = [max(len(row[n]) for row in (header, *rows)) for n in range(len(header))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if n == 0 else text.rjust(width)
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (header, *rows)
    )


def _run(experiment: Path, name: str, seed: int) -> Run:
    folder = experiment / "svm" / name / f"seed{seed}"
    scores = read_json(folder / "scores.json", "stage 7 (svm)")
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    predictions = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    network = experiment / "scene" / name / f"seed{seed}"
    history = read_json(network / HISTORY, "stage 5 (scenes)")
    return Run(
        seed,
        scores["scores"],
        scores["chosen"],
        predictions,
        history,
        history["parameters"],
        provenance.read(network) or {},
    )


def _mean(values: np.ndarray) -> str:
    spread = f" ± {100 * values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * values.mean():.1f}{spread}"


def _interval(bounds: tuple[float, float], form: str) -> str:
    return "" if np.isnan(bounds[0]) else f"{100 * bounds[0]:{form}} to {100 * bounds[1]:{form}}"
