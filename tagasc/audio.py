"""Reads packed audio (``tagasc.packed``) without copying it, and makes waveforms of its samples."""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tagasc.errors import UserError
from tagasc.files import read_json
from tagasc.packed import FORMAT, FULL_SCALE, Clip


class PackedAudio:
    """A packed folder, memory-mapped.

    Attributes:
        folder: where it lies.
        samples: array (all frames, channels), int16 or float32, read-only.
        sampling_rate: in Hz.
        clips: the clips in the order of ``samples``.
    """

    def __init__(self, folder: Path) -> None:
        """Open ``folder``.

        Raises:
            UserError: it does not exist, or index and samples do not agree.
        """
        self.folder = folder
        self.index_file = folder / "index.json"
        index = read_json(self.index_file, "stage 2 (pack)")
        try:
            if index["format"] != FORMAT:
                raise UserError(
                    f"{self.index_file} has format {index['format']}, not {FORMAT}; pack again with --force"
                )
            self.sampling_rate: int = index["sampling_rate"]
            self.clips = [Clip(**{**clip, "labels": tuple(clip["labels"])}) for clip in index["clips"]]
            self.samples = np.load(folder / "audio.npy", mmap_mode="r", allow_pickle=False)
        except (KeyError, TypeError, ValueError, FileNotFoundError) as error:
            raise UserError(f"{folder} is not whole ({error}); run stage 2 (pack) with --force") from None
        end = self.clips[-1].start + self.clips[-1].frames if self.clips else 0
        if self.samples.shape != (end, index["channels"]):
            raise UserError(f"{folder}: audio.npy does not fit index.json; run stage 2 (pack) with --force")

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def channels(self) -> int:
        """Channels of every clip."""
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
        """The number of frames that every clip has.

        Raises:
            UserError: the clips differ in length.
        """
        lengths = sorted({clip.frames for clip in self.clips})
        if len(lengths) != 1:
            found = f"{lengths[0]} to {lengths[-1]} frames" if lengths else "no clips"
            raise UserError(f"{self.folder} holds {found}, but scene clips need one length; pack with --seconds")
        return lengths[0]


def waveform(samples: Tensor) -> Tensor:
    """Stored samples as floating point in -1..1: int16 as float32 in units of full scale, floating point as it is."""
    return samples.float() / FULL_SCALE if samples.dtype == torch.int16 else samples


def preemphasis(wave: Tensor, coefficient: float = 0.97, scale: float = 32000.0) -> Tensor:
    """x[t] - coefficient · x[t-1] per channel, the first sample dropped, times ``scale`` (released code of [21]).

    Args:
        wave: (batch, frames, channels).
        coefficient: of the sample before.
        scale: of the result.

    Returns:
        (batch, frames - 1, channels); 480,000 frames give the paper's (479999, 2) (Table 1).
    """
    return torch.sub(wave[:, 1:], wave[:, :-1], alpha=coefficient) * scale
