"""Clips of any length for a tagger that takes windows of one length; the same for all outside sources.

A clip shorter than the window is repeated until it fills the window, or followed by silence. One within 10 % below the
window is followed by silence in any case, as taggers are trained so. A longer clip is cut into windows that follow
each other, the last of which ends with the clip, so no sample is left out; the mean of their values is taken, or the
maximum.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

ShortClips = Literal["repeat", "pad"]
LongClips = Literal["mean", "max"]
_SLACK = 0.1  # share of the window that a clip may lack and still be followed by silence


@dataclass(frozen=True)
class Windows:
    """How clips become windows.

    Attributes:
        samples: length of a window at the tagger's rate; None: the tagger takes clips of any length.
        rate: the tagger's sampling rate, Hz.
        short: what is done with a shorter clip.
        long: what is taken over the windows of a longer clip.
        padded_by_tagger: whether the tagger itself appends silence, in its own way; then it gets the clip unpadded.
    """

    samples: int | None
    rate: int
    short: ShortClips = "repeat"
    long: LongClips = "mean"
    padded_by_tagger: bool = False

    def treatment(self, length: int) -> str:
        """Return what is done with a clip of ``length`` samples: whole, padded, repeated, or windows."""
        if self.samples is None or length == self.samples:
            return "whole"
        if length > self.samples:
            return "windows"
        nearly_full = length >= (1 - _SLACK) * self.samples
        return "padded" if nearly_full or self.short == "pad" else "repeated"

    def cut(self, waves: Tensor) -> tuple[Tensor, int]:
        """Cut clips of one length into windows.

        Args:
            waves: (clips, samples).

        Returns:
            windows, (clips · n, window), those of the first clip first, and n.
        """
        clips, length = waves.shape
        match self.treatment(length):
            case "padded" if not self.padded_by_tagger:
                waves = F.pad(waves, (0, self.samples - length))
            case "repeated":
                waves = waves.repeat(1, -(-self.samples // length))[:, : self.samples]
            case "windows":
                starts = [*range(0, length - self.samples, self.samples), length - self.samples]
                parts = [waves[:, start : start + self.samples] for start in starts]
                return torch.stack(parts, dim=1).reshape(clips * len(starts), self.samples), len(starts)
        return waves, 1

    def join(self, values: Tensor, count: int) -> Tensor:
        """Combine the values of windows, (clips · count, classes), into those of clips, (clips, classes)."""
        by_clip = values.reshape(-1, count, values.shape[1])
        return by_clip.amax(dim=1) if self.long == "max" else by_clip.mean(dim=1)

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        seconds = None if self.samples is None else round(self.samples / self.rate, 6)
        return {"sampling_rate": self.rate, "window_seconds": seconds, "short": self.short, "long": self.long}
