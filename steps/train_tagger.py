#!/usr/bin/env python3
"""Stage 3: train the audio tagger, and score it once on the test clips."""

from pathlib import Path

import numpy as np
import torch

from tagasc import command, provenance
from tagasc.console import log
from tagasc.errors import UserError
from tagasc.features import MelConfig
from tagasc.files import digest, read_json, write_json
from tagasc.metrics import lwlrap, lwlrap_by_class
from tagasc.models.tagger import TaggerConfig
from tagasc.tagger import TaggedClips, TaggerTask, TaggerTraining, load_tagger
from tagasc.training import WEIGHTS, choose_device, fit, parameters, prepare

SCORES = "scores.json"


def main(
    audio: Path,
    out: Path,
    corpus: str = "fsdkaggle2019",
    model: TaggerConfig = TaggerConfig(),
    mel: MelConfig = MelConfig(),
    training: TaggerTraining = TaggerTraining(),
    noisy: bool = True,
    seed: int = 1,
    device: str = "auto",
    deterministic: bool = False,
    force: bool = False,
) -> None:
    """Train the audio tagger.

    Args:
        audio: folder of packed audio, with ``<corpus>_curated``, ``_noisy`` and ``_test``.
        out: folder of the result.
        corpus: name of the tagging corpus.
        model: shape of the network.
        mel: the spectrogram.
        training: how it is trained.
        noisy: train the noisy head on the noisy clips too.
        seed: of initialisation, order and augmentation.
        device: auto, cpu, cuda, or cuda:N.
        deterministic: repeat bit for bit on a GPU too; slower.
        force: start over even if there is a result.
    """
    if seed < 0:
        raise UserError(f"--seed {seed} must not be negative")
    where = choose_device(device, deterministic)
    folders = {split: audio / f"{corpus}_{split}" for split in ("curated", "noisy", "test")}
    config = {"model": model, "mel": mel, "training": training, "noisy": noisy, "seed": seed}
    record = provenance.made_from("train_tagger", config, _inputs(folders, noisy))
    to_train = prepare(out, record, force)
    if to_train or not _is_scored(out, folders["test"]):
        curated = TaggedClips(folders["curated"], None, mel, where)
        others = TaggedClips(folders["noisy"], curated.classes, mel, where) if noisy else None
        task = TaggerTask(training, model, mel, curated, others, seed, where)
        log.info("tagger: %d classes, %d parameters, device %s", len(curated.classes), parameters(task.network), where)
        if to_train:
            fit(task, out, training.epochs, task.about())
        _score(out, task, folders["test"], mel, where)
    scores = read_json(out / SCORES, "stage 3 (tagger)")
    shown = ", ".join(f"{name} {value:.3f}" for name, value in scores["lwlrap"].items() if value is not None)
    log.info("tagger: lwlrap %s", shown)


def _inputs(folders: dict[str, Path], noisy: bool) -> dict[str, Path]:
    """Indexes of the audio that is trained on."""
    used = ("curated", "noisy") if noisy else ("curated",)
    for split in used:
        if not folders[split].is_dir():
            without = ", or give --noisy false to train without" if split == "noisy" else ""
            raise UserError(f"{folders[split]} does not exist; run stage 2 (pack){without}")
    return {split: folders[split] / "index.json" for split in used}


def _scored_clips(out: Path, test: Path) -> dict[str, str | None]:
    """What scores are of: these weights on these test clips."""
    index = test / "index.json"
    return {"weights": digest(out / WEIGHTS), "test": digest(index) if index.exists() else None}


def _is_scored(out: Path, test: Path) -> bool:
    return (out / SCORES).exists() and read_json(out / SCORES, "stage 3 (tagger)").get("of") == _scored_clips(out, test)


def _score(out: Path, task: TaggerTask, test: Path, mel: MelConfig, where: torch.device) -> None:
    """lwlrap of the kept weights on the held-out fold and, once, on the test clips, in all and by usage."""
    network, _, classes = load_tagger(out / WEIGHTS)
    task.network = network.to(where)
    clips, which = task.curated, task.held_out
    found = {"validation": lwlrap(clips.truth[which].numpy(), task.scores(clips, which))}
    by_class = None
    if test.is_dir():
        clips = TaggedClips(test, classes, mel, where)
        truth, scores = clips.truth.numpy(), task.scores(clips, torch.arange(len(clips.packed)))
        usage = np.array([clip.usage for clip in clips.packed.clips])
        found["test"] = lwlrap(truth, scores)
        found |= {f"test {name}": lwlrap(truth[usage == name], scores[usage == name]) for name in ("Public", "Private")}
        by_class = dict(zip(classes, map(_or_none, lwlrap_by_class(truth, scores)), strict=True))
    found = {name: _or_none(value) for name, value in found.items()}
    scores = {"of": _scored_clips(out, test), "lwlrap": found, "test_by_class": by_class}
    write_json(out / SCORES, {**scores, "parameters": parameters(network)})


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


if __name__ == "__main__":
    command.run(main)
