"""Measures speed in clips a second, on noise."""

import json
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tagasc.audio.packed import FORMAT


@dataclass(frozen=True)
class Speed:
    """A measured speed.

    Attributes:
        what: description of the work.
        clips_per_second: median over the calls.
        calls: number of timed calls.
    """

    what: str
    clips_per_second: float
    calls: int


def measure(what: str, work: Callable[[], object], clips: int, device: torch.device, seconds: float) -> Speed:
    """Time calls of ``work``, at least two.

    A first call is not timed, since it allocates, chooses algorithms and compiles.

    Args:
        what: description of the work.
        work: function that processes ``clips`` clips.
        clips: clips per call.
        device: device that ``work`` runs on.
        seconds: total duration of the calls, seconds.
    """
    durations: list[float] = []
    for call in range(-1, 10_000):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if call >= 0:
            durations.append(time.perf_counter() - began)
        if len(durations) >= 2 and sum(durations) >= seconds:
            break
    return Speed(what, clips / float(np.median(durations)), len(durations))


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
