#!/usr/bin/env python3
"""Stage 6: compute the codes of all clips with the trained scene networks (section 2.1)."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tagasc.audio.store import AudioCache
from tagasc.backend.codes import Codes
from tagasc.scene.corpus import CodeSegment, CodeWindows, SceneClips, SceneCorpus, TagOptions, released_windows
from tagasc.scene.experiment import RunPaths, log_folder, runs
from tagasc.scene.inference import codes_and_logits
from tagasc.scene.network import SceneNetwork
from tagasc.scene.systems import TAGS_ONLY, SystemVariant, read_systems, select
from tagasc.scene.training import load_scene_network
from tagasc.training.ladder import Ladder, Rung
from tagasc.training.result import read_training_record, require_history
from tagasc.utils import cli, provenance
from tagasc.utils.device import Compile, Precision, choose_device, precision_on
from tagasc.utils.errors import UserError
from tagasc.utils.files import digest, read_record
from tagasc.utils.log import log
from tagasc.utils.sweep import clear_once, sweep


@dataclass(frozen=True)
class Options:
    """Write ``<out>/codes/<system>/seed<k>/<split>.npz`` for every packed split.

    If a system uses tags, the tag vectors are written as codes too, into ``<out>/codes/tags_only/seed0``.

    Args:
        audio: folder of packed audio (stage 2).
        out: folder of the experiment, with the trained networks (stage 5).
        tags: folder of tag vectors (stage 4); needed by every system but the baseline.
        corpus: name of the scene corpus.
        systems: names of systems or tables, separated by spaces, or all; also NAME@CONTROL and @CONTROL.
        seeds: random seeds of the networks, separated by spaces.
        systems_file: file of the systems.
        code_segment: whole clips, or as in the released code: training codes from one random crop per clip, shuffled,
            without the incomplete last batch of 24; other codes from the first 99.9 % of a clip.
        select_from: experiment whose best tag system @CONTROL refers to, if not this one.
        audio_cache: where the audio is kept: auto, gpu, pinned (memory), or disk (memory-mapped).
        device: auto, cpu, cuda, or cuda:N.
        precision: precision of networks: float32 (never TF32), bfloat16, or auto (bfloat16 on a GPU that has it).
        compile: use torch.compile: auto (on a GPU), always, or never.
        deterministic: make results on a GPU reproducible bit for bit; slower.
        force: compute existing codes again.
    """

    audio: Path
    out: Path
    tags: Path | None = None
    corpus: str = "tau2019"
    systems: str = "all"
    seeds: str = "1"
    systems_file: Path = Path("egs/systems.yaml")
    code_segment: CodeSegment = "whole"
    select_from: Path | None = None
    audio_cache: AudioCache = "auto"
    device: str = "auto"
    precision: Precision = "auto"
    compile: Compile = "auto"
    deterministic: bool = False
    force: bool = False


def main(options: Options) -> None:
    """Extract the codes of every run of the sweep; see ``Options``."""
    tables, experiment = read_systems(options.systems_file), options.select_from or options.out
    variants = select(tables, options.systems.split(), options.systems_file, experiment)
    pending = runs(options.out, list(variants), options.seeds)
    device = choose_device(options.device, options.deterministic, options.precision)
    corpus = SceneCorpus(options.audio, options.corpus, options.tags, device, options.audio_cache)
    ladder = Ladder(options.compile, device, corpus.leave_gpu)
    log.info("runs: %d, splits: %s, device: %s", len(pending), " ".join(corpus.splits), device)
    logs = log_folder(options.out, "codes")
    if options.force:
        clear_once([run.codes for run in pending], logs, ["*.npz"])
    if any(variant.system.uses_tags for variant in variants.values()):
        _write_tags_only(RunPaths(options.out, TAGS_ONLY, 0), corpus)

    def extract(index: int) -> bool:
        run = pending[index]
        return _extract(run, variants[run.system], corpus, options.code_segment, device, ladder)

    sweep([run.name for run in pending], extract, logs)


def _extract(
    run: RunPaths,
    variant: SystemVariant,
    corpus: SceneCorpus,
    code_segment: CodeSegment,
    device: torch.device,
    ladder: Ladder,
) -> bool:
    """Write the codes of every split whose codes are missing or outdated; return False if there was none."""
    uses_tags = variant.system.uses_tags
    network, metadata = load_scene_network(run.weights)
    _check_tags(run.network, corpus, uses_tags)
    tag_options = TagOptions(variant.control, metadata["tag_scale"], run.seed) if uses_tags else None
    _remove_dropped(run.codes, corpus.splits)
    written = 0
    for split in corpus.splits:
        config = {"code_segment": code_segment, "softmax_predictions": metadata["scenes"]}
        config["precision"] = precision_on(device)
        files = {"network": run.weights} | corpus.files([split], uses_tags)
        record = provenance.record("extract_codes", config, files)
        path = run.codes_of(split)
        if provenance.is_current(f"{run.title} {split}", read_record(path), record, level=logging.DEBUG):
            continue
        clips = corpus.clips([split], tag_options, metadata["scenes"])
        _check_shapes(metadata, clips)
        windows = None
        if code_segment == "released":
            epoch = require_history(run.network, "stage 5 (scenes)")["best_epoch"]
            windows = released_windows(clips, split == "train", metadata["crop_seconds"], run.seed, epoch)
        codes, logits = ladder.run(_compute, network.to(device), clips, windows)
        softmax_predictions = np.array(metadata["scenes"])[logits.argmax(axis=1)]
        _codes(clips, codes, softmax_predictions, windows).write(path, record)
        written += 1
    log.info("%s: %s", run.title, f"codes of {written} splits" if written else "up to date")
    return written > 0


def _compute(
    rung: Rung, network: SceneNetwork, clips: SceneClips, windows: CodeWindows | None
) -> tuple[np.ndarray, np.ndarray]:
    network.compiled = rung != "plain"
    return codes_and_logits(network, clips, windows)


def _check_tags(folder: Path, corpus: SceneCorpus, uses_tags: bool) -> None:
    """Check that the tags are those that the network was trained with."""
    trained = (read_training_record(folder) or {}).get("inputs", {}).get("tags train")
    if uses_tags and trained != digest(corpus.files(["train"], with_tags=True)["tags train"]):
        raise UserError(f"{folder} was trained on other tags than {corpus.tag_file('train')}; train it again (stage 5)")


def _codes(
    clips: SceneClips, codes: np.ndarray, softmax_predictions: np.ndarray, windows: CodeWindows | None = None
) -> Codes:
    indices = range(len(clips)) if windows is None else windows.clip_indices.tolist()
    ids, locations = (np.array([getattr(clips.clips[n], name) for n in indices]) for name in ("id", "location"))
    return Codes(ids, codes, softmax_predictions, np.array([clips.labels[n] for n in indices]), locations)


def _remove_dropped(folder: Path, splits: list[str]) -> None:
    """Remove codes of splits that are no longer packed, because stage 7 reads every file of the folder."""
    for path in folder.glob("[!.]*.npz"):
        if path.stem not in splits:
            log.info("%s: removed, because its split is no longer packed", path)
            path.unlink(missing_ok=True)  # another process may remove it at the same time


def _write_tags_only(run: RunPaths, corpus: SceneCorpus) -> None:
    _remove_dropped(run.codes, corpus.splits)
    for split in corpus.splits:
        config = {"system": TAGS_ONLY, "softmax_predictions": []}
        record = provenance.record("extract_codes", config, corpus.files([split], with_tags=True))
        path = run.codes_of(split)
        if not provenance.is_current(f"{TAGS_ONLY} {split}", read_record(path), record, level=logging.DEBUG):
            clips = corpus.clips([split], TagOptions())
            codes = _codes(clips, clips.tags.cpu().numpy(), np.full(len(clips), ""))
            codes.write(path, record)


def _check_shapes(metadata: dict, clips: SceneClips) -> None:
    tags = 0 if clips.tags is None else clips.tags.shape[1]
    given = (clips.packed.sampling_rate, clips.packed.channels, tags)
    trained = (metadata["sampling_rate"], metadata["channels"], metadata["tags"])
    if given != trained:
        raise UserError(
            f"{clips.packed.folder} has {given[0]} Hz, {given[1]} channel(s), {given[2]} tags, but the network was"
            f" trained on {trained[0]} Hz, {trained[1]} channel(s), {trained[2]} tags; train it again (stage 5)"
        )


if __name__ == "__main__":
    cli.run(main)
