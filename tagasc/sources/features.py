"""Spectrograms that published taggers take: Kaldi's filter bank, CED's mel spectrogram, and any described log-mel."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchaudio.compliance import kaldi
from torchaudio.transforms import MelSpectrogram

from tagasc.utils.errors import SettingError

Features = Callable[[Tensor], Tensor]  # (windows, samples) → (windows, bands, frames)
KALDI_RATE = 16000  # of both Kaldi forms, Hz
_SHIFT, _LENGTH = 160, 512  # samples: 10 ms, 32 ms


@dataclass(frozen=True)
class LogMel:
    """A log-mel spectrogram.

    Args:
        n_fft: length of the transform, samples.
        hop: distance of frames, samples.
        mels: number of bands.
        low: lowest frequency, Hz.
        high: highest frequency, Hz.
        window: length of the periodic Hann window, samples; 0: ``n_fft``.
        centred: whether the first frame is centred on the first sample, with the clip mirrored at its ends.
        power: 2 for power, 1 for magnitude.
        scale: mel scale.
        norm: ``slaney``: each band has the same area; ``none``: each has the height 1.
        log: natural, base 10, or decibels (10 times base 10).
        floor: least value before the logarithm.
        offset: added before the logarithm.
        range: keep at most this much below the maximum of each window, in units of the result; 0: keep all.
        mean: subtracted from the result.
        deviation: the result is divided by it.
    """

    n_fft: int
    hop: int
    mels: int
    low: float
    high: float
    window: int = 0
    centred: bool = True
    power: float = 2.0
    scale: Literal["htk", "slaney"] = "htk"
    norm: Literal["none", "slaney"] = "none"
    log: Literal["ln", "log10", "db"] = "ln"
    floor: float = 1e-10
    offset: float = 0.0
    range: float = 0.0
    mean: float = 0.0
    deviation: float = 1.0

    def __post_init__(self) -> None:
        if min(self.n_fft, self.hop, self.mels) < 1 or not 0 <= self.window <= self.n_fft:
            raise SettingError("n_fft, hop and mels must be positive, and window at most n_fft")
        if not 0 <= self.low < self.high or not self.deviation > 0 or not self.floor > 0:
            raise SettingError("low must be at least 0 and below high; floor and deviation must be above 0")


def log_mel(config: LogMel, rate: int, device: torch.device) -> Features:
    """Return a function that computes the described spectrogram of waves at ``rate`` Hz.

    Raises:
        SettingError: the bands reach beyond half the rate.
    """
    if config.high > rate / 2:
        raise SettingError(f"high: {config.high:g} Hz is beyond half of the sampling rate, {rate} Hz")
    spectrogram = MelSpectrogram(
        rate, config.n_fft, config.window or config.n_fft, config.hop, config.low, config.high, n_mels=config.mels,
        power=config.power, center=config.centred, pad_mode="reflect", mel_scale=config.scale,
        norm=None if config.norm == "none" else config.norm,
    ).to(device)  # fmt: skip

    def compute(waves: Tensor) -> Tensor:
        value = (spectrogram(waves) + config.offset).clamp(min=config.floor)
        value = value.log() if config.log == "ln" else value.log10() * (10 if config.log == "db" else 1)
        if config.range:
            value = torch.maximum(value, value.amax(dim=(1, 2), keepdim=True) - config.range)
        return (value - config.mean) / config.deviation

    return compute


def kaldi_fbank80(waves: Tensor) -> Tensor:
    """Compute Kaldi's log filter bank as icefall's zipformers take it: (windows, samples) → (windows, 80, frames).

    25-ms Povey windows every 10 ms, 80 bands from 20 Hz to 400 Hz below half the rate, no dither, samples in -1..1.
    """
    options = {"num_mel_bins": 80, "high_freq": -400.0, "snip_edges": False, "dither": 0.0}
    rows = [kaldi.fbank(wave.unsqueeze(0), sample_frequency=float(KALDI_RATE), **options) for wave in waves]
    return torch.stack(rows).transpose(1, 2)


def mel64db(waves: Tensor) -> Tensor:
    """Compute CED's mel spectrogram in Kaldi's form, as sherpa-onnx does: (windows, samples) → (windows, 64, frames).

    32-ms periodic Hann windows every 10 ms, the clip mirrored at its ends, 64 of Kaldi's bands from 0 to 8 kHz, power
    in dB, at least -100 and at most 120 below the maximum of the window, or below 0 dB if the maximum is less.
    """
    before = _LENGTH // 2 - _SHIFT // 2
    frames = (waves.shape[1] + _SHIFT // 2) // _SHIFT
    after = (frames - 1) * _SHIFT + _LENGTH - before - waves.shape[1]
    if frames < 1 or max(before, after) > waves.shape[1]:
        raise ValueError(f"{waves.shape[1]} samples are too few for a frame")
    mirrored = waves.flip(1)  # repeats the first and the last sample
    padded = torch.cat([mirrored[:, -before:], waves, mirrored[:, : max(after, 0)]], dim=1)
    window = torch.hann_window(_LENGTH, device=waves.device)
    power = torch.fft.rfft(padded.unfold(1, _LENGTH, _SHIFT)[:, :frames] * window).abs().square()
    bank, _ = kaldi.get_mel_banks(64, _LENGTH, float(KALDI_RATE), 0.0, 8000.0, 100.0, -500.0, 1.0)
    energy = power[:, :, : _LENGTH // 2] @ bank.to(waves).T  # Kaldi leaves out the highest bin
    level = 10 * energy.clamp(min=1e-10).log10()
    top = level.amax(dim=(1, 2), keepdim=True).clamp(min=0)
    return torch.maximum(level, top - 120).transpose(1, 2)
