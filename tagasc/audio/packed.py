"""Packed audio: every clip of a split, decoded once into one flat array that training memory-maps.

A packed folder holds ``audio.npy``, an array (frames, channels), interleaved as in a WAV file, or several of these
(``tagasc.audio.shards``), and ``index.json``: sampling rate and, for each clip in order, id, first frame, number of
frames, labels, location and a checksum of its samples. Because of the checksums, the hash of the index serves as the
hash of the audio. Each program compares a clip's checksum when it first reads the clip, once.

int16 samples are ``round(x · 32768)``, ties to even, clipped to ±full scale, for x in -1..1. 24-bit audio is rounded
to 16 bits, not truncated. ``levels.json`` describes level, clipping and rounding error of the clips.

``tagasc.audio.pack`` writes packed folders.
"""

import operator
import os
import zlib
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import accumulate, groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tagasc.audio import shards
from tagasc.utils.errors import UserError
from tagasc.utils.files import read_json

FORMAT = 1
STAGE = "stage 2 (pack)"
FULL_SCALE = 32768
PACKED_FILES = (shards.SINGLE, shards.SEVERAL, "index.json", "levels.json", "done.jsonl", "provenance.json")


@dataclass(frozen=True)
class Clip:
    """One clip of a packed folder; ``start`` and ``frames`` count sample frames of the split.

    Neighbours with the same ``joined``, if it is not empty, get the tags of the longer clip that they form.
    """

    id: str
    start: int
    frames: int
    labels: tuple[str, ...]
    location: str
    usage: str
    crc32: int
    joined: str = ""


def packed_splits(audio: Path, corpus: str) -> dict[str, Path]:
    """Find a corpus's packed folders in ``audio``, ``<corpus>_<split>``; return them by split, alphabetically.

    Stage 2 allows no ``_`` in a split's name, so ``cafe_events_test`` belongs to ``cafe_events``, not to ``cafe``.
    """
    folders = sorted(index.parent for index in audio.glob("*_*/index.json"))
    names = ((*folder.name.rsplit("_", 1), folder) for folder in folders)
    return {split: folder for name, split, folder in names if name == corpus}


def require_index(folder: Path) -> Path:
    """Return the index file of a packed folder; its hash stands for the audio only if the file is not damaged.

    Raises:
        UserError: it is missing or damaged.
    """
    path = folder / "index.json"
    _read_index(path, *((path.stat().st_mtime_ns, path.stat().st_size) if path.exists() else (0, 0)))
    return path


@cache
def _read_index(path: Path, modified: int, size: int) -> None:
    read_json(path, STAGE)


class PackedAudio:
    """A packed folder, memory-mapped.

    Attributes:
        folder: path of the folder.
        samples: array (all frames, channels), int16 or float32, read-only; or shards of it.
        sampling_rate: sampling rate, Hz.
        clips: clips in the order of ``samples``.
    """

    def __init__(self, folder: Path) -> None:
        """Open a packed folder.

        Raises:
            UserError: the folder is missing, damaged or incomplete, or index and samples disagree.
        """
        self.folder = folder
        self.index_file = folder / "index.json"
        index = read_json(self.index_file, STAGE)
        try:
            if index["format"] != FORMAT:
                raise UserError(f"{self.index_file} has format {index['format']}, not {FORMAT}; run {STAGE} again")
            self.sampling_rate: int = index["sampling_rate"]
            self.clips = [Clip(**{**clip, "labels": tuple(clip["labels"])}) for clip in index["clips"]]
            ends = list(accumulate((operator.index(clip.frames) for clip in self.clips), initial=0))
            if [clip.start for clip in self.clips] != ends[:-1] or ends != sorted(ends):
                raise ValueError("a clip in index.json does not begin where the one before it ends")
            self.samples = shards.open_samples(folder)
        except (KeyError, TypeError, ValueError, OverflowError, EOFError, FileNotFoundError) as error:
            raise UserError(f"{folder} is damaged or incomplete ({error}); run {STAGE} again") from None
        fits = self.samples.shape == (ends[-1], index["channels"]) and self.samples.dtype in (np.int16, np.float32)
        if not fits or not set(shards.bounds_of(self.samples)) <= set(ends):  # every shard holds whole clips
            raise UserError(f"{folder} is damaged (audio.npy does not fit index.json); run {STAGE} again")
        self._compared = bytearray(len(self.clips))

    def __len__(self) -> int:
        return len(self.clips)

    def compare(self, clip: int) -> None:
        """Compare the samples of a clip with their checksum, once.

        Args:
            clip: position of the clip.

        Raises:
            UserError: they differ; the message says how to decode the folder again.
        """
        if self._compared[clip]:
            return
        row = self.clips[clip]
        if zlib.crc32(self.samples[row.start : row.start + row.frames]) != row.crc32:
            file = shards.files_of(self.folder)[bisect_right(shards.bounds_of(self.samples), row.start) - 1]
            raise UserError(
                f"{file} is damaged: clip {row.id} differs from its checksum; delete {self.folder}"
                f" and run {STAGE} again"
            )
        self._compared[clip] = 1

    def compare_all(self) -> None:
        """Compare all samples with their checksums, on all cores; see ``compare``."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
            for _ in threads.map(self.compare, range(len(self))):
                pass

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.samples.shape[1]

    @cached_property
    def ids(self) -> list[str]:
        """Clip ids in order."""
        return [clip.id for clip in self.clips]

    @cached_property
    def starts(self) -> Tensor:
        """First frame of each clip, int64."""
        return torch.tensor([clip.start for clip in self.clips], dtype=torch.int64)

    @cached_property
    def lengths(self) -> Tensor:
        """Frames of each clip, int64."""
        return torch.tensor([clip.frames for clip in self.clips], dtype=torch.int64)

    def one_length(self) -> int:
        """Return the number of frames that all clips have.

        Raises:
            UserError: the clips differ in length.
        """
        lengths = sorted({clip.frames for clip in self.clips})
        if len(lengths) != 1:
            content = f"{lengths[0]} to {lengths[-1]} frames" if lengths else "no clips"
            raise UserError(
                f"{self.folder} holds {content}, but scene clips need one length; run stage 1 with --scene-seconds"
            )
        return lengths[0]


class JoinedAudio(PackedAudio):
    """A view of a packed folder in which neighbours with the same ``joined`` are one clip.

    Attributes:
        owners: int64 (clips of the folder,), position of the clip of this view that each belongs to.
    """

    def __init__(self, packed: PackedAudio) -> None:
        """Join the clips; nothing is copied, since their samples are neighbours too."""
        self.folder, self.index_file = packed.folder, packed.index_file
        self.samples, self.sampling_rate = packed.samples, packed.sampling_rate
        self._packed, self._runs, self.clips = packed, [], []
        for _, run in groupby(range(len(packed)), lambda n: packed.clips[n].joined or n):
            numbers = list(run)
            first = packed.clips[numbers[0]]
            frames = sum(packed.clips[n].frames for n in numbers)
            self.clips.append(replace(first, id=first.joined or first.id, frames=frames))
            self._runs.append(numbers)
        self.owners = np.repeat(np.arange(len(self.clips)), [len(numbers) for numbers in self._runs])

    def compare(self, clip: int) -> None:
        """Compare the samples of a clip's parts with their checksums; see ``PackedAudio``."""
        for number in self._runs[clip]:
            self._packed.compare(number)


class AudioPart(PackedAudio):
    """A view of consecutive clips of a packed folder, or of a view of one."""

    def __init__(self, packed: PackedAudio, first: int, last: int) -> None:
        """Take the clips ``first`` to ``last - 1``; nothing is copied."""
        self.folder, self.index_file, self.sampling_rate = packed.folder, packed.index_file, packed.sampling_rate
        self._packed, self._first = packed, first
        clips = packed.clips[first:last]
        start, end = clips[0].start, clips[-1].start + clips[-1].frames
        self.samples = packed.samples[start:end]
        self.clips = [replace(clip, start=clip.start - start) for clip in clips]

    def compare(self, clip: int) -> None:
        """Compare the samples of a clip with their checksums; see ``PackedAudio``."""
        self._packed.compare(self._first + clip)
