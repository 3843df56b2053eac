"""A recording's spectrogram as a PNG picture, with NumPy and zlib alone, in bounded memory."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tagasc.audio.decoding import open_audio

COLUMNS, BANDS = 900, 96
_FRAMES_A_COLUMN = 6  # at most, averaged
_RANGE = 70.0  # dB
_LOWEST = 40.0  # Hz
_INFERNO = ((0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21), (250, 193, 39),
            (252, 255, 164))  # fmt: skip


def spectrogram(path: str | Path) -> tuple[np.ndarray, float]:
    """Compute the mel spectrogram of a recording's mean channel.

    Returns:
        dB below the maximum, float32 (bands, columns), lowest band first; highest frequency, Hz.
    """
    with open_audio(path) as (file, frames):
        rate = file.samplerate
        size = 2 ** round(np.log2(0.04 * rate))
        columns = int(min(COLUMNS, max(1, frames // (size // 8))))
        each = int(np.clip(frames // columns // size, 1, _FRAMES_A_COLUMN))
        centres = ((np.arange(columns * each) + 0.5) * frames / (columns * each)).astype(np.int64)
        window = np.hanning(size).astype(np.float32)
        power = np.array([np.abs(np.fft.rfft(part * window)) ** 2 for part in _parts(file, centres, size)])
    power = power.reshape(columns, each, -1).mean(axis=1)
    level = 10 * np.log10((power @ _bank(size, rate).T).T + 1e-12)
    return (level - level.max()).astype(np.float32), rate / 2


def _parts(file, centres: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield the samples around each centre, zeros beyond the ends; the file is read once."""
    buffer, first = np.zeros(size // 2, np.float32), -(size // 2)
    for start in centres - size // 2:
        while first + len(buffer) < start + size:
            block = file.read(2**15, dtype="float32", always_2d=True).mean(axis=1)
            if not len(block):
                block = np.zeros(size, np.float32)
            buffer = np.concatenate([buffer[max(0, start - first) :], block])
            first = max(first, start)
        yield buffer[start - first :][:size]


def mel(frequency: np.ndarray | float) -> np.ndarray | float:
    """Return a frequency in Hz on the mel scale."""
    return 2595 * np.log10(1 + np.asarray(frequency) / 700)


def position(frequency: float, highest: float) -> float:
    """Return where a frequency in Hz lies between the lowest and the highest band, 0 to 1."""
    low, high = mel(_LOWEST), mel(highest)
    return float((mel(frequency) - low) / (high - low))


def _bank(size: int, rate: int) -> np.ndarray:
    edges = np.linspace(mel(_LOWEST), mel(rate / 2), BANDS + 2)
    bins = mel(np.fft.rfftfreq(size, 1 / rate))
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    bank = np.clip(np.minimum(rising, falling), 0, None)
    empty = bank.sum(axis=1) == 0  # a band between two bins takes the nearest
    nearest = np.abs(bins - edges[1:-1, None]).argmin(axis=1)
    bank[empty, nearest[empty]] = 1
    return bank / bank.sum(axis=1, keepdims=True)


def png(level: np.ndarray) -> bytes:
    """Draw dB below the maximum, (bands, columns), as an indexed PNG, the highest band on top."""
    index = np.rint(255 * np.clip(1 + level[::-1] / _RANGE, 0, 1)).astype(np.uint8)
    anchors = np.linspace(0, 255, len(_INFERNO))
    palette = np.stack([np.interp(np.arange(256), anchors, channel) for channel in zip(*_INFERNO, strict=True)], axis=1)
    rows = np.concatenate([np.zeros((len(index), 1), np.uint8), index], axis=1)  # 0: no filter
    header = struct.pack(">IIBBBBB", index.shape[1], index.shape[0], 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", palette.round().astype(np.uint8).tobytes()),
              (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))  # fmt: skip
    parts = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
             for kind, data in chunks)  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
