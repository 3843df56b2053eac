"""Packed audio: every clip of a split, decoded once into one flat array that training memory-maps.

A packed folder holds ``audio.npy``, an array (frames, channels), interleaved as in a WAV file, and ``index.json``:
sampling rate and, for each clip in order, id, first frame, number of frames, labels, location and a checksum of its
samples. Because of the checksums, the hash of the index serves as the hash of the audio.

int16 samples are ``round(x · 32768)``, ties to even, clipped to ±full scale, for x in -1..1. 24-bit audio is rounded
to 16 bits, not truncated. ``levels.json`` describes level, clipping and rounding error of the clips.

``tagasc.audio.pack`` writes packed folders.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tagasc.utils.errors import UserError
from tagasc.utils.files import read_json

FORMAT = 1
FULL_SCALE = 32768
PACKED_FILES = ("audio.npy", "index.json", "levels.json", "done.jsonl", "provenance.json")


@dataclass(frozen=True)
class Clip:
    """One clip of a packed folder; ``start`` and ``frames`` count sample frames of ``audio.npy``."""

    id: str
    start: int
    frames: int
    labels: tuple[str, ...]
    location: str
    usage: str
    crc32: int


def packed_splits(audio: Path, corpus: str) -> dict[str, Path]:
    """Find a corpus's packed folders in ``audio``, ``<corpus>_<split>``; return them by split, alphabetically.

    Stage 2 allows no ``_`` in a split's name, so ``cafe_events_test`` belongs to ``cafe_events``, not to ``cafe``.
    """
    folders = sorted(index.parent for index in audio.glob("*_*/index.json"))
    names = ((*folder.name.rsplit("_", 1), folder) for folder in folders)
    return {split: folder for name, split, folder in names if name == corpus}


class PackedAudio:
    """A packed folder, memory-mapped.

    Attributes:
        folder: path of the folder.
        samples: array (all frames, channels), int16 or float32, read-only.
        sampling_rate: sampling rate, Hz.
        clips: clips in the order of ``samples``.
    """

    def __init__(self, folder: Path) -> None:
        """Open a packed folder.

        Raises:
            UserError: the folder is missing or incomplete, or index and samples disagree.
        """
        self.folder = folder
        self.index_file = folder / "index.json"
        index = read_json(self.index_file, "stage 2 (pack)")
        try:
            if index["format"] != FORMAT:
                raise UserError(
                    f"{self.index_file} has format {index['format']}, not {FORMAT}; run stage 2 (pack) with --force"
                )
            self.sampling_rate: int = index["sampling_rate"]
            self.clips = [Clip(**{**clip, "labels": tuple(clip["labels"])}) for clip in index["clips"]]
            ends = accumulate((clip.frames for clip in self.clips), initial=0)
            if any(clip.frames < 0 or clip.start != end for clip, end in zip(self.clips, ends, strict=False)):
                raise ValueError("a clip in index.json does not begin where the one before it ends")
            self.samples = np.load(folder / "audio.npy", mmap_mode="r", allow_pickle=False)
        except (KeyError, TypeError, ValueError, FileNotFoundError) as error:
            raise UserError(f"{folder} is incomplete ({error}); run stage 2 (pack) with --force") from None
        end = self.clips[-1].start + self.clips[-1].frames if self.clips else 0
        if self.samples.shape != (end, index["channels"]):
            raise UserError(f"{folder}: audio.npy does not fit index.json; run stage 2 (pack) with --force")

    def __len__(self) -> int:
        return len(self.clips)

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
