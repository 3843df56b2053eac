#!/usr/bin/env python3
"""Stage 3: train the audio tagger, fold by fold, and score it.

Its parts, each with a record of what it was made from, each left alone once done:

- ``fold<k>/stage1``: curated and noisy clips, two heads;
- ``fold<k>/pseudo_labels.npz``: soft labels of the noisy clips, from stage 1's snapshots;
- ``fold<k>/stage2``: the semi-supervised stage, from stage 1's last weights;
- score: ``predictions/``, ``scores.json``, and ``tagger.json``, which says what weights the tagger consists of.
"""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tagasc.audio.packed import PackedAudio
from tagasc.tagger.clips import TaggedClips, label_matrix
from tagasc.tagger.config import Inference, PseudoLabels, SemiTraining, TaggerTraining
from tagasc.tagger.features import MelConfig
from tagasc.tagger.inference import TAGGER, load_ensemble, load_tagger_network, write_tagger
from tagasc.tagger.lwlrap import lwlrap
from tagasc.tagger.network import TaggerConfig
from tagasc.tagger.scoring import Models, best_model, full_ensemble, lwlrap_by_usage, out_of_fold
from tagasc.tagger.semi import SemiTrainer, sharpen
from tagasc.tagger.tags import TagVectors
from tagasc.tagger.training import FoldSetup, TaggerTrainer, snapshots
from tagasc.training.loop import fit
from tagasc.training.result import HISTORY, WEIGHTS, check_result_folder
from tagasc.training.weights import parameters, read_weights
from tagasc.utils import cli, provenance
from tagasc.utils.device import choose_device
from tagasc.utils.errors import PartialFailure, UserError
from tagasc.utils.files import digest, read_json, read_record, write_json, write_npz
from tagasc.utils.log import log
from tagasc.utils.sweep import clear_once, sweep

SCORES, PREDICTIONS = "scores.json", "predictions"
PARTS = ("stage1", "pseudo_labels", "stage2", "score")
_STAGE = "stage 3 (tagger)"


def main(
    audio: Path,
    out: Path,
    corpus: str = "fsdkaggle2019",
    model: TaggerConfig = TaggerConfig(),
    mel: MelConfig = MelConfig(),
    training: TaggerTraining = TaggerTraining(),
    pseudo_labels: PseudoLabels = PseudoLabels(),
    semi: SemiTraining = SemiTraining(),
    inference: Inference = Inference(),
    folds: str = "0",
    stages: Literal[1, 2] = 1,
    noisy: bool = True,
    seed: int = 1,
    part: Literal["all", "stage1", "pseudo_labels", "stage2", "score"] = "all",
    compile: bool = False,
    device: str = "auto",
    deterministic: bool = False,
    force: bool = False,
) -> None:
    """Train the audio tagger; processes that do the same part share its folds.

    Args:
        audio: folder of packed audio, with ``<corpus>_curated``, ``_noisy`` and, if there are any, ``_test`` clips.
        out: folder of the result.
        corpus: name of the tagging corpus.
        model: shape of the network.
        mel: the spectrogram.
        training: how it is trained.
        pseudo_labels: how the noisy clips' soft labels are made.
        semi: what stage 2 adds.
        inference: how the trained networks are used.
        folds: which folds to train, counted from 0 and separated by spaces, or all.
        stages: 1 (curated and noisy clips), or 2 (then semi-supervised).
        noisy: use the noisy clips.
        seed: of initialisation, order and augmentation.
        part: do one part only; each needs those before it.
        compile: let torch.compile make the trunk faster; sums then differ in the last bits.
        device: auto, cpu, cuda, or cuda:N.
        deterministic: repeat bit for bit on a GPU too; slower.
        force: start over even if there is a result.
    """
    if seed < 0:
        raise UserError(f"--seed {seed} must not be negative")
    if not noisy:
        skipped = ", pseudo-labels and stage 2" if stages == 2 else ""
        log.info("tagger: without noisy clips; skipped: noisy head%s", skipped)
    settings = Settings(model, mel, training, pseudo_labels, semi, inference, noisy, seed, compile)
    chosen = _folds(folds, training.folds)
    work = TaggerRun(settings, chosen, stages if noisy else 1, audio, corpus, out, choose_device(device, deterministic))
    parts = PARTS if part == "all" else (part,)
    if force:
        work.clear(parts[0])
    for name in parts:
        work.do(name)


@dataclass(frozen=True)
class Settings:
    """Everything that the tagger's weights depend on, but for the fold; see ``main``."""

    model: TaggerConfig
    mel: MelConfig
    training: TaggerTraining
    pseudo_labels: PseudoLabels
    semi: SemiTraining
    inference: Inference
    noisy: bool
    seed: int
    compiled: bool


class TaggerRun:
    """The parts of the stage on chosen folds; each does nothing where its result is there and up to date."""

    def __init__(
        self,
        settings: Settings,
        folds: list[int],
        stages: int,
        audio: Path,
        corpus: str,
        out: Path,
        device: torch.device,
    ) -> None:
        self.settings, self.folds, self.stages, self.out, self.device = settings, folds, stages, out, device
        self.packed = {split: audio / f"{corpus}_{split}" for split in ("curated", "noisy", "test")}
        for split in ("curated", "noisy")[: 1 + settings.noisy]:
            if not self.packed[split].is_dir():
                without = ", or give --noisy false to train without them" if split == "noisy" else ""
                raise UserError(f"{self.packed[split]} does not exist; run stage 2 (pack){without}")

    @cached_property
    def curated(self) -> TaggedClips:
        """The curated clips; their labels are the vocabulary, which the test clips' must be too."""
        clips = TaggedClips(self.packed["curated"], None, self.settings.mel, self.device)
        if self.packed["test"].is_dir():
            label_matrix(PackedAudio(self.packed["test"]), clips.classes, labelled=False)  # now, not after the training
        return clips

    @cached_property
    def noisy(self) -> TaggedClips | None:
        """The noisy clips, or None."""
        if not self.settings.noisy:
            return None
        return TaggedClips(self.packed["noisy"], self.curated.classes, self.settings.mel, self.device)

    def folder(self, fold: int, stage: int) -> Path:
        """Where one stage of one fold is kept."""
        return self.out / f"fold{fold}" / f"stage{stage}"

    def soft_labels(self, fold: int) -> Path:
        """Where a fold's pseudo-labels are kept."""
        return self.out / f"fold{fold}" / "pseudo_labels.npz"

    def snapshots(self, fold: int, stage: int) -> list[Path]:
        """The snapshots of one stage of one fold."""
        epochs = self.settings.training.epochs if stage == 1 else self.settings.semi.epochs
        return snapshots(self.folder(fold, stage), epochs, self.settings.training.cycle)

    def clear(self, first: str) -> None:
        """Remove trainings, so that the parts from ``first`` on are done anew; what else there is, costs little."""
        folds = [self.out / f"fold{fold}" for fold in self.folds]
        if first == "stage1":
            clear_once(folds, self.out / "log")
        elif first == "stage2":
            clear_once([folder / "stage2" for folder in folds], self.out / "log")

    def do(self, part: str) -> None:
        """Do one part on every fold that no other process is at.

        Raises:
            UserError: a fold failed, so that the tagger cannot be whole.
        """
        if self.stages == 1 and part in ("pseudo_labels", "stage2"):
            return
        if part == "score":
            sweep(["score"], lambda _: self.score(), self.out / "log")
            return
        work = {"stage1": self.stage1, "pseudo_labels": self.pseudo_labels, "stage2": self.stage2}[part]
        names = [f"fold{fold}.{part}" for fold in self.folds]
        try:
            sweep(names, lambda number: work(self.folds[number]), self.out / "log")
        except PartialFailure as error:
            raise UserError(str(error)) from None

    def stage1(self, fold: int) -> bool:
        """Train stage 1 on one fold; False if it is trained already."""
        if not check_result_folder(self.folder(fold, 1), self._record(fold, 1, {}), force=False):
            return False
        self._fit(TaggerTrainer(self._fold(fold, 1)))
        return True

    def pseudo_labels(self, fold: int) -> bool:
        """Make the noisy clips' soft labels for one fold; False if they are up to date."""
        options = self.settings.pseudo_labels
        sources = [fold] if options.models == "own" else self.folds
        paths = [path for source in sources for path in self.snapshots(source, 1)]
        inputs = {str(path.relative_to(self.out)): _require(path) for path in paths}
        pads = self.settings.inference.pads
        record = provenance.record(
            "train_tagger pseudo_labels",
            {"pseudo_labels": options, "pads": pads},
            {**inputs, "noisy": self.packed["noisy"] / "index.json"},
        )
        path, title = self.soft_labels(fold), f"fold{fold}/pseudo_labels.npz"
        if provenance.is_current(title, read_record(path), record):
            return False
        ensemble = load_ensemble(paths, pads, self.device)
        mean = ensemble.tags(self.noisy, torch.arange(len(self.noisy)), self.settings.training.batch)
        values = sharpen(mean, options.sharpness)
        write_npz(path, record, ids=np.array(self.noisy.packed.ids), classes=np.array(ensemble.classes), values=values)
        log.info("%s: %d clips, mean over %d networks", title, len(values), len(paths))
        return True

    def stage2(self, fold: int) -> bool:
        """Train stage 2 on one fold; False if it is trained already."""
        start, labels = _require(self.snapshots(fold, 1)[-1]), _require(self.soft_labels(fold))
        record = self._record(fold, 2, {"stage1": start, "pseudo_labels": labels})
        if not check_result_folder(self.folder(fold, 2), record, force=False):
            return False
        soft = torch.from_numpy(TagVectors.read(labels).of(self.noisy.packed.ids))
        weights, _ = read_weights(start, _STAGE)
        self._fit(SemiTrainer(self._fold(fold, 2), self.settings.semi, soft, weights))
        return True

    def score(self) -> bool:
        """Score every stage on held-out and test clips, and declare the tagger ready."""
        by_stage = {stage: self._models(stage) for stage in range(1, self.stages + 1)}
        record = self._score_record(by_stage)
        old = provenance.read(self.out) if (self.out / TAGGER).exists() else None
        to_score = old is None or provenance.difference(old, record) is not None
        if to_score:
            (self.out / TAGGER).unlink(missing_ok=True)
            shutil.rmtree(self.out / PREDICTIONS, ignore_errors=True)  # of a stage or split that is no more, too
            found = {f"stage {stage}": self._score_stage(stage, models) for stage, models in by_stage.items()}
            paths = [path for some in by_stage[self.stages].values() for path in some]
            metadata = {"parameters": parameters(load_tagger_network(paths[0])[0]), "networks": len(paths)}
            metadata |= {"pads": len(self.settings.inference.pads), "joint_pass": self.settings.training.joint_pass}
            write_json(self.out / SCORES, {"lwlrap": found, **metadata})
            provenance.write(self.out, record)
            write_tagger(self.out, paths, self.settings.inference)
        for stage, values in read_json(self.out / SCORES, _STAGE)["lwlrap"].items():
            shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items() if value is not None)
            log.info("tagger, %s: lwlrap %s", stage, shown)
        return to_score

    def _score_stage(self, stage: int, models: Models) -> dict[str, float | None]:
        """Keep a stage's tags of held-out and test clips; its lwlrap on them."""
        s, folder = self.settings, self.out / PREDICTIONS
        tags, truth = out_of_fold(models, self.curated, s.training, s.inference, self.device)
        self._keep(folder / f"stage{stage}_out_of_fold.npz", tags, truth)
        flatters = ["leaks"] if stage == 2 and s.pseudo_labels.models == "all" else []
        flatters += ["chosen on these"] if s.inference.models == "best" else []
        name = "out-of-fold" + (f" ({', '.join(flatters)})" if flatters else "")
        found: dict[str, float | None] = {name: lwlrap(truth, tags.values)}
        if self.packed["test"].is_dir():
            clips = TaggedClips(self.packed["test"], self.curated.classes, s.mel, self.device, labelled=False)
            values = full_ensemble(models, s.inference, self.device).tags(
                clips, torch.arange(len(clips)), s.training.batch
            )
            tags, truth = TagVectors(clips.packed.ids, clips.classes, values), clips.truth.numpy()
            self._keep(folder / f"stage{stage}_test.npz", tags, truth)
            found |= lwlrap_by_usage(truth, values, [clip.usage for clip in clips.packed.clips])
        return found

    def _keep(self, path: Path, tags: TagVectors, truth: np.ndarray) -> None:
        record = {"step": "train_tagger score"}
        arrays = {"ids": np.array(tags.ids), "classes": np.array(tags.classes), "values": tags.values}
        write_npz(path, record, **arrays, truth=truth.astype(bool))

    def _score_record(self, by_stage: dict[int, Models]) -> dict[str, Any]:
        """What the scores, and the tagger as a whole, are made from."""
        models = {
            str(p.relative_to(self.out)): digest(p) for m in by_stage.values() for some in m.values() for p in some
        }
        used = ("curated", *(("noisy",) if self.settings.noisy else ()), "test")
        audio = {split: self.packed[split] / "index.json" for split in used if self.packed[split].is_dir()}
        config = {"settings": self.settings, "folds": self.folds, "stages": self.stages, "models": models}
        return provenance.record("train_tagger", config, audio)

    def _fold(self, fold: int, stage: int) -> FoldSetup:
        s, folder = self.settings, self.folder(fold, stage)
        return FoldSetup(
            fold, self.curated, self.noisy, s.training, s.model, s.mel, s.seed, folder, self.device, s.compiled
        )

    def _fit(self, task: TaggerTrainer) -> None:
        folder, number = task.fold.folder, parameters(task.network)
        title = "/".join(folder.parts[-2:])
        log.info("%s: %d classes, %d parameters, device %s", title, len(self.curated.classes), number, self.device)
        fit(task, folder, task.epochs, task.metadata())

    def _record(self, fold: int, stage: int, inputs: dict[str, Path]) -> dict[str, Any]:
        """What one stage of one fold is made from."""
        s = self.settings
        config = {
            "model": s.model,
            "mel": s.mel,
            "training": s.training,
            "noisy": s.noisy,
            "seed": s.seed,
            "compiled": s.compiled,
        }
        config |= {"fold": fold} | ({"semi": s.semi} if stage == 2 else {})
        audio = {split: self.packed[split] / "index.json" for split in ("curated", "noisy")[: 1 + s.noisy]}
        return provenance.record(f"train_tagger stage{stage}", config, {**audio, **inputs})

    def _models(self, stage: int) -> Models:
        """By fold, the weights that the tagger consists of: all snapshots, or the best single network."""
        done = {fold: _require(self.folder(fold, stage) / WEIGHTS) for fold in self.folds}  # written last
        if self.settings.inference.models == "mean":
            return {fold: self.snapshots(fold, stage) for fold in self.folds}
        best = best_model({fold: read_json(path.with_name(HISTORY), _STAGE) for fold, path in done.items()})
        return {best: [done[best]]}


def _require(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path} does not exist; an earlier part of stage 3 (tagger) makes it")
    return path


def _folds(text: str, number: int) -> list[int]:
    """The folds that ``text`` names."""
    names = text.split()
    if names == ["all"]:
        return list(range(number))
    if not names or not all(name.isdecimal() and int(name) < number for name in names):
        raise UserError(f"--folds {text!r} must be numbers in 0..{number - 1}, separated by spaces, or all")
    return sorted({int(name) for name in names})


if __name__ == "__main__":
    cli.run(main)
