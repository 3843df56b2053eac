"""Shared by all corpora: find and check clips, and write validated Lhotse manifests (``local.splits`` splits them)."""

import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import accumulate
from math import inf
from pathlib import Path
from shutil import rmtree
from typing import Any

from tagasc.audio.decoding import open_audio
from tagasc.utils import provenance
from tagasc.utils.errors import UserError
from tagasc.utils.files import atomic_folder
from tagasc.utils.log import log, progress
from tagasc.utils.processes import mapping
from tagasc.utils.tables import Row, clean

KINDS = ("recordings", "supervisions", "cuts")
_SAMPLE = 1 << 16  # bytes
_PER_PART = 512  # clips
OWN = "add them, or fix the table (folders are separated by /)"
PARTIAL = "download the missing part, or use the rest with --allow-partial (allow_partial=true in recipe.sh)"

# By split: lhotse's RecordingSet as "recordings", its SupervisionSet as "supervisions".
Manifests = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class ClipEntry:
    """One clip of a corpus: its audio file, labels and further fields.

    Attributes:
        id: clip id, unique in the corpus.
        path: audio file.
        labels: one scene, or tags.
        custom: further fields of the supervision, for instance location or usage.
        more: audio files that follow the first one without a gap, if the clip is cut into several.
    """

    id: str
    path: Path
    labels: tuple[str, ...]
    custom: dict[str, str]
    more: tuple[Path, ...] = ()


@dataclass(frozen=True)
class AudioFormat:
    """The format that every file of a corpus must have.

    Attributes:
        sampling_rate: in Hz.
        channels: number of channels.
        remedy: what to do with a file of another format, for the error.
        seconds: shortest and longest duration, in seconds.
        one_length: whether all files must have the same number of frames, as scene clips of no given length must.
    """

    sampling_rate: int
    channels: int
    remedy: str
    seconds: tuple[float, float] = (0.0, inf)
    one_length: bool = False


def table_in(path: Path, name: str) -> Path:
    """Return ``path``, or the table ``name`` in it if it is a folder."""
    return path / name if path.is_dir() else path


def listed_file(table: Path, row: Row) -> tuple[str, Path]:
    """Return the clip id and the path of the file in a row's column ``file``, relative to the table's folder.

    Symbolic links are not resolved, because audio is often kept behind them.

    Raises:
        UserError: the name is empty, or leads out of the table's folder.
    """
    folder = table.parent.resolve()
    path = Path(os.path.normpath(folder / row["file"]))
    if folder not in path.parents:
        raise UserError(f"{row.where}: {row['file']!r} is not in the table's folder; fix the line")
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
    """Return the entries whose audio file exists, with the path that it has on the disk.

    Raises:
        UserError: files are missing and ``allow_partial`` is false; ``remedy`` says what to do.
    """
    disk = _Disk()
    found = [(entry, disk.find(entry.path)) for entry in entries]
    missing = [entry.path for entry, path in found if path is None]
    if missing and not allow_partial:
        raise UserError(f"{len(missing)} of {len(entries)} audio files are missing, first {missing[0]}; {remedy}")
    if missing:
        log.warning("%d of %d audio files are missing and left out, first %s", len(missing), len(entries), missing[0])
    return [replace(entry, path=path) for entry, path in found if path is not None]


class _Disk:
    """Finds files by their cleaned names; on the disk they may have blanks or another Unicode form."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, Path]] = {}

    def find(self, path: Path) -> Path | None:
        """Return the path of a file on the disk, or None."""
        parent = path.parent
        if parent not in self._folders:
            folder = parent if parent.is_dir() else self.find(parent)
            children = sorted(folder.iterdir(), key=lambda child: child.name == clean(child.name)) if folder else []
            self._folders[parent] = {clean(child.name): child for child in children}  # an equal name comes last
        return self._folders[parent].get(clean(path.name))


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


def write(
    out: Path,
    corpus: str,
    splits: dict[str, list[ClipEntry]],
    record: dict[str, Any],
    audio: AudioFormat,
    jobs: int,
    length: float | None = None,
    uncut: Collection[str] = (),
    tables: Mapping[str, str] = {},
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
        uncut: splits that get no cut manifest, so that no stage uses them.
        tables: text of further files, by name.

    Raises:
        UserError: a split is empty, or a file is unreadable or has another format.
    """
    empty = [split for split, entries in splits.items() if not entries]
    if empty:
        raise UserError(f"{corpus} has no clip for the split {empty[0]}; download more of it")
    import_module("lhotse")  # slow, so only if needed; before the fork, so only once
    lengths: Counter[int] = Counter()
    examples: dict[int, Path] = {}
    with atomic_folder(out, "*.jsonl.gz", "scenes.csv", provenance.NAME) as folder, mapping(jobs) as run:
        for split, entries in splits.items():
            starts = range(0, len(entries), _PER_PART)
            parts = [(folder / str(start), entries[start : start + _PER_PART], audio, length) for start in starts]
            frames = sum(progress(run(_write_part, parts), f"headers {split}", total=len(parts)), [])
            for kind in KINDS[:-1] if split in uncut else KINDS:
                _join([part / f"{kind}.jsonl.gz" for part, *_ in parts], folder / f"{corpus}_{kind}_{split}.jsonl.gz")
            for part, *_ in parts:
                rmtree(part)
            lengths.update(frames)
            examples = {count: entry.path for count, entry in zip(frames, entries, strict=True)} | examples
            hours = sum(frames) / audio.sampling_rate / 3600
            log.info("%s %s: %d clips, %.2f hours", corpus, split, len(entries), hours)
        if audio.one_length:
            _check_one_length(lengths, examples, audio.sampling_rate)
        for name, text in tables.items():
            (folder / name).write_text(text, encoding="utf-8")
        provenance.write(folder, record, sorted(folder.iterdir()))


def load(folder: Path, corpus: str) -> Manifests:
    """Return the manifests in a folder; they are read lazily, line by line, so a large corpus takes little memory."""
    from lhotse import RecordingSet, SupervisionSet

    kinds = {"recordings": RecordingSet, "supervisions": SupervisionSet}
    loaded: Manifests = {}
    for path in sorted(folder.glob(f"{corpus}_recordings_*.jsonl.gz")):
        split = path.name.removesuffix(".jsonl.gz").rpartition("_")[2]
        files = {kind: path.with_name(f"{corpus}_{kind}_{split}.jsonl.gz") for kind in kinds}
        loaded[split] = {kind: kinds[kind].from_jsonl_lazy(file) for kind, file in files.items()}
    return loaded


def _check_one_length(lengths: Counter[int], examples: dict[int, Path], rate: int) -> None:
    """Check that scene clips have one length, which the scene networks need.

    Args:
        lengths: number of clips by their length in frames.
        examples: a clip of each length.
        rate: sampling rate, Hz.
    """
    usual = lengths.most_common(1)[0][0]
    others = sorted(frames for frames in lengths if frames != usual)
    if not others:
        return
    odd, seconds = min(others, key=lengths.__getitem__), f"{usual / rate:g}"
    count = sum(lengths[frames] for frames in others)
    if all(0.9 * usual <= frames <= 1.1 * usual for frames in others):
        remedy = f"give --scene-seconds {seconds} to cut or pad the clips (--seconds {seconds} without run.sh)"
    else:
        remedy = "cut the clips to one length first"
    raise UserError(
        f"{examples[odd]} has {odd} frames, the usual length is {usual} ({seconds} s), and {count} of {lengths.total()}"
        f" clips differ from it, but scene clips need one length; {remedy}"
    )


def _write_part(part: tuple[Path, list[ClipEntry], AudioFormat, float | None]) -> list[int]:
    """Write the manifests of some clips into a folder; return the length of each in frames."""
    from lhotse import CutSet, RecordingSet, SupervisionSet, validate_recordings_and_supervisions

    folder, entries, audio, length = part
    clips = [_cut(entry, audio, length) for entry in entries]
    cuts = [cut for cut, _ in clips]
    tracks = [track for _, tracks in clips for track in tracks]
    recordings, supervisions = [cut.recording for cut in tracks], [cut.supervisions[0] for cut in tracks]
    sets = RecordingSet.from_items(recordings), SupervisionSet.from_items(supervisions), CutSet.from_items(cuts)
    validate_recordings_and_supervisions(*sets[:2])
    folder.mkdir()
    for kind, manifest in zip(KINDS, sets, strict=True):
        manifest.to_file(folder / f"{kind}.jsonl.gz")
    return [sum(cut.recording.num_samples for cut in tracks) for _, tracks in clips]


def _join(parts: Sequence[Path], target: Path) -> None:
    """Concatenate gzipped files, which gives a gzipped file, and delete them."""
    with target.open("wb") as file:
        for part in parts:
            file.write(part.read_bytes())
            part.unlink()


def _cut(entry: ClipEntry, audio: AudioFormat, length: float | None) -> tuple[Any, list[Any]]:
    """Return the cut of a clip, and the cuts of its files: the same, or the tracks of a cut that is mixed of them."""
    from lhotse import SupervisionSegment
    from lhotse.cut import MixedCut, MixTrack

    names = [path.stem for path in (entry.path, *entry.more)] if entry.more else [entry.id]
    tracks = []
    for name, path in zip(names, (entry.path, *entry.more), strict=True):
        cut = _recording(name, path, audio).to_cut()
        custom = {"labels": list(entry.labels), "content": content_sample(path), **entry.custom}
        custom |= {} if length is None else {"seconds": length}
        cut.supervisions = [SupervisionSegment(name, name, 0.0, cut.duration, cut.channel, custom=custom)]
        tracks.append(cut)
    if not entry.more:
        return tracks[0], tracks
    starts = [0.0, *accumulate(cut.duration for cut in tracks)]
    return MixedCut(entry.id, [MixTrack(cut, offset=at) for cut, at in zip(tracks, starts, strict=False)]), tracks


def _recording(name: str, path: Path, audio: AudioFormat) -> Any:
    from lhotse import AudioSource, Recording

    rate, (shortest, longest) = audio.sampling_rate, audio.seconds
    with open_audio(path) as (file, frames):
        found, channels = file.samplerate, file.channels
    if found != rate:
        raise UserError(f"{path} has {found} Hz, not {rate}; {audio.remedy}")
    if channels != audio.channels:
        raise UserError(f"{path} has {channels} channel(s), not {audio.channels}; {audio.remedy}")
    if frames == 0:
        raise UserError(f"{path} has no samples; download it again or leave it out")
    if not shortest <= frames / rate <= longest:
        raise UserError(f"{path} lasts {frames / rate:.2f} s, not {shortest:g} to {longest:g}; {audio.remedy}")
    source = AudioSource("file", list(range(channels)), str(path))
    return Recording(name, [source], rate, frames, frames / rate)
