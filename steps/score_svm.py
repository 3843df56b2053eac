#!/usr/bin/env python3
"""Stage 7: select an SVM on the validation codes, and score it once on the test codes (section 2.1)."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.metrics import balanced_accuracy_score

from tagasc.backend.codes import Codes, deviation_of
from tagasc.backend.svm import FittedSvm, SvmConfig, fit_svm, predict, select_svm
from tagasc.scene.experiment import RunPaths, log_folder, runs
from tagasc.scene.systems import TAGS_ONLY, read_systems, select
from tagasc.utils import cli, provenance
from tagasc.utils.errors import UserError
from tagasc.utils.files import atomic_folder, read_json, read_record, write_json
from tagasc.utils.log import log
from tagasc.utils.sweep import sweep

CLASSIFIERS = {"svm": False, "svm_standardised": True}


@dataclass(frozen=True)
class Options:
    """Write SVMs, predictions and scores into ``<out>/svm/<system>/seed<k>``.

    Args:
        out: folder of the experiment, with the codes (stage 6).
        systems: names of systems or tables, separated by spaces, or all; also NAME@CONTROL and @CONTROL.
        seeds: random seeds of the networks, separated by spaces.
        systems_file: file of the systems.
        svm: candidate SVMs.
        select_from: experiment to take kernel and C from; the SVMs are then fitted on train and validation together.
        nj: threads, for fitting and prediction.
        force: discard existing scores and score again.
    """

    out: Path
    systems: str = "all"
    seeds: str = "1"
    systems_file: Path = Path("egs/systems.yaml")
    svm: SvmConfig = SvmConfig()
    select_from: Path | None = None
    nj: int = 1
    force: bool = False


def main(options: Options) -> None:
    """Score every run of the sweep; see ``Options``."""
    if options.nj < 1:
        raise UserError(f"--nj {options.nj} must be at least 1")
    tables, experiment = read_systems(options.systems_file), options.select_from or options.out
    variants = select(tables, options.systems.split(), options.systems_file, experiment)
    pending = runs(options.out, list(variants), options.seeds)
    if any(variant.system.uses_tags for variant in variants.values()):
        pending += runs(options.out, [TAGS_ONLY], "0")
    names = [run.name for run in pending]
    sweep(names, lambda index: _classify(options, pending[index]), log_folder(options.out, "svm"))


def _classify(options: Options, run: RunPaths) -> bool:
    """Fit and score the SVMs of one run; return False if they are up to date."""
    files = _code_files(run.codes)
    settings: dict[str, Any] = {"svm": options.svm}
    if options.select_from is not None:
        scores = read_json(RunPaths(options.select_from, run.system, run.seed).scores, "stage 7 (svm)")
        settings = {classifier: scores["classifiers"][classifier]["chosen"] for classifier in CLASSIFIERS}
    record = provenance.record("score_svm", settings, files)
    if provenance.is_current(run.title, provenance.read_whole(run.svm), record, options.force):
        return False
    codes = {split: Codes.read(path) for split, path in files.items()}
    if options.select_from is None:
        classifiers, fitted_on = _selected(options.svm, codes, options.nj), codes["train"]
    else:
        fitted_on = codes["train"].joined(codes["validation"])
        classifiers = _refitted(settings, fitted_on, options.nj)
    _score(run, codes, classifiers, deviation_of(fitted_on.codes), record, options.nj)
    return True


def _code_files(source: Path) -> dict[str, Path]:
    """List the code files by split, and check that they come from one network."""
    for split in ("train", "validation", "test"):
        if not (source / f"{split}.npz").exists():
            raise UserError(f"{source / split}.npz does not exist; run stage 6 (codes) to create it")
    files = {path.stem: path for path in sorted(source.glob("[!.]*.npz"))}
    records = {path: read_record(path) for path in files.values()}
    for path in (path for path, record in records.items() if record is None):
        raise UserError(f"{path} is damaged; run stage 6 (codes) again")
    if len({record.get("inputs", {}).get("network") for record in records.values()}) > 1:
        raise UserError(f"{source} holds codes of different networks; run stage 6 (codes) again")
    return files


def _selected(svm: SvmConfig, codes: dict[str, Codes], nj: int) -> dict[str, FittedSvm]:
    """Select the SVMs without and with standardisation, each with half of the threads (rounded up)."""
    classifiers = Parallel(min(nj, 2), prefer="threads")(
        delayed(select_svm)(svm, codes["train"], codes["validation"], standardise, (nj + 1) // 2)
        for standardise in CLASSIFIERS.values()
    )
    return dict(zip(CLASSIFIERS, classifiers, strict=True))


def _refitted(settings: dict[str, dict], train: Codes, nj: int) -> dict[str, FittedSvm]:
    """Fit the SVMs with given kernel and C."""
    svms = Parallel(min(nj, 2), prefer="threads")(
        delayed(fit_svm)(train, chosen["kernel"], chosen["C"], CLASSIFIERS[name]) for name, chosen in settings.items()
    )
    return {name: FittedSvm(svm, chosen, []) for (name, chosen), svm in zip(settings.items(), svms, strict=True)}


def _score(
    run: RunPaths, codes: dict[str, Codes], classifiers: dict[str, FittedSvm], deviation: float, record: dict, nj: int
) -> None:
    """Predict the test clips and the unused ones once, and write the run's folder atomically.

    Args:
        run: the run.
        codes: codes by split.
        classifiers: the fitted SVMs.
        deviation: standard deviation of the codes that they were fitted on.
        record: provenance record.
        nj: threads.
    """
    import skops.io  # here, since it takes long to import

    tests = {"test": codes["test"]}
    if "unused" in codes:
        # The paper's other test set: every clip outside the fold's training list.
        tests["test+unused"] = codes["test"].joined(codes["unused"])
    clips = list(tests.values())[-1]
    predicted = {name: predict(fitted.classifier, clips, nj) for name, fitted in classifiers.items()}
    if clips.softmax_predictions.all():
        predicted["softmax"] = clips.softmax_predictions
    scores = {
        name: {"scores": {test: _accuracies(codes, scenes[: len(codes.ids)]) for test, codes in tests.items()}}
        for name, scenes in predicted.items()
    }
    for name, fitted in classifiers.items():
        scores[name] |= {"chosen": fitted.settings, "tried": fitted.tried, "code_deviation": deviation}
    with atomic_folder(run.svm, "*.skops", "predictions.csv", "scores.json", provenance.NAME) as temporary:
        for name, fitted in classifiers.items():
            skops.io.dump(fitted.classifier, temporary / f"{name}.skops")
        _write_predictions(temporary / run.predictions.name, clips, len(codes["test"].ids), predicted)
        write_json(temporary / run.scores.name, {"classifiers": scores})
        provenance.write(temporary, record, sorted(temporary.iterdir()))
    for name, fitted in classifiers.items():
        accuracies = [f"{test} {100 * score['accuracy']:.2f} %" for test, score in scores[name]["scores"].items()]
        kernel, cost = fitted.settings["kernel"], fitted.settings["C"]
        log.info(
            "%s, %s: %s, C = %g, deviation of the codes %.3g: %s",
            run.title,
            name,
            kernel,
            cost,
            deviation,
            ", ".join(accuracies),
        )


def _accuracies(clips: Codes, predicted: np.ndarray) -> dict[str, float]:
    return {
        "clips": len(clips.ids),
        "accuracy": float((predicted == clips.scenes).mean()),
        "class_averaged": float(balanced_accuracy_score(clips.scenes, predicted)),
    }


def _write_predictions(path: Path, clips: Codes, tests: int, predicted: dict[str, np.ndarray]) -> None:
    """Write one row per clip; the first ``tests`` clips are the official test set."""
    split = ["test"] * tests + ["unused"] * (len(clips.ids) - tests)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("clip", "split", "scene", "location", *predicted))
        writer.writerows(zip(clips.ids, split, clips.scenes, clips.locations, *predicted.values(), strict=True))


if __name__ == "__main__":
    cli.run(main)
