"""From stored samples to the wave that a network takes: scaling, pre-emphasis, channels, sampling rate."""

import torch
from torch import Tensor, nn
from torchaudio.transforms import Resample

from tagasc.audio.packed import FULL_SCALE
from tagasc.utils.device import full_precision


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


class ToMono(nn.Module):
    """Mean of the channels, resampled."""

    def __init__(self, sampling_rate: int, wanted: int) -> None:
        """Args: sampling rates in Hz, of what is given and of what is to come."""
        super().__init__()
        self.resample = Resample(sampling_rate, wanted)

    def forward(self, wave: Tensor) -> Tensor:
        """(batch, frames, channels) → (batch, samples)."""
        with full_precision():
            return self.resample(wave.mean(dim=2))
