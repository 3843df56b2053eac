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
from tagasc.packed import packed_splits
from tagasc.tag_sources import Activation, open_source
from tagasc.tags import TagVectors, read_record, write_npz
from tagasc.training import choose_device


def main(
    tagger: str,
    audio: Path,
    out: Path,
    corpus: str = "tau2019",
    truth: Path | None = None,
    activation: Activation = "auto",
    batch: int = 16,
    device: str = "auto",
    force: bool = False,
) -> None:
    """Write ``<out>/<corpus>_<split>.npz`` with ids, classes and values for every packed split of a scene corpus.

    Args:
        tagger: folder of a trained tagger (stage 3), an .npz of tag vectors made elsewhere, or hf:NAME_OR_DIR, an
            audio-classification model of Hugging Face's transformers.
        audio: folder of packed audio (stage 2).
        out: folder for the tag vectors.
        corpus: name of the scene corpus.
        truth: table of the events that each clip holds (filename, event), tab-separated, where they are known.
        activation: of a model of transformers: sigmoid, softmax, or auto (what its configuration says).
        batch: clips at a time.
        device: auto, cpu, cuda, or cuda:N.
        force: tag again even what is there.
    """
    where = choose_device(device)
    folders = packed_splits(audio, corpus)
    if not folders:
        raise UserError(f"{audio} holds no packed {corpus}; run stage 2 (pack)")
    source = open_source(tagger, where, batch, activation)
    heard = None if truth is None else _events(truth, source.classes)
    scores, made_from = {}, source.made_from()
    for split, folder in folders.items():
        path = out / f"{folder.name}.npz"
        inputs = {**made_from, "audio": folder / "index.json"}
        record = provenance.made_from("extract_tags", {"clips": "whole"}, inputs)
        old = read_record(path)
        why = "forced" if force else provenance.difference(old, record) if old else "new"
        if why is None:
            log.info("%s: up to date", path.name)
        else:
            if old and not force:
                log.info("%s: outdated (%s), tagging again", path.name, why)
            packed = PackedAudio(folder)
            values = source.tags(packed)
            write_npz(path, record, ids=np.array(packed.ids), classes=np.array(source.classes), values=values)
            log.info("%s: %d clips, %d tags", path.name, *values.shape)
        if heard is not None:
            scores[split] = _score(TagVectors.read(path), heard)
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
