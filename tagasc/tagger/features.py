"""Log-mel spectrograms of the tagger, computed on the device (Akiyama & Sato [13])."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from tagasc.utils.errors import SettingError


@dataclass(frozen=True)
class MelConfig:
    """Settings of the spectrogram. The defaults are the published ones, for 44.1 kHz.

    Args:
        sampling_rate: sampling rate of the audio, in Hz.
        n_fft: length of the periodic Hann window, in samples.
        hop: distance between frames, in samples.
        mels: number of mel bands (Slaney scale, area-normalised).
        low: lowest frequency, in Hz.
        high: highest frequency, in Hz.
    """

    sampling_rate: int = 44100
    n_fft: int = 2560
    hop: int = 347
    mels: int = 128
    low: float = 20.0
    high: float = 22050.0

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= self.sampling_rate / 2:
            raise SettingError(f"low and high must lie in 0..{self.sampling_rate / 2:g} Hz, low below high")
        if min(self.n_fft, self.hop, self.mels) < 1:
            raise SettingError("n_fft, hop and mels must be positive")

    def frames(self, samples: Tensor) -> Tensor:
        """Return the number of centred frames of clips of ``samples`` samples, an integer tensor of any shape."""
        return samples // self.hop + 1

    def samples(self, frames: int) -> int:
        """Return the number of samples under ``frames`` frames, including half a window at both ends."""
        return (frames - 1) * self.hop + self.n_fft


class MelPower(nn.Module):
    """Waveform to mel power spectrogram, without padding."""

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        self.config = config
        bank = melscale_fbanks(
            config.n_fft // 2 + 1, config.low, config.high, config.mels, config.sampling_rate, "slaney", "slaney"
        )
        self.register_buffer("bank", bank.T.contiguous(), persistent=False)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """Compute (batch, samples) → (batch, mels, 1 + (samples - n_fft) // hop), in float32 even under autocast."""
        with torch.autocast(wave.device.type, enabled=False):
            spectrum = torch.stft(
                wave.float(), self.config.n_fft, self.config.hop, window=self.window, center=False, return_complex=True
            )
            power = spectrum.real.square() + spectrum.imag.square()
            return self.bank @ power


def to_decibels(power: Tensor) -> Tensor:
    """Convert power (batch, mels, frames) to dB: reference 1, floor 1e-10, range 80 dB below each clip's maximum."""
    level = 10 * power.clamp(min=1e-10).log10()
    return torch.maximum(level, level.amax(dim=(1, 2), keepdim=True) - 80)


def normalise(level: Tensor) -> Tensor:
    """Normalise each clip to mean 0 and standard deviation 1 (+ 1e-7) over its mels and frames."""
    centred = level - level.mean(dim=(1, 2), keepdim=True)
    return centred / (centred.square().mean(dim=(1, 2), keepdim=True).sqrt() + 1e-7)


def reflect(wave: Tensor, config: MelConfig) -> Tensor:
    """Mirror (batch, samples) by half a window at both ends, so that frames are centred (``pad_mode='reflect'``).

    A clip shorter than half a window is mirrored repeatedly.
    """
    half = config.n_fft // 2
    while half > 0:
        step = min(half, wave.shape[1] - 1)
        if step == 0:
            return F.pad(wave, (half, half), mode="replicate")
        wave = F.pad(wave, (step, step), mode="reflect")
        half -= step
    return wave
