"""Waveforms of stored samples: scaling, pre-emphasis, mono, resampling."""

import torch
from torch import Tensor, nn
from torchaudio.transforms import Resample

from tagasc.audio.packed import FULL_SCALE


def waveform(samples: Tensor) -> Tensor:
    """Return stored samples in -1..1: int16 as float32 in units of full scale, floating point unchanged."""
    return samples.float().div_(FULL_SCALE) if samples.dtype == torch.int16 else samples


def preemphasis(wave: Tensor, coefficient: float = 0.97, scale: float = 32000.0) -> Tensor:
    """Compute scale · (x[t] - coefficient · x[t-1]) per channel, without the first sample (released code of [21]).

    Args:
        wave: (batch, frames, channels).
        coefficient: weight of the previous sample.
        scale: factor on the result.

    Returns:
        (batch, frames - 1, channels); 480,000 frames give the paper's (479999, 2) (Table 1).
    """
    return torch.sub(wave[:, 1:], wave[:, :-1], alpha=coefficient).mul_(scale)


class ToMono(nn.Module):
    """Mean over the channels, resampled."""

    def __init__(self, sampling_rate: int, wanted: int) -> None:
        """Prepare the resampling.

        Args:
            sampling_rate: input rate, Hz.
            wanted: output rate, Hz.
        """
        super().__init__()
        self.resample = Resample(sampling_rate, wanted)

    def forward(self, wave: Tensor) -> Tensor:
        """Map (batch, frames, channels) to (batch, samples)."""
        return self.resample(wave.mean(dim=2))
