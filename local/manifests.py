"""Shared by all corpora: read tables, check clips, split by location, and write validated Lhotse manifests."""

import csv
import hashlib
import os
import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from math import inf
from pathlib import Path
from typing import Any

import soundfile

from tagasc.utils import provenance
from tagasc.utils.errors import UserError
from tagasc.utils.files import atomic_folder
from tagasc.utils.log import log, progress
from tagasc.utils.processes import mapping

KINDS = ("recordings", "supervisions", "cuts")
_SAMPLE = 1 << 16  # bytes
_PER_PART = 512  # clips
OWN = "add them, or remove them from the table"
PARTIAL = "download the missing part, or give --allow-partial to use the rest"


@dataclass(frozen=True)
class ClipEntry:
    """One clip of a corpus: its audio file, labels and further fields.

    Attributes:
        id: clip id, unique in the corpus.
        path: audio file.
        labels: one scene, or tags.
        custom: further fields of the supervision, for instance location or usage.
    """

    id: str
    path: Path
    labels: tuple[str, ...]
    custom: dict[str, str]


@dataclass(frozen=True)
class AudioFormat:
    """The format that every file of a corpus must have.

    Attributes:
        sampling_rate: in Hz.
        channels: number of channels.
        seconds: shortest and longest duration, in seconds.
    """

    sampling_rate: int
    channels: int
    seconds: tuple[float, float] = (0.0, inf)


def table_in(path: Path, name: str) -> Path:
    """Return ``path``, or the table ``name`` in it if it is a folder."""
    return path / name if path.is_dir() else path


def read_table(path: Path, columns: Sequence[str], delimiter: str) -> list[dict[str, str]]:
    """Read a CSV whose header line has at least ``columns``.

    Raises:
        UserError: the table is missing, not text or empty, or lacks a column or a field.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            rows = list(reader)
            header_line = reader.fieldnames or []
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path, or download the corpus's metadata again") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a text table ({error}); save it as UTF-8 text, or download it again") from None
    name = {"\t": "tabs", ",": "commas"}[delimiter]
    if not set(columns) <= set(header_line):
        raise UserError(f"{path} has the columns {header_line}, not {list(columns)}; they must be separated by {name}")
    for number, row in enumerate(rows, 2):
        if None in row or any(row[column] is None for column in columns):
            raise UserError(f"{path}, line {number}: not as many fields as columns; fix the line")
    if not rows:
        raise UserError(f"{path} has no line but its header; add lines, or download it again")
    return rows


def listed_file(table: Path, name: str) -> tuple[str, Path]:
    """Return the clip id and the path of a file that a table lists, relative to the table's folder.

    Symbolic links are not resolved, because audio is often kept behind them.

    Raises:
        UserError: the name is empty, or leads out of the table's folder.
    """
    folder = table.parent.resolve()
    path = Path(os.path.normpath(folder / name))
    if folder not in path.parents:
        raise UserError(f"{table}: {name!r} is not in the table's folder; fix the line")
    return str(path.relative_to(folder).with_suffix("")), path


def check_unique(entries: Iterable[ClipEntry], table: Path) -> None:
    """Check that no two entries have the same id.

    Raises:
        UserError: names two that do.
    """
    seen: dict[str, Path] = {}
    for entry in entries:
        other = seen.get(entry.id)
        if other == entry.path:
            raise UserError(f"{table} lists {entry.path.name} twice; delete one of the lines")
        if other is not None:
            raise UserError(
                f"{table}: {other.name} and {entry.path.name} both have the clip id {entry.id}; rename a file"
            )
        seen[entry.id] = entry.path


def present(entries: list[ClipEntry], allow_partial: bool, remedy: str = PARTIAL) -> list[ClipEntry]:
    """Return the entries whose audio file exists.

    Raises:
        UserError: files are missing and ``allow_partial`` is false; ``remedy`` says what to do.
    """
    folders = {path.parent for path in (entry.path for entry in entries)}
    files = {file for folder in folders if folder.is_dir() for file in folder.iterdir()}
    missing = [entry for entry in entries if entry.path not in files]
    if missing and not allow_partial:
        raise UserError(f"{len(missing)} of {len(entries)} audio files are missing, first {missing[0].path}; {remedy}")
    if missing:
        log.warning(
            "%d of %d audio files are missing and left out, first %s", len(missing), len(entries), missing[0].path
        )
    return [entry for entry in entries if entry.path in files]


def check_counts(counts: dict[str, int], published: dict[str, int], corpus: Path, allow_partial: bool) -> None:
    """Compare numbers of clips with the published ones.

    Raises:
        UserError: they differ and ``allow_partial`` is false.
    """
    different = [f"{name} {counts.get(name, 0)} of {n}" for name, n in published.items() if counts.get(name, 0) != n]
    if not different:
        return
    listing = ", ".join(different[:4]) + (f" and {len(different) - 4} more" if len(different) > 4 else "")
    if not allow_partial:
        raise UserError(f"{corpus} is not the published corpus ({listing}); {PARTIAL}")
    log.warning("%s: not the published numbers, as --allow-partial allows: %s", corpus.name, listing)


def split_by_location(
    entries: list[ClipEntry], share: float, seed: int, region_of: Callable[[str], str] = str
) -> tuple[list[ClipEntry], list[ClipEntry]]:
    """Hold out about ``share`` of the clips of a scene corpus, by whole locations.

    Every scene gives about its share. Among the locations, the region with the fewest held-out locations comes first,
    so that the held-out clips are spread over regions. The split depends on the seed, not on the order of the entries.

    Args:
        entries: clips with the field location.
        share: share of the clips to hold out.
        seed: seed of the split.
        region_of: function that returns the region (city) of a location.

    Returns:
        The remaining clips and the held-out clips.

    Raises:
        UserError: a scene has only one location, so none can be held out.
    """
    by_scene: dict[str, dict[str, list[ClipEntry]]] = defaultdict(lambda: defaultdict(list))
    for entry in sorted(entries, key=lambda entry: entry.id):
        by_scene[entry.labels[0]][entry.custom["location"]].append(entry)
    chosen: set[str] = set()
    per_region: Counter[str] = Counter()
    shuffle = random.Random(seed)
    for scene, locations in sorted(by_scene.items()):
        if len(locations) < 2:
            raise UserError(f"scene {scene} has clips of one location only; validation and test need two or more")
        target = share * sum(map(len, locations.values()))
        count = sum(len(clips) for name, clips in locations.items() if name in chosen)
        candidates = sorted(set(locations) - chosen)
        shuffle.shuffle(candidates)
        while len(candidates) > 1:
            name = min(candidates, key=lambda name: per_region[region_of(name)])
            candidates.remove(name)
            new_count = count + len(locations[name])
            if count and abs(new_count - target) > abs(count - target):
                continue
            chosen.add(name)
            per_region[region_of(name)] += 1
            count = new_count
            if count >= target:
                break
    held_out = [entry for entry in entries if entry.custom["location"] in chosen]
    return [entry for entry in entries if entry.custom["location"] not in chosen], held_out


def state_of(tables: Sequence[Path], entries: Iterable[ClipEntry]) -> dict[str, Path | str]:
    """Return the inputs of manifests for ``provenance.record``: the tables, and a hash of the audio files' states.

    A file's state is its name, size and time of change. Packed audio depends on ``content_sample`` instead.
    """
    listing = hashlib.sha256()
    for entry in entries:
        stat = entry.path.stat()
        listing.update(f"{entry.path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return {**{table.name: table for table in tables if table.exists()}, "audio": listing.hexdigest()}


def content_sample(path: Path) -> int:
    """Return the CRC-32 of a file's first and last 64 KiB, so that packed audio notices a file that was replaced."""
    with path.open("rb") as file:
        checksum = zlib.crc32(file.read(_SAMPLE))
        file.seek(max(0, path.stat().st_size - _SAMPLE))
        return zlib.crc32(file.read(_SAMPLE), checksum)


def header(path: Path) -> Any:
    """Return ``soundfile.info`` of an audio file.

    Raises:
        UserError: the file is not audio.
    """
    try:
        return soundfile.info(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(f"{path} cannot be read as audio ({error}); download it again or replace it") from None


def write(
    out: Path,
    corpus: str,
    splits: dict[str, list[ClipEntry]],
    record: dict[str, Any],
    audio: AudioFormat,
    jobs: int,
    length: float | None = None,
) -> None:
    """Read every file's header once, and write validated Lhotse manifests of all splits, atomically.

    Args:
        out: folder of the manifests.
        corpus: name of the corpus, which starts the file names.
        splits: clips of each split.
        record: provenance, from ``provenance.record``.
        audio: format that every file must have.
        jobs: number of processes.
        length: nominal length, to which stage 2 cuts or pads the clips, in seconds; None keeps each clip's own.

    Raises:
        UserError: a split is empty, or a file is unreadable or has another format.
    """
    empty = [split for split, entries in splits.items() if not entries]
    if empty:
        raise UserError(f"{corpus} has no clip for the split {empty[0]}; download more of it")
    import_module("lhotse")  # slow, so only if needed; before the fork, so only once
    with atomic_folder(out, "*.jsonl.gz", provenance.NAME) as folder, mapping(jobs) as run:
        for split, entries in splits.items():
            starts = range(0, len(entries), _PER_PART)
            parts = [(folder / str(start), entries[start : start + _PER_PART], audio, length) for start in starts]
            durations = list(progress(run(_write_part, parts), f"headers {split}", total=len(parts)))
            for kind in KINDS:
                _join([part / f"{kind}.jsonl.gz" for part, *_ in parts], folder / f"{corpus}_{kind}_{split}.jsonl.gz")
            for part, *_ in parts:
                part.rmdir()
            log.info("%s %s: %d clips, %.2f hours", corpus, split, len(entries), sum(durations) / 3600)
        provenance.write(folder, record)


def _write_part(part: tuple[Path, list[ClipEntry], AudioFormat, float | None]) -> float:
    """Write the manifests of some clips into a folder; return their total duration in seconds."""
    from lhotse import CutSet, RecordingSet, SupervisionSet, validate_recordings_and_supervisions

    folder, entries, audio, length = part
    recordings = [_recording(entry, audio) for entry in entries]
    cuts = [_cut(entry, recording, length) for entry, recording in zip(entries, recordings, strict=True)]
    supervisions = [cut.supervisions[0] for cut in cuts]
    sets = RecordingSet.from_items(recordings), SupervisionSet.from_items(supervisions), CutSet.from_items(cuts)
    validate_recordings_and_supervisions(*sets[:2])
    folder.mkdir()
    for kind, manifest in zip(KINDS, sets, strict=True):
        manifest.to_file(folder / f"{kind}.jsonl.gz")
    return sum(recording.duration for recording in recordings)


def _join(parts: Sequence[Path], target: Path) -> None:
    """Concatenate gzipped files, which gives a gzipped file, and delete them."""
    with target.open("wb") as file:
        for part in parts:
            file.write(part.read_bytes())
            part.unlink()


def _cut(entry: ClipEntry, recording: Any, length: float | None) -> Any:
    from lhotse import SupervisionSegment

    cut = recording.to_cut()
    custom = {"labels": list(entry.labels), "content": content_sample(entry.path), **entry.custom}
    custom |= {} if length is None else {"seconds": length}
    cut.supervisions = [SupervisionSegment(entry.id, entry.id, 0.0, cut.duration, cut.channel, custom=custom)]
    return cut


def _recording(entry: ClipEntry, audio: AudioFormat) -> Any:
    from lhotse import AudioSource, Recording

    info, rate, (shortest, longest) = header(entry.path), audio.sampling_rate, audio.seconds
    if info.samplerate != rate:
        raise UserError(f"{entry.path} has {info.samplerate} Hz, not {rate}; download it again or give --sampling-rate")
    if info.channels != audio.channels:
        raise UserError(f"{entry.path} has {info.channels} channel(s), not {audio.channels}; download it again")
    if info.frames == 0:
        raise UserError(f"{entry.path} has no samples; download it again or leave it out")
    if not shortest <= info.duration <= longest:
        raise UserError(f"{entry.path} lasts {info.duration:.2f} s, not {shortest:g} to {longest:g}; download it again")
    source = AudioSource("file", list(range(info.channels)), str(entry.path))
    return Recording(entry.id, [source], rate, info.frames, info.frames / rate)
