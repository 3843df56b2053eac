#!/usr/bin/env python3
"""Stage 4: tag every scene clip; where the events of the clips are known, score the tags against them."""

import csv
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tagasc.audio.packed import PackedAudio, packed_splits
from tagasc.tagger.lwlrap import lwlrap
from tagasc.tagger.sources import Activation, TagSource, open_source
from tagasc.tagger.tags import TagVectors
from tagasc.utils import cli, provenance
from tagasc.utils.device import choose_device
from tagasc.utils.errors import UserError
from tagasc.utils.files import read_record, write_json, write_npz
from tagasc.utils.log import log

_WITHOUT = "mend it, or leave --event-labels out (of a recipe: --event-labels '')"


def main(
    tagger: str,
    audio: Path,
    out: Path,
    corpus: str = "tau2019",
    event_labels: Path | None = None,
    activation: Activation = "auto",
    batch: int = 16,
    device: str = "auto",
    deterministic: bool = False,
    force: bool = False,
) -> None:
    """Write ``<out>/<corpus>_<split>.npz`` with ids, classes and values for every packed split of a scene corpus.

    Args:
        tagger: folder of a trained tagger (stage 3), an .npz of tag vectors made elsewhere, or hf:NAME_OR_DIR, an
            audio-classification model of Hugging Face's transformers.
        audio: folder of packed audio (stage 2).
        out: folder for the tag vectors.
        corpus: name of the scene corpus.
        event_labels: table of the events that each clip holds (filename, event), tab-separated, where they are known; a
            filename without its suffix, or without its folders either, is a clip's id.
        activation: of a model of transformers: sigmoid, softmax, or auto (what its configuration says).
        batch: clips at a time.
        device: auto, cpu, cuda, or cuda:N.
        deterministic: repeat bit for bit on a GPU too; slower.
        force: tag again even what is there.
    """
    where = choose_device(device, deterministic)
    folders = packed_splits(audio, corpus)
    if not folders:
        raise UserError(f"{audio} holds no packed {corpus}; run stage 2 (pack)")
    source = open_source(tagger, where, batch, activation)
    heard = None if event_labels is None else _events(event_labels, source.classes, folders.values())
    scores, hashes = {}, source.input_hashes()
    for split, folder in folders.items():
        path = out / f"{folder.name}.npz"
        _tag(source, hashes, folder, path, force)
        if heard is not None:
            score = _score(TagVectors.read(path), heard)
            if np.isnan(score):
                log.warning("%s: no event of its clips is known, so it is not scored", path.name)
            else:
                scores[split] = score
    if heard is None:
        (out / "scores.json").unlink(missing_ok=True)
    else:
        write_json(out / "scores.json", {"lwlrap": scores})
        log.info("lwlrap on scene clips: %s", ", ".join(f"{split} {value:.3f}" for split, value in scores.items()))


def _tag(source: TagSource, hashes: dict[str, str], folder: Path, path: Path, force: bool) -> None:
    """Write the tag vectors of one split, unless they are there."""
    record = provenance.record("extract_tags", {"clips": "whole"}, {**hashes, "audio": folder / "index.json"})
    if provenance.is_current(path.name, read_record(path), record, force):
        return
    packed = PackedAudio(folder)
    values = source.tags(packed)
    write_npz(path, record, ids=np.array(packed.ids), classes=np.array(source.classes), values=values)
    log.info("%s: %d clips, %d tags", path.name, *values.shape)


def _events(table: Path, classes: list[str], folders: Iterable[Path]) -> dict[str, set[int]] | None:
    """Positions of the classes heard in each clip, by clip id; None where the tagger knows none of the events.

    Raises:
        UserError: no such table, or it names no clip that is known here.
    """
    place = {name: number for number, name in enumerate(classes)}
    try:
        with table.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, delimiter="\t")
            rows = [(Path(row["filename"]).with_suffix(""), row["event"]) for row in reader]
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{table} is not a table with the columns filename and event, separated by tabs; {_WITHOUT}"
        ) from None
    known = [(path, place[event]) for path, event in rows if event in place]
    if not known:
        log.warning("%s names no event that the tagger knows, such as %s: its tags are not scored", table, classes[0])
        return None
    ids = {clip for folder in folders for clip in PackedAudio(folder).ids}
    heard: dict[str, set[int]] = defaultdict(set)
    for path, event in known:
        clip = str(path) if str(path) in ids else path.name
        if clip in ids:
            heard[clip].add(event)
    if not heard:
        raise UserError(f"{table} names no clip of the corpus, such as {min(ids)}, with an event; {_WITHOUT}")
    return heard


def _score(tags: TagVectors, heard: dict[str, set[int]]) -> float:
    truth = np.zeros(tags.values.shape)
    for number, clip in enumerate(tags.ids):
        truth[number, list(heard.get(clip, ()))] = 1
    return lwlrap(truth, tags.values)


if __name__ == "__main__":
    cli.run(main)
