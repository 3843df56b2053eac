#!/usr/bin/env python3
"""Stage 5: train scene networks, one for each system and seed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from tagasc.audio.store import AudioCache
from tagasc.backend.paper_protocol import COST, EpochScorer, LabelledCodes
from tagasc.scene.config import SceneTraining
from tagasc.scene.corpus import CodeSegment, SceneClips, SceneCorpus, TagOptions, released_windows
from tagasc.scene.experiment import RunPaths, log_folder, runs
from tagasc.scene.inference import codes_and_logits
from tagasc.scene.systems import SystemVariant, read_systems, select
from tagasc.scene.training import SceneTrainer
from tagasc.scene.trunk import TrunkConfig
from tagasc.training.loop import fit
from tagasc.training.result import check_result_folder
from tagasc.training.weights import parameters
from tagasc.utils import cli, provenance
from tagasc.utils.device import Compile, choose_device, should_compile
from tagasc.utils.errors import UserError
from tagasc.utils.files import read_json
from tagasc.utils.log import log
from tagasc.utils.sweep import clear_once, sweep

Protocol = Literal["ours", "both", "paper", "final"]
TRAINED_ON = {"ours": "train", "both": "train", "paper": "train+validation", "final": "train+validation"}


def main(
    audio: Path,
    out: Path,
    tags: Path | None = None,
    corpus: str = "tau2019",
    systems: str = "all",
    seeds: str = "1",
    systems_file: Path = Path("egs/systems.yaml"),
    trunk: TrunkConfig = TrunkConfig(),
    training: SceneTraining = SceneTraining(),
    protocol: Protocol = "ours",
    select_from: Path | None = None,
    code_segment: CodeSegment = "whole",
    nj: int = 1,
    audio_cache: AudioCache = "auto",
    device: str = "auto",
    compile: Compile = "auto",
    deterministic: bool = False,
    force: bool = False,
) -> None:
    """Train scene networks into ``<out>/scene/<system>/seed<k>``; processes given the same list share it.

    Args:
        audio: folder of packed audio, with ``<corpus>_train``, ``_validation``; ``_test`` for the paper's protocol.
        out: folder of the experiment.
        tags: folder of tag vectors (stage 4); needed by every system but the baseline.
        corpus: name of the scene corpus.
        systems: names of systems or tables, separated by spaces, or all; NAME@CONTROL alters the tags, @CONTROL alone
            those of the tag system that is best on validation.
        seeds: separated by spaces.
        systems_file: the records of the systems.
        trunk: shape of the network.
        training: how it is trained.
        protocol: ours keeps the epoch that is best on validation; both also scores every epoch on test, as the paper
            did; paper does that with a training on all training clips; final trains on all training clips, for as many
            epochs as select_from's run kept.
        select_from: for paper and final, the experiment whose validation chose.
        code_segment: what the paper's protocol takes codes from: whole clips, or parts as the released code took them.
        nj: processes that score epochs beside the training.
        audio_cache: where the audio lies: auto, gpu, pinned (page-locked memory), or disk (memory-mapped).
        device: auto, cpu, cuda, or cuda:N.
        compile: let torch.compile make the network, and record steps as a CUDA graph; auto: on a GPU.
        deterministic: repeat bit for bit on a GPU too; slower.
        force: start over even where there is a result.
    """
    if nj < 1:
        raise UserError(f"--nj {nj} must be at least 1")
    chosen = select(read_systems(systems_file), systems.split(), systems_file, select_from or out)
    pending = runs(out, list(chosen), seeds)
    where = choose_device(device, deterministic)
    scenes = SceneCorpus(audio, corpus, tags, where, audio_cache)
    compile_it = should_compile(compile, where)
    scenes.files(("train", "validation"), any(variant.system.uses_tags for variant in chosen.values()))
    log.info("runs: %d, device: %s, threads: %d", len(pending), where, torch.get_num_threads())
    logs = log_folder(out, "scene")
    if force:  # all of them now, so that a sweep that was cut goes on without --force
        clear_once([run.network for run in pending], logs)
    scores = protocol in ("both", "paper")
    with EpochScorer(nj if scores else 0) as scorer:

        def work(number: int) -> bool:
            run, variant = pending[number], chosen[pending[number].system]
            epochs = _epochs(training, protocol, select_from, run)
            config = {"system": variant.system, "control": variant.control, "seed": run.seed, "epochs": epochs}
            config |= {"trunk": trunk, "training": training, "trained_on": TRAINED_ON[protocol]}
            files = scenes.files(("train", "validation"), variant.system.uses_tags)
            to_train = check_result_folder(run.network, provenance.record("train_scene", config, files), force=False)
            scored = _scored(scenes, protocol, code_segment, variant.system.uses_tags) if scores else {}
            with scorer.score(run.network, epochs, scored) as score:
                if to_train:
                    task, codes = _task(scenes, variant, trunk, training, protocol, run.seed, compile_it, code_segment)
                    log.info("%s: %d parameters", run.title, parameters(task.network))
                    fit(task, run.network, epochs, task.metadata(), lambda epoch: score(epoch, codes))
            return to_train

        sweep([run.name for run in pending], work, logs)


def _epochs(training: SceneTraining, protocol: Protocol, select_from: Path | None, run: RunPaths) -> int:
    if protocol != "final":
        return training.epochs
    if select_from is None:
        raise UserError("--protocol final needs --select-from, the experiment whose validation chose the epochs")
    history = read_json(RunPaths(select_from, run.system, run.seed).history, "stage 5 (scenes)")
    return history["best_epoch"]


def _scored(scenes: SceneCorpus, protocol: Protocol, code_segment: CodeSegment, uses_tags: bool) -> dict[str, Any]:
    """What the figure by the paper's protocol depends on, beside the network."""
    config = {"trained_on": TRAINED_ON[protocol], "code_segment": code_segment, "C": COST}
    splits = [*TRAINED_ON[protocol].split("+"), *_tests(scenes)]
    return provenance.record("score_epochs", config, scenes.files(splits, uses_tags))


def _tests(scenes: SceneCorpus) -> list[str]:
    return [split for split in ("test", "unused") if split in scenes.splits]


def _task(
    scenes: SceneCorpus,
    variant: SystemVariant,
    trunk: TrunkConfig,
    training: SceneTraining,
    protocol: Protocol,
    seed: int,
    compiled: bool,
    code_segment: CodeSegment,
) -> tuple[SceneTrainer, Callable[[], dict[str, LabelledCodes]]]:
    """A run ready to train, and a function that computes the codes that the paper's protocol scores."""
    tagging = TagOptions(variant.control, training.tag_scale, seed) if variant.system.uses_tags else None
    train = scenes.clips(TRAINED_ON[protocol].split("+"), tagging)
    validation = scenes.clips(["validation"], tagging) if TRAINED_ON[protocol] == "train" else None
    task = SceneTrainer(training, trunk, variant.system, train, validation, seed, compiled)

    def codes() -> dict[str, LabelledCodes]:
        scored = {"train": train} | {split: scenes.clips([split], tagging) for split in _tests(scenes)}
        return {split: _labelled(task, clips, split == "train", code_segment) for split, clips in scored.items()}

    return task, codes


def _labelled(task: SceneTrainer, clips: SceneClips, training: bool, code_segment: CodeSegment) -> LabelledCodes:
    """Codes by the network as it is now, with the true scenes."""
    taken = None
    if code_segment == "released":
        taken = released_windows(clips, training, task.config.crop_seconds, task.seed)
    codes, _ = codes_and_logits(task.network, clips, taken)
    return LabelledCodes(codes, (clips.scenes if taken is None else clips.scenes[taken.clips]).numpy())


if __name__ == "__main__":
    cli.run(main)
