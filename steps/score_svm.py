#!/usr/bin/env python3
"""Stage 7: choose an SVM on the validation codes, and score it once on the test codes."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from tagasc.backend.codes import Codes
from tagasc.backend.svm import Chosen, SvmConfig, choose_svm, class_averaged, fit_svm, predict
from tagasc.scene.experiment import runs
from tagasc.scene.systems import TAGS_ALONE, read_systems, select
from tagasc.utils import cli, provenance
from tagasc.utils.errors import UserError
from tagasc.utils.files import read_json, read_record, whole_folder, write_json
from tagasc.utils.log import log
from tagasc.utils.sweep import sweep

SCORES = "scores.json"
MACHINES = {"svm": False, "svm_standardised": True}


def main(
    out: Path,
    systems: str = "all",
    seeds: str = "1",
    systems_file: Path = Path("egs/systems.yaml"),
    svm: SvmConfig = SvmConfig(),
    chosen_by: Path | None = None,
    nj: int = 1,
    force: bool = False,
) -> None:
    """Write the machines, their predictions and their scores into ``<out>/svm/<system>/seed<k>``.

    Args:
        out: folder of the experiment, with the codes (stage 6).
        systems: names of systems or tables, separated by spaces, or all; also NAME@CONTROL and @CONTROL.
        seeds: separated by spaces.
        systems_file: the records of the systems.
        svm: what the machine is chosen from.
        chosen_by: take kernel and C as chosen in that experiment, and fit on training and validation codes together.
        nj: threads, which fit a machine each or share the clips to predict.
        force: score again even what is there.
    """
    if nj < 1:
        raise UserError(f"--nj {nj} must be at least 1")
    chosen = select(read_systems(systems_file), systems.split(), systems_file, chosen_by or out)
    mine = runs(out, "svm", list(chosen), seeds)
    if any(variant.system.uses_tags for variant in chosen.values()):
        mine += runs(out, "svm", [TAGS_ALONE], "0")

    def work(number: int) -> bool:
        name, seed, folder = mine[number]
        files = _code_files(out / "codes" / name / f"seed{seed}")
        settings: dict[str, Any] = {"svm": svm}
        if chosen_by is not None:
            scores = read_json(chosen_by / "svm" / name / f"seed{seed}" / SCORES, "stage 7 (svm)")
            settings = {machine: scores["machines"][machine]["chosen"] for machine in MACHINES}
        record = provenance.made_from("score_svm", settings, files)
        old = provenance.read(folder)
        why = provenance.difference(old, record) if old else "new"
        if why is None and not force:
            log.info("%s seed %d: up to date", name, seed)
            return False
        if old and not force:
            log.info("%s seed %d: outdated (%s), scoring again", name, seed, why)
        codes = {split: Codes.read(path) for split, path in files.items()}
        machines = _chosen(svm, codes, nj) if chosen_by is None else _refitted(settings, codes, nj)
        _score(f"{name} seed {seed}", codes, machines, folder, record, nj)
        return True

    sweep([f"{name}.seed{seed}" for name, seed, _ in mine], work, out / "log" / "svm")


def _code_files(source: Path) -> dict[str, Path]:
    """The codes of each split, all of one network."""
    for split in ("train", "validation", "test"):
        if not (source / f"{split}.npz").exists():
            raise UserError(f"{source / split}.npz does not exist; stage 6 (codes) makes it")
    files = {path.stem: path for path in sorted(source.glob("[!.]*.npz"))}
    networks = {(read_record(path) or {}).get("inputs", {}).get("network") for path in files.values()}
    if len(networks) > 1:
        raise UserError(f"{source} holds codes of different networks; run stage 6 (codes) again")
    return files


def _chosen(svm: SvmConfig, codes: dict[str, Codes], nj: int) -> dict[str, Chosen]:
    """The machines, each by half the threads; of an odd number one more."""
    found = Parallel(min(nj, 2), prefer="threads")(
        delayed(choose_svm)(svm, codes["train"], codes["validation"], standardise, (nj + 1) // 2)
        for standardise in MACHINES.values()
    )
    return dict(zip(MACHINES, found, strict=True))


def _refitted(settings: dict[str, dict], codes: dict[str, Codes], nj: int) -> dict[str, Chosen]:
    """The machines with kernel and C as given, fitted on training and validation codes together."""
    together = codes["train"].joined(codes["validation"])
    fitted = Parallel(min(nj, 2), prefer="threads")(
        delayed(fit_svm)(together, one["kernel"], one["C"], MACHINES[name]) for name, one in settings.items()
    )
    return {name: Chosen(svm, one, []) for (name, one), svm in zip(settings.items(), fitted, strict=True)}


def _score(
    title: str, codes: dict[str, Codes], machines: dict[str, Chosen], folder: Path, record: dict, nj: int
) -> None:
    """Predict the test clips, and the unused ones, once; write everything or nothing."""
    import skops.io  # here, since it takes long to import

    tests = {"test": codes["test"]}
    if "unused" in codes:
        # The paper's other test set: every clip that is not in the fold's training list.
        tests["test+unused"] = codes["test"].joined(codes["unused"])
    every = list(tests.values())[-1]
    predicted = {name: predict(one.machine, every, nj) for name, one in machines.items()}
    if every.answers.all():
        predicted["softmax"] = every.answers
    scores = {
        name: {"scores": {t: _accuracies(c, p[: len(c.ids)]) for t, c in tests.items()}}
        for name, p in predicted.items()
    }
    for name, one in machines.items():
        scores[name] |= {"chosen": one.settings, "tried": one.tried}
    with whole_folder(folder) as beside:
        for name, one in machines.items():
            skops.io.dump(one.machine, beside / f"{name}.skops")
        _write_predictions(beside / "predictions.csv", every, len(codes["test"].ids), predicted)
        write_json(beside / SCORES, {"machines": scores})
        provenance.write(beside, record)
    for name, one in machines.items():
        shown = ", ".join(f"{test} {100 * of['accuracy']:.2f} %" for test, of in scores[name]["scores"].items())
        log.info("%s, %s: %s, C = %g: %s", title, name, one.settings["kernel"], one.settings["C"], shown)


def _accuracies(clips: Codes, predicted: np.ndarray) -> dict[str, float]:
    return {
        "clips": len(clips.ids),
        "accuracy": float((predicted == clips.scenes).mean()),
        "class_averaged": class_averaged(clips.scenes, predicted),
    }


def _write_predictions(path: Path, clips: Codes, tests: int, predicted: dict[str, np.ndarray]) -> None:
    """A row a clip; the first ``tests`` clips are the official test set."""
    split = ["test"] * tests + ["unused"] * (len(clips.ids) - tests)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("clip", "split", "scene", "location", *predicted))
        writer.writerows(zip(clips.ids, split, clips.scenes, clips.locations, *predicted.values(), strict=True))


if __name__ == "__main__":
    cli.run(main)
