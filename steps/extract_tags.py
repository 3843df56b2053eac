#!/usr/bin/env python3
"""Stage 4: tag every scene clip; if the clips' events are known, score the tags against them."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tagasc.audio.packed import JoinedAudio, PackedAudio, packed_splits, require_index
from tagasc.tagger.lwlrap import lwlrap
from tagasc.tagger.sources import Activation, TagSource, open_source
from tagasc.tagger.tags import TagVectors
from tagasc.utils import cli, provenance
from tagasc.utils.device import Precision, choose_device
from tagasc.utils.errors import UserError
from tagasc.utils.files import read_record, write_json, write_npz
from tagasc.utils.log import log
from tagasc.utils.tables import clean, read_table

_WITHOUT = "leave --event-labels out (in a recipe: --event-labels '')"


def main(
    tags_from: str,
    audio: Path,
    out: Path,
    corpus: str = "tau2019",
    event_labels: Path | None = None,
    activation: Activation = "auto",
    batch: int = 16,
    device: str = "auto",
    precision: Precision = "auto",
    deterministic: bool = False,
    force: bool = False,
) -> None:
    """Write ``<out>/<corpus>_<split>.npz`` with ids, classes and values for every packed split of a scene corpus.

    Args:
        tags_from: folder of a trained tagger (stage 3), an .npz of external tag vectors, or hf:NAME_OR_DIR, an
            audio-classification model of Hugging Face's transformers.
        audio: folder of packed audio (stage 2).
        out: folder for the tag vectors.
        corpus: name of the scene corpus.
        event_labels: tab-separated table of known events with the columns filename and event; a filename without its
            suffix, with or without its folders, is a clip's id.
        activation: output of a transformers model: sigmoid, softmax, or auto (from the model's configuration).
        batch: clips per forward pass.
        device: auto, cpu, cuda, or cuda:N.
        precision: precision of networks: float32 (never TF32), bfloat16, or auto (bfloat16 on a GPU that has it).
        deterministic: reproducible bit for bit on a GPU; slower.
        force: redo finished tag vectors.
    """
    target = choose_device(device, deterministic, precision)
    folders = packed_splits(audio, corpus)
    if not folders:
        raise UserError(f"{audio} has no packed {corpus}; run stage 2 (pack)")
    source = open_source(tags_from, target, batch, activation)
    events = None if event_labels is None else _events(event_labels, source.classes, folders.values())
    scores, hashes = {}, source.input_hashes()
    for split, folder in folders.items():
        path = out / f"{folder.name}.npz"
        _tag(source, hashes, folder, path, force)
        if events is not None:
            score = _score(TagVectors.read(path), events)
            if np.isnan(score):
                log.warning("%s: not scored, its clips have no known event", path.name)
            else:
                scores[split] = score
    if events is None:
        (out / "scores.json").unlink(missing_ok=True)
    else:
        write_json(out / "scores.json", {"lwlrap": scores})
        log.info("lwlrap on scene clips: %s", ", ".join(f"{split} {value:.3f}" for split, value in scores.items()))


def _tag(source: TagSource, hashes: dict[str, str], folder: Path, path: Path, force: bool) -> None:
    """Write the tag vectors of one split, unless they are up to date."""
    record = provenance.record("extract_tags", {"clips": "whole"}, {**hashes, "audio": require_index(folder)})
    if provenance.is_current(path.name, read_record(path), record, force):
        return
    packed = PackedAudio(folder)
    joined = JoinedAudio(packed)  # the same, unless clips are to be tagged together
    values = source.tags(joined)[joined.owners]
    kind = {"kind": np.array("embedding")} if getattr(source, "kind", "probability") == "embedding" else {}
    write_npz(path, record, ids=np.array(packed.ids), classes=np.array(source.classes), values=values, **kind)
    log.info("%s: %d clips, %d tags", path.name, *values.shape)


def _events(table: Path, classes: list[str], folders: Iterable[Path]) -> dict[str, set[int]] | None:
    """Read the class indices of each clip's events, by clip id; None if the tagger has no class for any event.

    Raises:
        UserError: the table is missing or malformed, or has no clip of the corpus.
    """
    index = {clean(name): number for number, name in enumerate(classes)}
    rows = read_table(table, ("filename", "event"), delimiter="\t", remedy=_WITHOUT)
    known = [(Path(row["filename"]).with_suffix(""), index[row["event"]]) for row in rows if row["event"] in index]
    if not known:
        log.warning("%s: tags not scored, it has no event that is a class of the tagger, such as %s", table, classes[0])
        return None
    ids = {clip for folder in folders for clip in PackedAudio(folder).ids}
    heard: dict[str, set[int]] = defaultdict(set)
    for path, event in known:
        clip = str(path) if str(path) in ids else path.name
        if clip in ids:
            heard[clip].add(event)
    if not heard:
        raise UserError(f"{table} has no clip of the corpus, such as {min(ids)}; fix it, or {_WITHOUT}")
    return heard


def _score(tags: TagVectors, heard: dict[str, set[int]]) -> float:
    truth = np.zeros(tags.values.shape)
    for number, clip in enumerate(tags.ids):
        truth[number, list(heard.get(clip, ()))] = 1
    return lwlrap(truth, tags.values)


if __name__ == "__main__":
    cli.run(main)
