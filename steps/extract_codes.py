#!/usr/bin/env python3
"""Stage 6: run trained scene networks over the clips and keep their codes."""

from pathlib import Path

import numpy as np

from tagasc.audio.store import DataOn
from tagasc.backend.codes import Codes
from tagasc.scene.corpus import SceneClips, SceneCorpus, Tagging, Taken, Windows, released_windows
from tagasc.scene.experiment import runs
from tagasc.scene.inference import codes_and_logits
from tagasc.scene.systems import TAGS_ALONE, read_systems, select
from tagasc.scene.training import load_network
from tagasc.training.result import WEIGHTS
from tagasc.utils import cli, provenance
from tagasc.utils.device import Compiled, choose_device, compiles
from tagasc.utils.errors import UserError
from tagasc.utils.files import digest, read_record
from tagasc.utils.log import log
from tagasc.utils.sweep import clear_once, sweep


def main(
    audio: Path,
    out: Path,
    tags: Path | None = None,
    corpus: str = "tau2019",
    systems: str = "all",
    seeds: str = "1",
    systems_file: Path = Path("egs/systems.yaml"),
    windows: Taken = "whole",
    chosen_by: Path | None = None,
    data_on: DataOn = "auto",
    device: str = "auto",
    compiled: Compiled = "auto",
    deterministic: bool = False,
    force: bool = False,
) -> None:
    """Write ``<out>/codes/<system>/seed<k>/<split>.npz`` for every packed split.

    Beside them ``<out>/codes/tags_alone/seed0``, the tag vectors as if they were codes, if a system uses tags.

    Args:
        audio: folder of packed audio (stage 2).
        out: folder of the experiment, with the trained networks (stage 5).
        tags: folder of tag vectors (stage 4); needed by every system but the baseline.
        corpus: name of the scene corpus.
        systems: names of systems or tables, separated by spaces, or all; also NAME@CONTROL and @CONTROL.
        seeds: separated by spaces.
        systems_file: the records of the systems.
        windows: whole clips; or as the released code took them: training codes from one random crop a clip, shuffled,
            the incomplete last batch of 24 left out, and the others from a clip's first 99.9 %.
        chosen_by: the experiment whose best tag system @CONTROL means, if not this one.
        data_on: where the audio lies: auto, gpu, pinned (page-locked memory), or disk (memory-mapped).
        device: auto, cpu, cuda, or cuda:N.
        compiled: let torch.compile make the network; auto: on a GPU.
        deterministic: repeat bit for bit on a GPU too; slower.
        force: extract again even what is there.
    """
    chosen = select(read_systems(systems_file), systems.split(), systems_file, chosen_by or out)
    mine = runs(out, "codes", list(chosen), seeds)
    where = choose_device(device, deterministic)
    scenes = SceneCorpus(audio, corpus, tags, where, data_on)
    compile_it = compiles(compiled, where)
    splits = scenes.splits

    def work(number: int) -> bool:
        name, seed, target = mine[number]
        uses_tags = chosen[name].system.uses_tags
        weights = out / "scene" / name / f"seed{seed}" / WEIGHTS
        network, about = load_network(weights)
        _check_tags(weights.parent, scenes, uses_tags)
        tagging = Tagging(chosen[name].control, about["tag_scale"], seed) if uses_tags else None
        _remove_dropped(target, splits)
        written = 0
        for split in splits:
            config = {"windows": windows, "answers": about["scenes"]}
            files = {"network": weights} | scenes.files([split], uses_tags)
            record = provenance.made_from("extract_codes", config, files)
            if not _is_current(target / f"{split}.npz", record, f"{name} seed {seed}"):
                clips = scenes.clips([split], tagging, about["scenes"])
                _fits(about, clips)
                window = None
                if windows == "released":
                    window = released_windows(clips, split == "train", about["crop_seconds"], seed)
                codes, logits = codes_and_logits(network.to(where), clips, window, compile_it)
                answers = np.array(about["scenes"])[logits.argmax(axis=1)]
                _codes(clips, codes, answers, window).write(target / f"{split}.npz", record)
                written += 1
        log.info("%s seed %d: %s", name, seed, f"codes of {written} splits" if written else "up to date")
        return written > 0

    logs = out / "log" / "codes"
    if force:
        clear_once([folder for _, _, folder in mine], logs)
    if any(variant.system.uses_tags for variant in chosen.values()):
        _tags_alone(out / "codes" / TAGS_ALONE / "seed0", scenes, splits)
    sweep([f"{name}.seed{seed}" for name, seed, _ in mine], work, logs)


def _check_tags(folder: Path, scenes: SceneCorpus, uses_tags: bool) -> None:
    """A network must be given tags of the tagger that it was trained with."""
    trained = (provenance.read(folder) or {}).get("inputs", {}).get("tags train")
    if uses_tags and trained != digest(scenes.files(["train"], with_tags=True)["tags train"]):
        raise UserError(f"{folder} was trained on other tags than {scenes.tag_file('train')}; train it again (stage 5)")


def _is_current(path: Path, record: dict, title: str) -> bool:
    old = read_record(path)
    if old is None:
        return False
    why = provenance.difference(old, record)
    if why is not None:
        log.info("%s %s: outdated (%s), extracting again", title, path.stem, why)
    return why is None


def _codes(clips: SceneClips, codes: np.ndarray, answers: np.ndarray, window: Windows | None = None) -> Codes:
    which = range(len(clips)) if window is None else window.clips.tolist()
    ids, locations = ([getattr(clips.clips[n], what) for n in which] for what in ("id", "location"))
    return Codes(np.array(ids), codes, answers, np.array([clips.labels[n] for n in which]), np.array(locations))


def _remove_dropped(folder: Path, splits: list[str]) -> None:
    """Remove codes of splits that are no longer packed: stage 7 takes all that lie in the folder."""
    for path in folder.glob("[!.]*.npz"):
        if path.stem not in splits:
            log.info("%s: removed, since its split is no longer packed", path)
            path.unlink(missing_ok=True)  # processes that share the runs do this at once


def _tags_alone(folder: Path, scenes: SceneCorpus, splits: list[str]) -> None:
    _remove_dropped(folder, splits)
    for split in splits:
        config = {"system": TAGS_ALONE, "answers": []}
        record = provenance.made_from("extract_codes", config, scenes.files([split], with_tags=True))
        if not _is_current(folder / f"{split}.npz", record, TAGS_ALONE):
            clips = scenes.clips([split], Tagging())
            codes = _codes(clips, clips.tags.cpu().numpy(), np.full(len(clips), ""))
            codes.write(folder / f"{split}.npz", record)


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
    cli.run(main)
