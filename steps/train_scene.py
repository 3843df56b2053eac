#!/usr/bin/env python3
"""Stage 5: train scene networks, one for each system and seed."""

import shutil
from pathlib import Path

import torch

from tagasc import command, provenance
from tagasc.audio import AudioStore, PackedAudio
from tagasc.console import log
from tagasc.errors import UserError
from tagasc.models.fusion import System
from tagasc.models.trunk import TrunkConfig
from tagasc.scene import SceneClips, SceneTask, SceneTraining
from tagasc.systems import read_systems, runs, select
from tagasc.tags import TagVectors
from tagasc.training import choose_device, fit, parameters, prepare

SPLITS = ("train", "validation")


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
    shard: str = "0/1",
    device: str = "auto",
    deterministic: bool = False,
    force: bool = False,
) -> None:
    """Train scene networks into ``<out>/scene/<system>/seed<k>``.

    Args:
        audio: folder of packed audio, with ``<corpus>_train`` and ``_validation``.
        out: folder of the experiment.
        tags: folder of tag vectors (stage 4); needed by every system but the baseline.
        corpus: name of the scene corpus.
        systems: names of systems or tables, separated by spaces, or all.
        seeds: separated by spaces.
        systems_file: the records of the systems.
        trunk: shape of the network.
        training: how it is trained.
        shard: "k/n" trains every n-th run, from the k-th on, for n processes that share the list.
        device: auto, cpu, cuda, or cuda:N.
        deterministic: repeat bit for bit on a GPU too; slower.
        force: start over even where there is a result.
    """
    chosen = select(read_systems(systems_file), systems.split(), systems_file)
    part, parts = _shard(shard)
    mine = runs(out, "scene", list(chosen), seeds)[part::parts]
    where = choose_device(device, deterministic)
    log.info("%d runs, device %s, %d threads", len(mine), where, torch.get_num_threads())
    records = [_record(chosen[name], trunk, training, seed, audio, tags, corpus) for name, seed, _ in mine]
    if force:  # all of them now, so that a sweep that was cut goes on without --force
        for _, _, folder in mine:
            shutil.rmtree(folder, ignore_errors=True)
    clips: dict[bool, tuple[SceneClips, SceneClips]] = {}
    stores: dict[str, AudioStore] = {}
    for number, ((name, seed, folder), record) in enumerate(zip(mine, records, strict=True), 1):
        system = chosen[name]
        if not prepare(folder, record, force=False):
            continue
        if not stores:
            stores = {split: AudioStore(PackedAudio(audio / f"{corpus}_{split}"), where) for split in SPLITS}
        if system.uses_tags not in clips:
            clips[system.uses_tags] = _clips(stores, tags if system.uses_tags else None, corpus)
        task = SceneTask(training, trunk, system, *clips[system.uses_tags], seed)
        log.info("run %d of %d: %s, seed %d, %d parameters", number, len(mine), name, seed, parameters(task.network))
        fit(task, folder, training.epochs, task.about())


def _record(
    system: System, trunk: TrunkConfig, training: SceneTraining, seed: int, audio: Path, tags: Path | None, corpus: str
) -> dict:
    """What one run is made from: tags count only for a system that uses them."""
    inputs = {f"audio {split}": audio / f"{corpus}_{split}" / "index.json" for split in SPLITS}
    if system.uses_tags:
        if tags is None:
            raise UserError("these systems use tags; give --tags, or take --systems baseline")
        inputs |= {f"tags {split}": tags / f"{corpus}_{split}.npz" for split in SPLITS}
    for name, path in inputs.items():
        if not path.exists():
            stage = "stage 2 (pack)" if name.startswith("audio") else "stage 4 (tags)"
            raise UserError(f"{path} does not exist; {stage} makes it")
    return provenance.made_from(
        "train_scene", {"system": system, "trunk": trunk, "training": training, "seed": seed}, inputs
    )


def _clips(stores: dict[str, AudioStore], tags: Path | None, corpus: str) -> tuple[SceneClips, SceneClips]:
    """Training and validation clips, with tags if there are any."""
    vectors = {split: TagVectors.read(tags / f"{corpus}_{split}.npz") if tags else None for split in SPLITS}
    train = SceneClips(stores["train"], vectors["train"], None)
    return train, SceneClips(stores["validation"], vectors["validation"], train.names)


def _shard(text: str) -> tuple[int, int]:
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise UserError(f"--shard {text!r} must be k/n with k below n, as in 0/4")
    return int(part), int(parts)


if __name__ == "__main__":
    command.run(main)
