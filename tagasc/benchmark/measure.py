"""Measures speed in clips a second, on noise."""

import json
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tagasc.audio.packed import FORMAT
from tagasc.utils.device import allow_tf32, release_memory


@dataclass(frozen=True)
class Speed:
    """A measured speed.

    Attributes:
        what: description of the work.
        clips_per_second: median over the calls.
        calls: number of timed calls.
        first: duration of the first call, seconds: it allocates, chooses algorithms, compiles and captures.
        memory: GPU memory reserved at most, bytes.
    """

    what: str
    clips_per_second: float
    calls: int
    first: float = 0.0
    memory: int = 0


def measure(what: str, work: Callable[[], object], clips: int, device: torch.device, seconds: float) -> Speed:
    """Time calls of ``work``, at least two, after a first one; a GPU is given a second to raise its clock.

    Args:
        what: description of the work.
        work: function that processes ``clips`` clips.
        clips: clips per call.
        device: device that ``work`` runs on.
        seconds: total duration of the calls, seconds.
    """
    gpu = device.type == "cuda"
    if gpu:
        release_memory()
        torch.cuda.reset_peak_memory_stats(device)

    def timed() -> float:
        if gpu:
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        work()
        if gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    first, warm = timed(), 0.0
    while gpu and warm < min(1.0, seconds):
        warm += timed()
    durations: list[float] = []
    while len(durations) < 2 or (sum(durations) < seconds and len(durations) < 10_000):
        durations.append(timed())
    memory = torch.cuda.max_memory_reserved(device) if gpu else 0
    return Speed(what, clips / float(np.median(durations)), len(durations), first, memory)


@contextmanager
def tf32() -> Iterator[None]:
    """Allow TF32 within the block, for what is measured as a reference."""
    allow_tf32(True)
    try:
        yield
    finally:
        allow_tf32(False)


def noise_folder(folder: Path, clips: int, seconds: float, rate: int, channels: int, labels: list[str]) -> Path:
    """Write a packed folder of white noise, int16; the clips take the labels in rotation."""
    frames = round(seconds * rate)
    folder.mkdir(parents=True)
    samples = np.random.default_rng(0).integers(-8000, 8000, (clips * frames, channels), dtype=np.int16)
    np.save(folder / "audio.npy", samples)
    rows = [
        {"id": f"clip{n}", "start": n * frames, "frames": frames, "labels": [labels[n % len(labels)]]}
        | {"location": "", "usage": "", "crc32": zlib.crc32(samples[n * frames : (n + 1) * frames])}
        for n in range(clips)
    ]
    index = {"format": FORMAT, "sampling_rate": rate, "channels": channels, "clips": rows}
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder
