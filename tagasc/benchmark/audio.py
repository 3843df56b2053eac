"""Speed of packing audio files, on noise."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import torch

from tagasc.audio.pack import Source, pack
from tagasc.benchmark.measure import Speed, measure
from tagasc.utils import provenance
from tagasc.utils.log import log

PACKED = "packing to int16"
_RATE, _CHANNELS, _FRAMES = 48000, 2, 480000
_FILES = 16


def measure_packing(folder: Path, clips: int, jobs: int, seconds: float) -> Iterator[Speed]:
    """Measure packing 24-bit 48-kHz stereo WAV files of 10 s to int16.

    Args:
        folder: empty folder for the noise and the packed audio.
        clips: number of clips, from at most 16 files.
        jobs: number of processes.
        seconds: duration of the measurement, seconds.
    """
    paths = _noise_files(folder, min(clips, _FILES))
    sources = [
        Source(str(n), str(paths[n % len(paths)]), 0, _FRAMES, _FRAMES, _CHANNELS, _RATE, ()) for n in range(clips)
    ]
    record = provenance.record("benchmark", {}, {})
    with _quiet():
        speed = measure(
            f"{PACKED}, in {jobs} process(es)",
            lambda: pack(sources, folder / "packed", record, jobs=jobs),
            clips,
            torch.device("cpu"),
            seconds,
        )
    yield speed


def _noise_files(folder: Path, count: int) -> list[Path]:
    random = np.random.default_rng(0)
    paths = [folder / f"{number}.wav" for number in range(count)]
    for path in paths:
        soundfile.write(path, random.uniform(-0.5, 0.5, (_FRAMES, _CHANNELS)), _RATE, subtype="PCM_24")
    return paths


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop the lines that ``pack`` logs at every call."""
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)
