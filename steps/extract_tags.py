#!/usr/bin/env python3
"""Stage 4: tag every scene clip; where the events of the clips are known, score the tags against them."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from tagasc import command, provenance
from tagasc.audio import PackedAudio
from tagasc.console import log
from tagasc.errors import UserError
from tagasc.files import write_json
from tagasc.metrics import lwlrap
from tagasc.tagger import load_tagger, tag_scenes
from tagasc.tags import TagVectors, read_record, write_npz
from tagasc.training import WEIGHTS, choose_device


def main(
    tagger: Path,
    audio: Path,
    out: Path,
    corpus: str = "tau2019",
    truth: Path | None = None,
    batch: int = 16,
    device: str = "auto",
    force: bool = False,
) -> None:
    """Write ``<out>/<corpus>_<split>.npz`` with ids, classes and values for every packed split of a scene corpus.

    Args:
        tagger: folder of a trained tagger (stage 3).
        audio: folder of packed audio (stage 2).
        out: folder for the tag vectors.
        corpus: name of the scene corpus.
        truth: table of the events that each clip holds (filename, event), tab-separated, where they are known.
        batch: clips at a time.
        device: auto, cpu, cuda, or cuda:N.
        force: tag again even what is there.
    """
    where = choose_device(device)
    network, mel, classes = load_tagger(tagger / WEIGHTS)
    folders = sorted(audio.glob(f"{corpus}_*/"))
    if not folders:
        raise UserError(f"{audio} holds no packed {corpus}; run stage 2 (pack)")
    heard = None if truth is None else _events(truth, classes)
    scores = {}
    for folder in folders:
        path = out / f"{folder.name}.npz"
        inputs = {"tagger": tagger / WEIGHTS, "audio": folder / "index.json"}
        record = provenance.made_from("extract_tags", {"pads": "multiple of 32 frames"}, inputs)
        old = read_record(path)
        why = "forced" if force else provenance.difference(old, record) if old else "new"
        if why is None:
            log.info("%s: up to date", path.name)
        else:
            if old and not force:
                log.info("%s: outdated (%s), tagging again", path.name, why)
            packed = PackedAudio(folder)
            values = tag_scenes(network, mel, packed, where, batch)
            write_npz(path, record, ids=np.array(packed.ids), classes=np.array(classes), values=values)
            log.info("%s: %d clips, %d tags", path.name, *values.shape)
        if heard is not None:
            scores[folder.name.removeprefix(f"{corpus}_")] = _score(TagVectors.read(path), heard)
    if heard is None:
        (out / "scores.json").unlink(missing_ok=True)
    else:
        write_json(out / "scores.json", {"lwlrap": scores})
        log.info("lwlrap on scene clips: %s", ", ".join(f"{split} {value:.3f}" for split, value in scores.items()))


def _events(table: Path, classes: list[str]) -> dict[str, set[int]]:
    """Positions of the classes heard in each clip, by clip id."""
    place = {name: number for number, name in enumerate(classes)}
    heard: dict[str, set[int]] = defaultdict(set)
    try:
        with table.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                if row["event"] in place:
                    heard[Path(row["filename"]).stem].add(place[row["event"]])
    except (FileNotFoundError, KeyError, TypeError, UnicodeDecodeError):
        raise UserError(
            f"{table} is not a table with the columns filename and event, separated by tabs; leave --truth out"
        ) from None
    return heard


def _score(tags: TagVectors, heard: dict[str, set[int]]) -> float:
    truth = np.zeros(tags.values.shape)
    for number, clip in enumerate(tags.ids):
        truth[number, list(heard.get(clip, ()))] = 1
    return lwlrap(truth, tags.values)


if __name__ == "__main__":
    command.run(main)
