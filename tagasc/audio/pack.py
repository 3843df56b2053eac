"""Decodes audio files into packed audio (``tagasc.audio.packed``), in parallel and resumably."""

import json
import os
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from math import inf
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.lib.format import open_memmap

from tagasc.audio import levels, shards
from tagasc.audio.decoding import open_audio, skip
from tagasc.audio.levels import Level
from tagasc.audio.packed import FORMAT, FULL_SCALE, PACKED_FILES, Clip
from tagasc.utils import provenance
from tagasc.utils.errors import UserError
from tagasc.utils.files import replace_folder, require_own, write_json
from tagasc.utils.log import log, progress
from tagasc.utils.processes import mapping

SampleFormat = Literal["int16", "float32"]
_PER_JOB = 16
_BLOCK = 2**15  # frames


@dataclass(frozen=True)
class Source:
    """A segment of an audio file that becomes one clip.

    The file is read from frame ``first``, and after it the files in ``more`` (path and frames) from their beginnings:
    ``available`` frames in all, then cut or zero-padded to ``frames`` frames.
    """

    id: str
    path: str
    first: int
    available: int
    frames: int
    channels: int
    sampling_rate: int
    labels: tuple[str, ...]
    location: str = ""
    usage: str = ""
    joined: str = ""
    more: tuple[tuple[str, int], ...] = ()

    def files(self) -> list[tuple[str, int, int]]:
        """Return path, first frame and number of frames of each file, in order."""
        own = self.available - sum(frames for _, frames in self.more)
        return [(self.path, self.first, own), *((path, 0, frames) for path, frames in self.more)]


def pack(
    sources: Sequence[Source],
    folder: Path,
    record: dict,
    sample_format: SampleFormat = "int16",
    jobs: int = 1,
    shard_gb: float = inf,
) -> None:
    """Decode ``sources`` into ``folder``; an interrupted run resumes with the clips not yet decoded.

    Args:
        sources: clips in order, of one sampling rate and number of channels.
        folder: folder of the packed audio.
        record: provenance record; an unfinished folder with another record is started over.
        sample_format: type of the stored samples.
        jobs: number of processes.
        shard_gb: size above which the samples are divided among several files, in GB.

    Raises:
        UserError: a file is missing, unreadable, truncated, unlike its manifest, or has samples that are not finite;
            or goes far beyond full scale; or ``folder`` holds something else.
    """
    require_own(folder, *PACKED_FILES)
    if len({(source.sampling_rate, source.channels) for source in sources}) != 1:
        raise UserError(f"{folder}: its clips differ in sampling rate or channels; give manifests with one format")
    partial = folder.with_name(f".partial.{folder.name}")
    starts = np.concatenate([[0], np.cumsum([source.frames for source in sources])]).tolist()
    dtype, channels = np.dtype(sample_format).newbyteorder("<"), sources[0].channels
    most = min(shard_gb * 1e9 / (dtype.itemsize * channels), starts[-1])
    bounds = shards.plan(starts[1:], [source.joined for source in sources], int(most))
    done = _resume(partial, record, starts, bounds, (dtype, channels))
    todo = [number for number in range(len(sources)) if number not in done]
    chunks = [todo[at : at + _PER_JOB] for at in range(0, len(todo), _PER_JOB)]
    with mapping(jobs) as run, (partial / "done.jsonl").open("a", encoding="utf-8") as journal:
        files = _names(partial, bounds)
        place = lambda n: bisect_right(bounds, starts[n], hi=len(files)) - 1  # the shard of a clip
        work = (
            [(sources[n], str(files[place(n)]), starts[n] - bounds[place(n)], n) for n in chunk] for chunk in chunks
        )
        for finished in progress(run(_decode_chunk, work), f"packing {folder.name}", total=len(chunks)):
            for number, level in finished:
                done[number] = level
                journal.write(json.dumps([number, asdict(level)]) + "\n")
            journal.flush()
    clips = [_clip(source, starts[n], done[n].crc32) for n, source in enumerate(sources)]
    index = {"format": FORMAT, "sampling_rate": sources[0].sampling_rate, "channels": sources[0].channels}
    write_json(partial / "index.json", {**index, "clips": [_row(clip) for clip in clips]})
    samples = [source.frames * source.channels for source in sources]
    split = levels.summary([done[n] for n in range(len(sources))], samples)
    write_json(partial / levels.NAME, split)
    replace_folder(partial, folder)
    (folder / "done.jsonl").unlink()
    _report(folder, sources)
    levels.report(folder.name, split, sample_format == "int16")


def quantise(wave: np.ndarray) -> np.ndarray:
    """Convert float in -1..1 to int16: round(x · 32768), ties to even, clipped. Exact for 16-bit audio."""
    rescale = wave * wave.dtype.type(FULL_SCALE)
    np.rint(rescale, out=rescale)
    np.clip(rescale, -FULL_SCALE, FULL_SCALE - 1, out=rescale)
    return rescale.astype(np.int16)


def decode(source: Source, buffer: np.ndarray) -> np.ndarray:
    """Decode one source into ``buffer``.

    Args:
        source: the clip.
        buffer: float32 (frames or more, channels), which holds 24-bit samples exactly.

    Returns:
        The clip's part of ``buffer``, (frames, channels).

    Raises:
        UserError: see ``pack``.
    """
    filled, wanted = 0, min(source.available, source.frames)
    for path, first, frames in source.files():
        part = buffer[filled : min(filled + frames, wanted)]
        with open_audio(path) as (file, _):
            file_format = (file.samplerate, file.channels)
            if file_format != (source.sampling_rate, source.channels):
                raise UserError(
                    f"{path} has {file_format[0]} Hz and {file_format[1]} channel(s), but its manifest"
                    f" says {source.sampling_rate} Hz and {source.channels}; run stage 1 (manifests) again"
                )
            skip(file, first)
            decoded = len(file.read(out=part)) if len(part) else 0
        if decoded < len(part):
            raise UserError(f"{path} ends after {decoded} frames; it is truncated, fetch the file again")
        filled += len(part)
    buffer[wanted : source.frames] = 0
    return buffer[: source.frames]


def _names(folder: Path, bounds: Sequence[int]) -> list[Path]:
    """Return the files of the samples, which begin at ``bounds``."""
    count = len(bounds) - 1
    return [folder / (shards.SINGLE if count == 1 else shards.SEVERAL.replace("*", str(n))) for n in range(count)]


def _resume(
    partial: Path, record: dict, starts: list[int], bounds: list[int], form: tuple[np.dtype, int]
) -> dict[int, Level]:
    """Prepare the partial folder; return by number the clips that an earlier run with the same record has finished."""
    old = provenance.read(partial)
    if old is not None and provenance.difference(old, record) is None:
        kept = _finished(partial, starts, bounds, form)
        if kept is not None:
            if kept:
                log.info("%s: resuming after %d of %d clips", partial.name, len(kept), len(starts) - 1)
            return kept
    partial.mkdir(parents=True, exist_ok=True)
    (partial / provenance.NAME).unlink(missing_ok=True)
    for old_file in (partial / shards.SINGLE, *partial.glob(shards.SEVERAL)):
        old_file.unlink(missing_ok=True)
    dtype, channels = form
    for path, (first, last) in zip(_names(partial, bounds), pairwise(bounds), strict=True):
        open_memmap(path, mode="w+", dtype=dtype, shape=(last - first, channels)).flush()
        with path.open("r+b") as file:  # reserve the space, so that a full disk fails at once
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    (partial / "done.jsonl").write_text("", encoding="utf-8")
    provenance.write(partial, record)
    return {}


def _finished(
    partial: Path, starts: list[int], bounds: list[int], form: tuple[np.dtype, int]
) -> dict[int, Level] | None:
    """Return the clips that are decoded, by number; None if the partial folder is damaged.

    If the machine crashed, the journal may have reached the disk before the samples, or may hold anything.
    """
    try:
        samples = shards.open_samples(partial)
        lines = (partial / "done.jsonl").read_bytes().split(b"\n")[:-1]
    except (FileNotFoundError, ValueError, EOFError):
        return None
    if shards.bounds_of(samples) != bounds or (samples.dtype, *samples.shape[1:]) != form:
        return None
    kept = {}
    for line in lines:
        with suppress(ValueError, TypeError, RecursionError):
            number, fields = json.loads(line)
            level = Level(**fields)
            known = number in range(len(starts) - 1) and np.isfinite(list(fields.values())).all()
            if known and zlib.crc32(samples[starts[number] : starts[number + 1]]) == level.crc32:
                kept[number] = level
    return kept


def _decode_chunk(clips: list[tuple[Source, str, int, int]]) -> list[tuple[int, Level]]:
    """Decode clips, each into a file from a frame on; return number and level of each."""
    buffer = np.empty((max(source.frames for source, *_ in clips), clips[0][0].channels), np.float32)
    finished = []
    for path, in_one in groupby(clips, key=lambda clip: clip[1]):
        samples = np.load(path, mmap_mode="r", allow_pickle=False)
        with open(path, "r+b") as file:  # not through the memory map, where each new page costs a fault
            for source, _, start, number in in_one:
                file.seek(samples.offset + start * samples.strides[0])
                finished.append((number, _store(source, decode(source, buffer), samples.dtype, file)))
    return finished


def _store(source: Source, wave: np.ndarray, sample_format: np.dtype, file: BinaryIO) -> Level:
    """Write a clip in cache-sized blocks; return its checksum and level."""
    crc32, error, energy, peak, full, beyond = 0, 0.0, 0.0, 0.0, 0, 0
    for start in range(0, len(wave), _BLOCK):
        block = wave[start : start + _BLOCK]
        energy += float(np.vdot(block, block))
        if not np.isfinite(energy):
            raise UserError(f"{source.path} holds samples that are not finite; fetch the file again or leave it out")
        largest = max(float(block.max()), -float(block.min()))
        peak, counts = max(peak, largest), levels.count_full(block, largest)
        full, beyond = full + counts[0], beyond + counts[1]
        stored = block
        if sample_format == np.int16:
            stored = quantise(block)
            block -= stored / np.float32(FULL_SCALE)
            error += float(np.vdot(block, block))
        crc32 = zlib.crc32(stored, crc32)
        file.write(stored)
    level = Level(crc32, error / wave.size, energy / wave.size, peak, full, beyond)
    levels.check_scale(source.path, level, wave.size)
    return level


def _clip(source: Source, start: int, crc32: int) -> Clip:
    return Clip(source.id, start, source.frames, source.labels, source.location, source.usage, crc32, source.joined)


def _row(clip: Clip) -> dict:
    """Return a clip as a row of the index; ``joined`` only where it says something, since the index is hashed."""
    row = asdict(clip)
    return row if clip.joined else {name: value for name, value in row.items() if name != "joined"}


def _report(folder: Path, sources: Sequence[Source]) -> None:
    hours = sum(source.frames for source in sources) / sources[0].sampling_rate / 3600
    log.info("%s: %d clips, %.2f hours", folder.name, len(sources), hours)
    changes = [(source.frames - source.available) for source in sources if source.frames != source.available]
    if changes:
        log.info("%s: %d clips padded or cut by up to %d frames", folder.name, len(changes), max(map(abs, changes)))
