"""What every corpus needs on its way to Lhotse manifests: reading tables, reading headers, validated writing."""

import csv
import hashlib
import os
import random
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
_PER_PART = 512  # clips
OWN = "put them there, or take them out of the table"
PARTIAL = "fetch what is missing, or give --allow-partial to use what is there"


@dataclass(frozen=True)
class ClipEntry:
    """One clip of a corpus: its audio file, its labels, and what else is known of it.

    Attributes:
        id: clip id, unique in the corpus.
        path: audio file.
        labels: the scene, or the tags.
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
    """Return the table that ``path`` is, or the table ``name`` in the folder that it is."""
    return path / name if path.is_dir() else path


def read_table(path: Path, columns: Sequence[str], delimiter: str) -> list[dict[str, str]]:
    """Read a CSV with a header line that has at least ``columns``.

    Raises:
        UserError: absent, not text, other columns, a short line, or no line at all.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            rows = list(reader)
            found = reader.fieldnames or []
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path, or fetch the corpus's metadata again") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a text table ({error}); save it as UTF-8 text, or fetch it again") from None
    name = {"\t": "tabs", ",": "commas"}[delimiter]
    if not set(columns) <= set(found):
        raise UserError(f"{path} has the columns {found}, not {list(columns)}; they must be separated by {name}")
    for number, row in enumerate(rows, 2):
        if None in row or any(row[column] is None for column in columns):
            raise UserError(f"{path}, line {number}: not as many fields as columns; mend the line")
    if not rows:
        raise UserError(f"{path} has no line but its header; add some, or fetch it again")
    return rows


def listed_file(table: Path, name: str) -> tuple[str, Path]:
    """A file as a table names it, relative to the table's folder: its clip's id, and its path.

    Links in the name are not followed, since audio is often kept behind them.

    Raises:
        UserError: the name leads out of the table's folder, or is none.
    """
    folder = table.parent.resolve()
    path = Path(os.path.normpath(folder / name))
    if folder not in path.parents:
        raise UserError(f"{table}: {name!r} does not lie in the table's folder; mend the line")
    return str(path.relative_to(folder).with_suffix("")), path


def check_unique(entries: Iterable[ClipEntry], table: Path) -> None:
    """Raises UserError if two entries have one id."""
    seen: dict[str, Path] = {}
    for entry in entries:
        other = seen.get(entry.id)
        if other == entry.path:
            raise UserError(f"{table} lists {entry.path.name} twice; delete one of the lines")
        if other is not None:
            raise UserError(f"{table}: {other.name} and {entry.path.name} both make clip {entry.id}; rename one")
        seen[entry.id] = entry.path


def present(entries: list[ClipEntry], allow_partial: bool, remedy: str = PARTIAL) -> list[ClipEntry]:
    """The entries whose audio is there; lacking ones are an error unless ``allow_partial``, and ``remedy`` mends it."""
    folders = {path.parent for path in (entry.path for entry in entries)}
    there = {file for folder in folders if folder.is_dir() for file in folder.iterdir()}
    missing = [entry for entry in entries if entry.path not in there]
    if missing and not allow_partial:
        raise UserError(f"{len(missing)} of {len(entries)} audio files are missing, first {missing[0].path}; {remedy}")
    if missing:
        log.warning(
            "%d of %d audio files are missing and left out, first %s", len(missing), len(entries), missing[0].path
        )
    return [entry for entry in entries if entry.path in there]


def check_counts(found: dict[str, int], published: dict[str, int], corpus: Path, allow_partial: bool) -> None:
    """Compare numbers of clips with the published ones; a difference is an error unless ``allow_partial``."""
    wrong = [
        f"{name} {found.get(name, 0)} of {count}" for name, count in published.items() if found.get(name, 0) != count
    ]
    if not wrong:
        return
    shown = ", ".join(wrong[:4]) + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else "")
    if not allow_partial:
        raise UserError(f"{corpus} is not the published corpus ({shown}); {PARTIAL}")
    log.warning("%s: not the published numbers, as --allow-partial allows: %s", corpus.name, shown)


def split_by_location(
    entries: list[ClipEntry], share: float, seed: int, region_of: Callable[[str], str] = str
) -> tuple[list[ClipEntry], list[ClipEntry]]:
    """Hold out about ``share`` of the clips of a scene corpus, by whole locations; returns the rest and the held-out.

    Each scene gives about its share, and the regions that ``region_of`` a location names (cities) take turns, so that
    the held-out clips are spread over both. The same seed gives the same split, whatever the order of the entries.

    Raises:
        UserError: a scene has one location only, so that none can be held out.
    """
    by_scene: dict[str, dict[str, list[ClipEntry]]] = defaultdict(lambda: defaultdict(list))
    for entry in sorted(entries, key=lambda entry: entry.id):
        by_scene[entry.labels[0]][entry.custom["location"]].append(entry)
    chosen: set[str] = set()
    turns: Counter[str] = Counter()
    shuffle = random.Random(seed)
    for scene, locations in sorted(by_scene.items()):
        if len(locations) < 2:
            raise UserError(
                f"scene {scene} has clips of one location only; none can be held out for validation or test"
            )
        wanted = share * sum(map(len, locations.values()))
        taken = sum(len(clips) for name, clips in locations.items() if name in chosen)
        waiting = sorted(set(locations) - chosen)
        shuffle.shuffle(waiting)
        while len(waiting) > 1:
            name = min(waiting, key=lambda name: turns[region_of(name)])
            waiting.remove(name)
            after = taken + len(locations[name])
            if taken and abs(after - wanted) > abs(taken - wanted):
                continue
            chosen.add(name)
            turns[region_of(name)] += 1
            taken = after
            if taken >= wanted:
                break
    held_out = [entry for entry in entries if entry.custom["location"] in chosen]
    return [entry for entry in entries if entry.custom["location"] not in chosen], held_out


def state_of(tables: Sequence[Path], entries: Iterable[ClipEntry]) -> dict[str, Path | str]:
    """What manifests depend on, for ``provenance.record``: the tables, and the audio files' names and sizes."""
    listing = hashlib.sha256()
    for entry in entries:
        listing.update(f"{entry.path} {entry.path.stat().st_size}\n".encode())
    return {**{table.name: table for table in tables if table.exists()}, "audio": listing.hexdigest()}


def header(path: Path) -> Any:
    """What ``soundfile.info`` says of an audio file.

    Raises:
        UserError: it is no audio.
    """
    try:
        return soundfile.info(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(f"{path} cannot be read as audio ({error}); fetch it again or replace it") from None


def write(
    out: Path,
    corpus: str,
    splits: dict[str, list[ClipEntry]],
    record: dict[str, Any],
    audio: AudioFormat,
    jobs: int,
    length: float | None = None,
) -> None:
    """Read every file's header once, and write validated Lhotse manifests for each split, all or none.

    Args:
        out: folder of the manifests.
        corpus: prefix of their names.
        splits: the clips of each split.
        record: from ``provenance.record``.
        audio: format that every file must have.
        jobs: number of processes.
        length: that clips are cut or padded to in stage 2, in seconds; None: each keeps its own.

    Raises:
        UserError: a file is unreadable, or of another rate, number of channels or duration.
    """
    empty = [split for split, entries in splits.items() if not entries]
    if empty:
        raise UserError(f"{corpus} has no clip for the split {empty[0]}; fetch more of it")
    import_module("lhotse")  # here, since it takes long; and before the processes fork, which all need it
    with atomic_folder(out) as folder, mapping(jobs) as run:
        for split, entries in splits.items():
            starts = range(0, len(entries), _PER_PART)
            parts = [(folder / str(start), entries[start : start + _PER_PART], audio, length) for start in starts]
            seconds_of = list(progress(run(_write_part, parts), f"headers {split}", total=len(parts)))
            for kind in KINDS:
                _join([part / f"{kind}.jsonl.gz" for part, *_ in parts], folder / f"{corpus}_{kind}_{split}.jsonl.gz")
            for part, *_ in parts:
                part.rmdir()
            log.info("%s %s: %d clips, %.2f hours", corpus, split, len(entries), sum(seconds_of) / 3600)
        provenance.write(folder, record)


def _write_part(part: tuple[Path, list[ClipEntry], AudioFormat, float | None]) -> float:
    """Read the headers of some clips and write their manifests into a folder of their own; returns their seconds."""
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


def _join(parts: Sequence[Path], whole: Path) -> None:
    """Make one file of several; gzipped files after one another are a gzipped file."""
    with whole.open("wb") as file:
        for part in parts:
            file.write(part.read_bytes())
            part.unlink()


def _cut(entry: ClipEntry, recording: Any, length: float | None) -> Any:
    from lhotse import SupervisionSegment

    cut = recording.to_cut()
    custom = {"labels": list(entry.labels), **entry.custom} | ({} if length is None else {"seconds": length})
    cut.supervisions = [SupervisionSegment(entry.id, entry.id, 0.0, cut.duration, cut.channel, custom=custom)]
    return cut


def _recording(entry: ClipEntry, audio: AudioFormat) -> Any:
    from lhotse import AudioSource, Recording

    info, rate, (shortest, longest) = header(entry.path), audio.sampling_rate, audio.seconds
    if info.samplerate != rate:
        raise UserError(f"{entry.path} has {info.samplerate} Hz, not {rate}; fetch it again or give --sampling-rate")
    if info.channels != audio.channels:
        raise UserError(f"{entry.path} has {info.channels} channel(s), not {audio.channels}; fetch it again")
    if info.frames == 0:
        raise UserError(f"{entry.path} holds no samples; fetch it again or leave it out")
    if not shortest <= info.duration <= longest:
        raise UserError(f"{entry.path} lasts {info.duration:.2f} s, not {shortest:g} to {longest:g} s; fetch it again")
    source = AudioSource("file", list(range(info.channels)), str(entry.path))
    return Recording(entry.id, [source], rate, info.frames, info.frames / rate)
