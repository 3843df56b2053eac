#!/usr/bin/env python3
"""Stage 7: choose an SVM on the validation codes, and score it once on the test codes."""

import csv
from pathlib import Path

import numpy as np
import skops.io

from tagasc import command, provenance
from tagasc.backend import Codes, SvmConfig, choose_svm
from tagasc.console import log
from tagasc.errors import UserError
from tagasc.files import whole_folder, write_json
from tagasc.metrics import class_averaged
from tagasc.systems import read_systems, runs, select
from tagasc.tags import read_record

SPLITS = ("train", "validation", "test")


def main(
    out: Path,
    systems: str = "all",
    seeds: str = "1",
    systems_file: Path = Path("egs/systems.yaml"),
    svm: SvmConfig = SvmConfig(),
    force: bool = False,
) -> None:
    """Write the machine, its predictions and its scores into ``<out>/svm/<system>/seed<k>``.

    Args:
        out: folder of the experiment, with the codes (stage 6).
        systems: names of systems or tables, separated by spaces, or all.
        seeds: separated by spaces.
        systems_file: the records of the systems.
        svm: what the machine is chosen from.
        force: score again even what is there.
    """
    chosen = select(read_systems(systems_file), systems.split(), systems_file)
    for name, seed, folder in runs(out, "svm", list(chosen), seeds):
        source = out / "codes" / name / f"seed{seed}"
        missing = [split for split in SPLITS if not (source / f"{split}.npz").exists()]
        if missing:
            raise UserError(f"{source / missing[0]}.npz does not exist; stage 6 (codes) makes it")
        files = {path.stem: path for path in sorted(source.glob("[!.]*.npz"))}
        networks = {(read_record(path) or {}).get("inputs", {}).get("network") for path in files.values()}
        if len(networks) > 1:
            raise UserError(f"{source} holds codes of different networks; run stage 6 (codes) again")
        record = provenance.made_from("score_svm", {"svm": svm}, files)
        old = provenance.read(folder)
        why = provenance.difference(old, record) if old else "new"
        if why is None and not force:
            log.info("%s seed %d: up to date", name, seed)
            continue
        if old and not force:
            log.info("%s seed %d: outdated (%s), scoring again", name, seed, why)
        _score(f"{name} seed {seed}", {split: Codes.read(path) for split, path in files.items()}, svm, folder, record)


def _score(title: str, codes: dict[str, Codes], config: SvmConfig, folder: Path, record: dict) -> None:
    machine, tried = choose_svm(config, codes["train"], codes["validation"])
    tests = {"test": codes["test"]}
    if "unused" in codes:
        # The paper's other test set: every clip that is not in the fold's training list.
        tests["test+unused"] = codes["test"].joined(codes["unused"])
    # The softmax's order of scenes is alphabetical, as is that of the training labels.
    names = np.unique(codes["train"].scenes)
    scores, rows = {}, []
    for split, clips in tests.items():
        predicted, by_network = machine.predict(clips.codes), names[clips.logits.argmax(axis=1)]
        scores[split] = {
            "clips": len(clips.ids),
            "accuracy": float((predicted == clips.scenes).mean()),
            "class_averaged": class_averaged(clips.scenes, predicted),
            "softmax_accuracy": float((by_network == clips.scenes).mean()),
        }
        if split == list(tests)[-1]:
            rows = list(zip(clips.ids, clips.scenes, predicted, by_network, clips.locations, strict=True))
    in_test = set(codes["test"].ids)
    best = max(tried, key=lambda one: one["validation_accuracy"])
    with whole_folder(folder) as beside:
        skops.io.dump(machine, beside / "svm.skops")
        with (beside / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("clip", "split", "scene", "svm", "softmax", "location"))
            writer.writerows((clip, "test" if clip in in_test else "unused", *rest) for clip, *rest in rows)
        write_json(beside / "scores.json", {"chosen": best, "tried": tried, "scores": scores})
        provenance.write(beside, record)
    shown = ", ".join(f"{split} {100 * score['accuracy']:.2f} %" for split, score in scores.items())
    log.info(
        "%s: %s, C = %g (validation %.2f %%): %s",
        title,
        best["kernel"],
        best["C"],
        100 * best["validation_accuracy"],
        shown,
    )


if __name__ == "__main__":
    command.run(main)
