#!/usr/bin/env python3
"""Stage 6: run trained scene networks over whole clips and keep their codes."""

from pathlib import Path

import numpy as np
import torch

from tagasc import command, provenance
from tagasc.audio import AudioStore, PackedAudio
from tagasc.backend import Codes
from tagasc.console import log, progress
from tagasc.errors import UserError
from tagasc.models.scene import SceneNetwork
from tagasc.scene import SceneClips, load_network, outputs
from tagasc.systems import read_systems, runs, select
from tagasc.tags import TagVectors, read_record
from tagasc.training import WEIGHTS, choose_device


def main(
    audio: Path,
    out: Path,
    tags: Path | None = None,
    corpus: str = "tau2019",
    systems: str = "all",
    seeds: str = "1",
    systems_file: Path = Path("egs/systems.yaml"),
    batch: int = 32,
    device: str = "auto",
    force: bool = False,
) -> None:
    """Write ``<out>/codes/<system>/seed<k>/<split>.npz`` for every packed split.

    Args:
        audio: folder of packed audio (stage 2).
        out: folder of the experiment, with the trained networks (stage 5).
        tags: folder of tag vectors (stage 4); needed by every system but the baseline.
        corpus: name of the scene corpus.
        systems: names of systems or tables, separated by spaces, or all.
        seeds: separated by spaces.
        systems_file: the records of the systems.
        batch: clips at a time.
        device: auto, cpu, cuda, or cuda:N.
        force: extract again even what is there.
    """
    chosen = select(read_systems(systems_file), systems.split(), systems_file)
    where = choose_device(device)
    folders = sorted(audio.glob(f"{corpus}_*/"))
    if not folders:
        raise UserError(f"{audio} holds no packed {corpus}; run stage 2 (pack)")
    stores: dict[Path, AudioStore] = {}
    for name, seed, target in runs(out, "codes", list(chosen), seeds):
        if chosen[name].uses_tags and tags is None:
            raise UserError(f"{name} uses tags; give --tags")
        weights = out / "scene" / name / f"seed{seed}" / WEIGHTS
        network, about = load_network(weights)
        network, written = network.to(where), 0
        for folder in folders:
            vectors = tags / f"{folder.name}.npz" if chosen[name].uses_tags else None
            path = target / f"{folder.name.removeprefix(f'{corpus}_')}.npz"
            record = _record(weights, folder, vectors)
            if not force and _is_current(path, record, f"{name} seed {seed}"):
                continue
            if folder not in stores:
                stores[folder] = AudioStore(PackedAudio(folder), where)
            clips = SceneClips(stores[folder], TagVectors.read(vectors) if vectors else None, about["scenes"])
            _extract(network, about, clips, batch).write(path, record)
            written += 1
        log.info("%s seed %d: %s", name, seed, f"codes of {written} splits" if written else "up to date")


def _record(weights: Path, folder: Path, vectors: Path | None) -> dict:
    """What the codes of one split are made from."""
    inputs = {"network": weights, "audio": folder / "index.json"} | ({"tags": vectors} if vectors else {})
    stages = {"network": "stage 5 (scenes)", "audio": "stage 2 (pack)", "tags": "stage 4 (tags)"}
    for name, path in inputs.items():
        if not path.exists():
            raise UserError(f"{path} does not exist; {stages[name]} makes it")
    return provenance.made_from("extract_codes", {"clips": "whole"}, inputs)


def _is_current(path: Path, record: dict, title: str) -> bool:
    old = read_record(path)
    if old is None:
        return False
    why = provenance.difference(old, record)
    if why is not None:
        log.info("%s %s: outdated (%s), extracting again", title, path.stem, why)
    return why is None


def _extract(network: SceneNetwork, about: dict, clips: SceneClips, batch: int) -> Codes:
    _fits(about, clips)
    steps = -(-len(clips) // batch)
    rows = list(progress(outputs(network, clips, batch), f"codes {clips.packed.folder.name}", total=steps))
    codes, logits = (torch.cat([row[part] for row in rows]).cpu().numpy() for part in (1, 2))
    locations = np.array([clip.location for clip in clips.packed.clips])
    return Codes(np.array(clips.packed.ids), codes, logits, np.array(clips.labels), locations)


def _fits(about: dict, clips: SceneClips) -> None:
    tags = 0 if clips.tags is None else clips.tags.shape[1]
    found = (clips.packed.sampling_rate, clips.packed.channels, tags)
    trained = (about["sampling_rate"], about["channels"], about["tags"])
    if found != trained:
        raise UserError(
            f"{clips.packed.folder} has {found[0]} Hz, {found[1]} channel(s), {found[2]} tags, but the network was"
            f" trained on {trained[0]} Hz, {trained[1]} channel(s), {trained[2]} tags; train it again (stage 5)"
        )


if __name__ == "__main__":
    command.run(main)
