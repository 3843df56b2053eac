#!/usr/bin/env python3
"""Stage 4: tag every scene clip; if the clips' events are known, score the tags against them.

Clips are tagged in parts. Those that are finished when the program ends early are kept, and it resumes after them.
"""

import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tagasc.audio.packed import AudioPart, JoinedAudio, PackedAudio, packed_splits, require_index
from tagasc.sources.source import SourceOptions, TagSource, open_source
from tagasc.tagger.lwlrap import lwlrap
from tagasc.tagger.tags import TagVectors
from tagasc.utils import cli, provenance
from tagasc.utils.device import Precision, choose_device
from tagasc.utils.errors import UserError
from tagasc.utils.files import parse_json, read_npz, read_record, write_json, write_npz
from tagasc.utils.log import log
from tagasc.utils.tables import clean, read_table

_WITHOUT = "leave --event-labels out (in a recipe: --event-labels '')"
RECORD = "source.json"
PART = 512  # clips that are tagged and kept together


@dataclass(frozen=True, kw_only=True)
class Options(SourceOptions):
    """Write ``<out>/<corpus>_<split>.npz`` with ids, classes and values for every packed split of a scene corpus.

    Args:
        tags_from: folder of a trained tagger (stage 3), an .npz of external tag vectors, or a tagger from elsewhere:
            hf:NAME_OR_DIR, onnx:FILE_OR_DIR, py:FILE.py[:CLASS] or clap:NAME_OR_DIR (docs/taggers.md).
        audio: folder of packed audio (stage 2).
        out: folder for the tag vectors.
        corpus: name of the scene corpus.
        event_labels: tab-separated table of known events with the columns filename and event; a filename without its
            suffix, with or without its folders, is a clip's id.
        device: auto, cpu, cuda, or cuda:N.
        precision: precision of networks: float32 (never TF32), bfloat16, or auto (bfloat16 on a GPU that has it).
        deterministic: reproducible bit for bit on a GPU; slower.
        force: redo finished tag vectors.
    """

    tags_from: str
    audio: Path
    out: Path
    corpus: str = "tau2019"
    event_labels: Path | None = None
    device: str = "auto"
    precision: Precision = "auto"
    deterministic: bool = False
    force: bool = False


def main(options: Options) -> None:
    """Tag every split, and score the tags."""
    device = choose_device(options.device, options.deterministic, options.precision)
    folders = packed_splits(options.audio, options.corpus)
    if not folders:
        raise UserError(f"{options.audio} has no packed {options.corpus}; run stage 2 (pack)")
    source = open_source(options.tags_from, device, options)
    known = None if options.event_labels is None else _events(options.event_labels, source, folders.values())
    Extraction(source, options.out, options.force).tag_all(list(folders.values()))
    _write_scores(options.out, {split: options.out / f"{folder.name}.npz" for split, folder in folders.items()}, known)


@dataclass
class Extraction:
    """The tags of all splits, written to a folder with a description of their source.

    Attributes:
        source: the tag source.
        out: folder of the tag vectors.
        force: redo finished tag vectors.
        measured: clips, seconds of their audio, and seconds that it took to tag them, of this run.
    """

    source: TagSource
    out: Path
    force: bool
    measured: dict[str, float] = field(default_factory=lambda: {"clips": 0, "audio_seconds": 0.0, "seconds": 0.0})

    def tag_all(self, folders: list[Path]) -> None:
        """Tag the clips of packed folders; describe the source before, and how fast it was after."""
        hashes, lengths = self.source.input_hashes(), Counter()
        for folder in folders:
            lengths.update(self.source.lengths(JoinedAudio(PackedAudio(folder))))
        described = {**self.source.record(), "lengths": dict(sorted(lengths.items()))}
        kind = {"kind": np.array("embedding")} if described["take"] == "embedding" else {}
        earlier = _read_record(self.out / RECORD)
        kept = {name: earlier[name] for name in self.measured if name in earlier}
        if {name: value for name, value in earlier.items() if name not in self.measured} != described:
            kept = {}
        write_json(self.out / RECORD, described | kept)
        for folder in folders:
            self._tag(folder, hashes, kind)
        if self.measured["clips"]:
            write_json(self.out / RECORD, described | self.measured)

    def _tag(self, folder: Path, hashes: dict[str, str], kind: dict[str, np.ndarray]) -> None:
        """Write the tag vectors of one split, unless they are up to date."""
        path = self.out / f"{folder.name}.npz"
        inputs = {**hashes, "audio": require_index(folder)}
        record = provenance.record("extract_tags", {"clips": "whole", **self.source.settings()}, inputs)
        if provenance.is_current(path.name, read_record(path), record, self.force):
            return
        packed = PackedAudio(folder)
        joined = JoinedAudio(packed)  # the same, unless clips are to be tagged together
        parts = self.out / f"{folder.name}.parts"
        values = self._values(joined, parts, record)[joined.owners]
        classes = np.array(self.source.classes)
        write_npz(path, record, ids=np.array(packed.ids), classes=classes, values=values, **kind)
        shutil.rmtree(parts, ignore_errors=True)
        log.info("%s: %d clips, %d tags", path.name, *values.shape)

    def _values(self, packed: PackedAudio, folder: Path, record: dict[str, Any]) -> np.ndarray:
        """Return the values of all clips; those of each part are kept in ``folder`` until all are there."""
        if self.force:
            shutil.rmtree(folder, ignore_errors=True)
        values = []
        for first in range(0, len(packed), PART):
            last, path = min(first + PART, len(packed)), folder / f"{first}.npz"
            old = read_record(path)
            if old is not None and provenance.difference(old, record) is None:
                values.append(read_npz(path, ("values",), "stage 4 (tags)")["values"])
                continue
            values.append(self._timed(AudioPart(packed, first, last)))
            if len(packed) > PART:
                write_npz(path, record, values=values[-1])
                log.info("%s: %d of %d clips", folder.stem, last, len(packed))
        return np.concatenate(values)

    def _timed(self, packed: PackedAudio) -> np.ndarray:
        began = time.monotonic()
        values = self.source.tags(packed)
        self.measured["seconds"] = round(self.measured["seconds"] + time.monotonic() - began, 3)
        self.measured["clips"] += len(packed)
        self.measured["audio_seconds"] += int(packed.lengths.sum()) / packed.sampling_rate
        return values


def _read_record(path: Path) -> dict[str, Any]:
    """Read an earlier description; empty if it is missing or damaged."""
    try:
        record = parse_json(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _write_scores(out: Path, paths: dict[str, Path], events: dict[str, set[int]] | None) -> None:
    """Score the tag vectors of each split, if there are known events, else remove earlier scores."""
    if events is None:
        (out / "scores.json").unlink(missing_ok=True)
        return
    scores = {}
    for split, path in paths.items():
        score = _score(TagVectors.read(path), events)
        if np.isnan(score):
            log.warning("%s: not scored, its clips have no known event", path.name)
        else:
            scores[split] = score
    write_json(out / "scores.json", {"lwlrap": scores})
    log.info("lwlrap on scene clips: %s", ", ".join(f"{split} {value:.3f}" for split, value in scores.items()))


def _events(table: Path, source: TagSource, folders: Iterable[Path]) -> dict[str, set[int]] | None:
    """Read the class indices of each clip's events, by clip id; None if the tagger has no class for any event.

    Raises:
        UserError: the table is missing or malformed, or has no clip of the corpus.
    """
    index = {clean(name): number for number, name in enumerate(source.classes)}
    rows = read_table(table, ("filename", "event"), delimiter="\t", remedy=_WITHOUT)
    known = [(Path(row["filename"]).with_suffix(""), index[row["event"]]) for row in rows if row["event"] in index]
    if not known:
        log.warning(
            "%s: tags not scored, it has no event that is a class of the tagger, such as %s", table, source.classes[0]
        )
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
