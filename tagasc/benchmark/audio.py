"""How fast audio is packed, beside what decoding alone takes, on noise in place of clips."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import soundfile
import torch

from tagasc.audio.pack import Source, pack
from tagasc.benchmark.measure import Speed, measure
from tagasc.utils import provenance
from tagasc.utils.log import log
from tagasc.utils.processes import workers

PACKED = "packing to int16"
_RATE, _CHANNELS, _FRAMES = 48000, 2, 480000
_FILES = 16
_PER_JOB = 16


def measure_packing(folder: Path, clips: int, jobs: int, seconds: float) -> Iterator[Speed]:
    """Measure 24-bit 48-kHz stereo WAV files of 10 s: decoding alone, as float32 and as int16, and packing to int16.

    Packing reads float32, since int16 would be cut off, not rounded: the first speed is the bound of the second.

    Args:
        folder: an empty folder, for the noise and what is made of it.
        clips: number of clips, out of at most 16 files.
        jobs: number of processes.
        seconds: for each measurement.
    """
    paths = list(islice(cycle(_noise_files(folder, min(clips, _FILES))), clips))
    sources = [Source(str(n), str(path), 0, _FRAMES, _FRAMES, _CHANNELS, _RATE, ()) for n, path in enumerate(paths)]
    record = provenance.record("pack_speed", {}, {})

    def measured(what: str, work: Callable[[], None]) -> Speed:
        return measure(f"{what}, in {jobs} process(es)", work, clips, torch.device("cpu"), seconds)

    yield measured("decoding alone, as float32", lambda: _decode(paths, "float32", jobs))
    with _quiet():
        speed = measured(PACKED, lambda: pack(sources, folder / "packed", record, jobs=jobs))
    yield speed
    yield measured("decoding alone, as int16, cut off", lambda: _decode(paths, "int16", jobs))


def _noise_files(folder: Path, count: int) -> list[Path]:
    random = np.random.default_rng(0)
    paths = [folder / f"{number}.wav" for number in range(count)]
    for path in paths:
        soundfile.write(path, random.uniform(-0.5, 0.5, (_FRAMES, _CHANNELS)), _RATE, subtype="PCM_24")
    return paths


def _decode(paths: list[Path], dtype: str, jobs: int) -> None:
    chunks = [paths[at : at + _PER_JOB] for at in range(0, len(paths), _PER_JOB)]
    with workers(jobs) as pool:
        list(pool.map(_decode_chunk, chunks, [dtype] * len(chunks)))


def _decode_chunk(paths: list[Path], dtype: str) -> None:
    for path in paths:
        soundfile.SoundFile(path).read(dtype=dtype, always_2d=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines that ``pack`` logs at every call."""
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)
