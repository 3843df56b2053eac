"""The samples of a packed folder in one file or in several (shards), as one array.

A small split is ``audio.npy``. A large one is ``audio.0.npy``, ``audio.1.npy`` and so on, each of whole clips, because
file systems and copies handle files of some ten GB better than one of terabytes. Index, checksums and so the identity
of the audio do not depend on the number of files.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SINGLE, SEVERAL = "audio.npy", "audio.*.npy"


class Shards:
    """Consecutive parts of an array as one: arrays or tensors, (frames, channels) each.

    Attributes:
        parts: the parts.
        starts: first frame of each part, and the number of all frames.
        shape: shape of the whole.
        dtype: type of the samples.
        nbytes: size of the whole.
    """

    def __init__(self, parts: Sequence[np.ndarray] | Sequence[Tensor]) -> None:
        """Join parts; nothing is copied.

        Raises:
            ValueError: they differ in channels or type.
        """
        if len({(part.shape[1:], part.dtype) for part in parts}) != 1:
            raise ValueError("its shards differ in channels or type")
        self.parts, self.starts = list(parts), [0, *accumulate(len(part) for part in parts)]
        self.shape, self.dtype = (self.starts[-1], *parts[0].shape[1:]), parts[0].dtype
        self.nbytes = sum(part.nbytes for part in parts)

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, frames: slice) -> "np.ndarray | Tensor | Shards":
        """Return frames in order: a view of the part that holds them, or of several parts as ``Shards``."""
        first, last, _ = frames.indices(len(self))
        part = bisect_right(self.starts, first, hi=len(self.parts)) - 1
        found = [self.parts[part][first - self.starts[part] : last - self.starts[part]]]
        while last > self.starts[part + 1]:
            part += 1
            found.append(self.parts[part][: last - self.starts[part]])
        return found[0] if len(found) == 1 else Shards(found)


def files_of(folder: Path) -> list[Path]:
    """Return the files with the samples of a packed folder, in order."""
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    numbered = [path for path in folder.glob(SEVERAL) if path.name.split(".")[1].isdecimal()]
    return sorted(numbered, key=lambda path: int(path.name.split(".")[1])) or [folder / SINGLE]


def open_samples(folder: Path) -> np.ndarray | Shards:
    """Memory-map the samples of a packed folder, read-only.

    Raises:
        FileNotFoundError, ValueError, EOFError: a file is missing or damaged.
    """
    parts = [np.load(path, mmap_mode="r", allow_pickle=False) for path in files_of(folder)]
    return parts[0] if len(parts) == 1 else Shards(parts)


def bounds_of(samples: np.ndarray | Shards) -> list[int]:
    """Return the first frame of each file, and the number of all frames."""
    return samples.starts if isinstance(samples, Shards) else [0, len(samples)]


def plan(ends: Sequence[int], joined: Sequence[str], most: int) -> list[int]:
    """Divide clips among files of at most ``most`` frames, as far as clips allow; return as ``bounds_of``.

    Args:
        ends: the frame after each clip.
        joined: by clip, the longer clip that it is a part of, or empty; neighbours of one longer clip stay together.
        most: frames of a file.
    """
    bounds, breakable = [0], 0
    for number, end in enumerate(ends):
        if end - bounds[-1] > most and breakable > bounds[-1]:
            bounds.append(breakable)
        following = joined[number + 1] if number + 1 < len(joined) else ""
        if not joined[number] or joined[number] != following:
            breakable = end
    return [*bounds, ends[-1]]


def in_memory(samples: np.ndarray | Shards) -> np.ndarray:
    """Copy samples into one array."""
    return np.concatenate(samples.parts) if isinstance(samples, Shards) else np.array(samples)


def as_tensors(samples: np.ndarray | Shards) -> Tensor | Shards:
    """Return samples as a tensor, or as shards of tensors; nothing is copied."""
    if isinstance(samples, Shards):
        return Shards([torch.from_numpy(part) for part in samples.parts])
    return torch.from_numpy(samples)


def on_device(samples: Tensor | Shards, device: torch.device) -> Tensor:
    """Copy samples to a device, part by part, as one tensor."""
    if not isinstance(samples, Shards):
        return samples.to(device)
    whole = torch.empty(samples.shape, dtype=samples.dtype, device=device)
    for part, start in zip(samples.parts, samples.starts, strict=False):
        whole[start : start + len(part)].copy_(part)
    return whole
