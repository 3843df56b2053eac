#!/usr/bin/env python3
"""Stage 5: train scene networks (section 2.1), one for each system and seed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from tagasc.audio.store import AudioCache
from tagasc.backend.paper_protocol import COST, AddEpoch, EpochScorer, LabelledCodes
from tagasc.benchmark.rungs import self_test
from tagasc.benchmark.scene import SceneBenchmark
from tagasc.scene.config import SceneTraining
from tagasc.scene.corpus import CodeSegment, SceneClips, SceneCorpus, TagOptions, released_windows
from tagasc.scene.experiment import RunPaths, log_folder, runs
from tagasc.scene.inference import codes_and_logits
from tagasc.scene.systems import SystemVariant, read_systems, select
from tagasc.scene.training import SceneTrainer
from tagasc.scene.trunk import TrunkConfig
from tagasc.training.ladder import Ladder, Rung
from tagasc.training.loop import fit
from tagasc.training.result import TRAINING_FILES, check_result_folder, require_history
from tagasc.training.weights import parameters
from tagasc.utils import cli, provenance
from tagasc.utils.device import Compile, Precision, choose_device, precision_on
from tagasc.utils.errors import UserError
from tagasc.utils.log import log
from tagasc.utils.sweep import clear_once, sweep

Protocol = Literal["ours", "both", "paper", "final"]
TRAINED_ON = {"ours": "train", "both": "train", "paper": "train+validation", "final": "train+validation"}
SCORES_EPOCHS = ("both", "paper")


@dataclass(frozen=True)
class Options:
    """Train scene networks into ``<out>/scene/<system>/seed<k>``; processes with the same options share the runs.

    Args:
        audio: folder of packed audio, with ``<corpus>_train``, ``_validation``; ``_test`` for the paper's protocol.
        out: folder of the experiment.
        tags: folder of tag vectors (stage 4); needed by every system but the baseline.
        corpus: name of the scene corpus.
        systems: names of systems or tables, separated by spaces, or all; NAME@CONTROL alters the tags, @CONTROL those
            of the best tag system on validation.
        seeds: random seeds, separated by spaces.
        systems_file: file of the systems.
        trunk: shape of the network.
        training: training settings.
        protocol: ours keeps the epoch that is best on validation; both also scores every epoch on test, as the paper
            did; paper does that after training on train and validation together; final trains on both together, for
            the number of epochs that select_from's run kept.
        select_from: for paper and final, experiment in which validation selected epochs and the best system.
        code_segment: part of a clip that the paper's protocol computes codes from, whole or as in the released code.
        nj: processes that score epochs during the training.
        audio_cache: where the audio is kept: auto, gpu, pinned (memory), or disk (memory-mapped).
        device: auto, cpu, cuda, or cuda:N.
        precision: precision of networks: float32 (never TF32), bfloat16, or auto (bfloat16 on a GPU that has it).
        compile: use torch.compile, and on a GPU CUDA graphs: auto (on a GPU), always, or never.
        deterministic: make results on a GPU reproducible bit for bit; slower.
        force: discard existing results and train again.
    """

    audio: Path
    out: Path
    tags: Path | None = None
    corpus: str = "tau2019"
    systems: str = "all"
    seeds: str = "1"
    systems_file: Path = Path("egs/systems.yaml")
    trunk: TrunkConfig = TrunkConfig()
    training: SceneTraining = SceneTraining()
    protocol: Protocol = "ours"
    select_from: Path | None = None
    code_segment: CodeSegment = "whole"
    nj: int = 1
    audio_cache: AudioCache = "auto"
    device: str = "auto"
    precision: Precision = "auto"
    compile: Compile = "auto"
    deterministic: bool = False
    force: bool = False


def main(options: Options) -> None:
    """Train every run of the sweep; see ``Options``."""
    if options.nj < 1:
        raise UserError(f"--nj {options.nj} must be at least 1")
    tables, experiment = read_systems(options.systems_file), options.select_from or options.out
    variants = select(tables, options.systems.split(), options.systems_file, experiment)
    pending = runs(options.out, list(variants), options.seeds)
    device = choose_device(options.device, options.deterministic, options.precision)
    corpus = SceneCorpus(options.audio, options.corpus, options.tags, device, options.audio_cache)
    ladder = Ladder(options.compile, device, corpus.leave_gpu)
    scored = ("test",) if options.protocol in SCORES_EPOCHS else ()
    uses_tags = any(variant.system.uses_tags for variant in variants.values())
    corpus.files(("train", "validation", *scored), uses_tags)
    if uses_tags:
        corpus.require_scale(options.training.tag_scale)
    log.info("runs: %d, device: %s, threads: %d", len(pending), device, torch.get_num_threads())
    logs = log_folder(options.out, "scene")
    if options.force:  # all of them first, so that an interrupted sweep resumes without --force
        clear_once([run.network for run in pending], logs, TRAINING_FILES)
    with EpochScorer(options.nj if options.protocol in SCORES_EPOCHS else 0) as scorer:

        def train(index: int) -> bool:
            run = pending[index]
            return _train(options, corpus, run, variants[run.system], ladder, scorer)

        sweep([run.name for run in pending], train, logs)


def _train(
    options: Options, corpus: SceneCorpus, run: RunPaths, variant: SystemVariant, ladder: Ladder, scorer: EpochScorer
) -> bool:
    """Train one run and score its epochs; return False if it was trained already."""
    epochs, uses_tags = _epochs(options, run), variant.system.uses_tags
    config = {"system": variant.system, "control": variant.control, "seed": run.seed, "epochs": epochs}
    config |= {"trunk": options.trunk, "training": options.training, "trained_on": TRAINED_ON[options.protocol]}
    config["precision"] = precision_on(ladder.device)
    files = corpus.files(("train", "validation"), uses_tags)
    to_train = check_result_folder(run.network, provenance.record("train_scene", config, files), force=False)
    record = (
        _scoring_record(options, corpus, uses_tags, config["precision"]) if options.protocol in SCORES_EPOCHS else {}
    )
    with scorer.score(run.network, epochs, record) as score:
        if to_train:
            _test_rungs(options, corpus, ladder)
            ladder.run(_fit, options, corpus, run, variant, epochs, score)
    return to_train


def _fit(
    rung: Rung,
    options: Options,
    corpus: SceneCorpus,
    run: RunPaths,
    variant: SystemVariant,
    epochs: int,
    score: AddEpoch,
) -> None:
    """Train a run from its last checkpoint, if there is one."""
    trainer, compute_codes = _trainer(options, corpus, variant, run.seed, rung)
    log.info("%s: %d parameters, %s steps", run.title, parameters(trainer.network), rung)
    after_epoch = lambda epoch: score(epoch, lambda: compute_codes(epoch))
    fit(trainer, run.network, epochs, trainer.metadata(), after_epoch)


@cache
def _test_rungs(options: Options, corpus: SceneCorpus, ladder: Ladder) -> None:
    """Test on a GPU, once in a process, that its fast steps compute what plain ones do."""
    if ladder.device.type == "cuda" and ladder.rung != "plain":
        clips = corpus.clips(["train"], None)
        rate = clips.packed.sampling_rate
        what = SceneBenchmark(options.trunk, options.training, clips.frames / rate, rate, clips.packed.channels)
        ladder.run(self_test, ladder, what)


def _epochs(options: Options, run: RunPaths) -> int:
    if options.protocol != "final":
        return options.training.epochs
    if options.select_from is None:
        raise UserError("--protocol final needs --select-from, the experiment whose validation selected the epochs")
    folder = RunPaths(options.select_from, run.system, run.seed).network
    return require_history(folder, "stage 5 (scenes)")["best_epoch"]


def _scoring_record(options: Options, corpus: SceneCorpus, uses_tags: bool, precision: str) -> dict[str, Any]:
    """Record every input of the scores by the paper's protocol, except the network."""
    config = {"trained_on": TRAINED_ON[options.protocol], "code_segment": options.code_segment, "C": COST}
    config["precision"] = precision
    splits = [*TRAINED_ON[options.protocol].split("+"), *_test_splits(corpus)]
    return provenance.record("score_epochs", config, corpus.files(splits, uses_tags))


def _test_splits(corpus: SceneCorpus) -> list[str]:
    return [split for split in ("test", "unused") if split in corpus.splits]


def _trainer(
    options: Options, corpus: SceneCorpus, variant: SystemVariant, seed: int, rung: Rung
) -> tuple[SceneTrainer, Callable[[int], dict[str, LabelledCodes]]]:
    """Prepare a run; return its trainer, and a function that computes an epoch's codes for the paper's protocol."""
    training, system = options.training, variant.system
    tag_options = TagOptions(variant.control, training.tag_scale, seed) if system.uses_tags else None
    train = corpus.clips(TRAINED_ON[options.protocol].split("+"), tag_options)
    validation = corpus.clips(["validation"], tag_options) if TRAINED_ON[options.protocol] == "train" else None
    trainer = SceneTrainer(training, options.trunk, system, train, validation, seed, rung)

    def compute_codes(epoch: int) -> dict[str, LabelledCodes]:
        tests = {split: corpus.clips([split], tag_options) for split in _test_splits(corpus)}
        return {
            split: _labelled_codes(trainer, clips, split == "train", options.code_segment, epoch)
            for split, clips in ({"train": train} | tests).items()
        }

    return trainer, compute_codes


def _labelled_codes(
    trainer: SceneTrainer, clips: SceneClips, training: bool, code_segment: CodeSegment, epoch: int
) -> LabelledCodes:
    """Compute codes with the network's current weights, and add the true scenes."""
    windows = None
    if code_segment == "released":
        windows = released_windows(clips, training, trainer.config.crop_seconds, trainer.seed, epoch)
    codes, _ = codes_and_logits(trainer.network, clips, windows)
    return LabelledCodes(codes, (clips.scenes if windows is None else clips.scenes[windows.clip_indices]).numpy())


if __name__ == "__main__":
    cli.run(main)
