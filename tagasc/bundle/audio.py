"""From any sound to windows in the form that a bundle's networks were trained on (its audio contract).

Files are read in blocks, so memory does not grow with their length.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tagasc.audio.decoding import open_audio
from tagasc.bundle.resampling import Resampler
from tagasc.utils.errors import UserError

_BLOCK = 2**18  # frames; large, since each matrix product wakes all threads of BLAS
_FULL_SCALE = 32768
_SLACK = 0.1  # share of a clip by which a recording may be longer or shorter and still be one clip, as in stage 1
_SILENT = 1e-4  # peak; -80 dB


@dataclass(frozen=True)
class Contract:
    """The sound that a bundle takes.

    Attributes:
        sampling_rate: sampling rate, Hz.
        channels: number of channels.
        frames: length of a clip, sample frames.
        sample_format: int16 if the networks were trained on samples rounded to 16 bits, or float32.
    """

    sampling_rate: int
    channels: int
    frames: int
    sample_format: str

    @property
    def seconds(self) -> float:
        """Length of a clip, s."""
        return self.frames / self.sampling_rate


@dataclass
class Sound:
    """A recording that is read in blocks.

    Attributes:
        name: path or title, for messages.
        rate: sampling rate, Hz.
        channels: number of channels.
        frames: length, sample frames.
        blocks: float32 (frames, channels) in -1..1, in order.
        notes: what was converted, in words; complete once all is read.
    """

    name: str
    rate: int
    channels: int
    frames: int
    blocks: Iterator[np.ndarray]
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Length, s."""
        return self.frames / self.rate


@contextmanager
def open_sound(path: str | Path) -> Iterator[Sound]:
    """Open an audio file of any format that libsndfile reads.

    Raises:
        UserError: the file is missing, empty or not audio; while reading, also if it ends too early.
    """
    if not os.path.exists(path):
        raise UserError(f"{path} does not exist; check the path")
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise UserError(f"{path} is an empty file; record or fetch it again")
    with open_audio(path) as (file, frames):
        yield Sound(str(path), file.samplerate, file.channels, frames, _file_blocks(file, frames, path))


def _file_blocks(file, frames: int, path: str | Path) -> Iterator[np.ndarray]:
    while frames > 0:
        block = file.read(min(frames, _BLOCK), dtype="float32", always_2d=True)
        if not len(block):
            raise UserError(f"{path} ends {frames} frames too early; it is truncated, fetch it again")
        frames -= len(block)
        yield block


def array_sound(samples: np.ndarray, rate: int, name: str = "samples") -> Sound:
    """Wrap samples, (frames,) or (frames, channels): floating point in -1..1, or int16.

    Raises:
        UserError: shape, type or rate is impossible.
    """
    samples = np.asarray(samples)
    samples = samples[:, None] if samples.ndim == 1 else samples
    if samples.ndim != 2 or not 1 <= samples.shape[1] <= 64:
        raise UserError(f"{name} have the shape {samples.shape}; give (frames,) or (frames, channels)")
    if samples.dtype != np.int16 and not np.issubdtype(samples.dtype, np.floating):
        raise UserError(f"{name} are {samples.dtype}; give floating point in -1..1, or int16")
    if not rate >= 1 or rate != int(rate):
        raise UserError(f"the sampling rate {rate} is not a whole number of Hz")
    scale = np.float32(1 / _FULL_SCALE if samples.dtype == np.int16 else 1)
    parts = range(0, len(samples), _BLOCK)
    blocks = (samples[start : start + _BLOCK].astype(np.float32) * scale for start in parts)
    return Sound(name, int(rate), samples.shape[1], len(samples), blocks)


def windows(sound: Sound, contract: Contract, hop: int) -> Iterator[tuple[int, np.ndarray]]:
    """Cut a recording into windows of the contract's length.

    A recording within 10 % of that length is one window, cut or followed by silence, as stage 1 does with clips. A
    shorter one is repeated. A longer one gives a window every ``hop`` frames, and a last one that ends with it.

    Args:
        sound: the recording.
        contract: the form of the windows.
        hop: distance of windows, in sample frames of the contract.

    Yields:
        first frame, and samples, float32 (frames, channels).

    Raises:
        UserError: the recording is empty, or has samples that are not finite.
    """
    resampler = Resampler(sound.rate, contract.sampling_rate)
    length, frames = resampler.length(sound.frames), contract.frames
    if length == 0:
        raise UserError(f"{sound.name}: it holds no sound; record or fetch it again")
    _note_conversion(sound, contract)
    starts = _starts(length, frames, hop)
    _note_length(sound, contract, length, len(starts))
    peak, buffer, first = 0.0, np.zeros((0, contract.channels), np.float32), 0
    stream = _converted(sound, contract, resampler)
    for start in starts:
        while first + len(buffer) < min(start + frames, length):
            block = next(stream)
            peak = max(peak, float(np.abs(block).max(initial=0)))
            buffer = np.concatenate([buffer, block])
        buffer, first = buffer[start - first :], start
        if start == starts[-1] and peak < _SILENT:
            sound.notes.append("silent, so the answer means nothing")
        yield start, _fitted(buffer[:frames], frames)
    for _ in stream:  # what remains may be truncated
        pass


def _starts(length: int, frames: int, hop: int) -> list[int]:
    if length <= (1 + _SLACK) * frames:
        return [0]
    starts = list(range(0, length - frames + 1, hop))
    return starts + [length - frames] if starts[-1] + frames < length else starts


def _fitted(wave: np.ndarray, frames: int) -> np.ndarray:
    """Bring a window to the contract's length: silence after it, or repetition; see ``windows``."""
    if len(wave) >= (1 - _SLACK) * frames:
        return np.concatenate([wave, np.zeros((frames - len(wave), wave.shape[1]), np.float32)])
    return np.tile(wave, (-(-frames // len(wave)), 1))[:frames]


def _converted(sound: Sound, contract: Contract, resampler: Resampler) -> Iterator[np.ndarray]:
    clipped = 0
    for block in sound.blocks:
        if not np.isfinite(block).all():
            raise UserError(f"{sound.name}: it holds samples that are not finite; fetch it again or leave it out")
        mixed = block.shape[1] != contract.channels
        yield _stored(resampler.feed(block.mean(axis=1, dtype=np.float32, keepdims=True) if mixed else block), contract)
        clipped += int((np.abs(block) > 1).sum())
    if sound.rate != contract.sampling_rate:
        yield _stored(resampler.flush(), contract)
    if clipped:
        sound.notes.append(f"{clipped} samples beyond full scale")


def _stored(wave: np.ndarray, contract: Contract) -> np.ndarray:
    """Copy one channel into all, and round as packed audio does (``tagasc.audio.pack.quantise``)."""
    wave = np.repeat(wave, contract.channels // wave.shape[1], axis=1)
    if contract.sample_format != "int16":
        return wave
    rounded = np.clip(np.rint(wave * np.float32(_FULL_SCALE)), -_FULL_SCALE, _FULL_SCALE - 1)
    return rounded.astype(np.float32) / np.float32(_FULL_SCALE)


def _note_conversion(sound: Sound, contract: Contract) -> None:
    if sound.rate != contract.sampling_rate:
        sound.notes.append(f"resampled from {sound.rate} to {contract.sampling_rate} Hz")
    if sound.channels != contract.channels:
        into = "one" if contract.channels == 1 else f"{contract.channels}"
        how = "mean of" if sound.channels > 1 else "copied from"
        sound.notes.append(f"{into} channel{'s' * (contract.channels > 1)} {how} {sound.channels}")


def _note_length(sound: Sound, contract: Contract, length: int, count: int) -> None:
    shown = f"{sound.seconds:.3g} s"
    if count == 1 and length > contract.frames:
        sound.notes.append(f"{shown} cut to {contract.seconds:g} s")
    elif length < (1 - _SLACK) * contract.frames:
        times = contract.frames / length
        sound.notes.append(f"{shown} repeated {times:.1f} times to fill {contract.seconds:g} s; less reliable")
    elif length < contract.frames:
        sound.notes.append(f"{shown} filled with silence to {contract.seconds:g} s")
