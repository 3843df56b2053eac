"""Windows of packed audio, read from the GPU, pinned memory, or disk (memory-mapped), delivered on a device."""

import os
import re
import warnings
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tagasc.audio import shards
from tagasc.audio.packed import PackedAudio
from tagasc.audio.prefetch import DeviceBuffer, prefetch
from tagasc.audio.waveform import waveform
from tagasc.utils.device import one_line, to_device
from tagasc.utils.errors import UserError
from tagasc.utils.log import log

AudioCache = Literal["auto", "gpu", "pinned", "disk"]
GPU_SHARE = 0.5  # of the GPU's free memory; training needs the rest
MEMORY_SHARE = 0.5  # of the machine's available memory; the page cache needs some of the rest
_CGROUPS = Path("/sys/fs/cgroup")
AHEAD = 3  # batches in flight from host memory


class AudioStore:
    """Cuts windows out of one packed folder and delivers them on a device.

    Attributes:
        packed: the packed folder.
        device: device on which windows are delivered.
        storage: ``gpu``, ``pinned`` or ``disk``, which holds the samples.
        flat: samples, (all frames, channels); on disk perhaps in shards.
    """

    def __init__(self, packed: PackedAudio, device: torch.device, audio_cache: AudioCache = "auto") -> None:
        """Load the samples into their storage; ``auto`` takes the first of GPU, pinned memory and disk that works.

        Samples are compared with their checksums: all of them before they are loaded, and those on disk clip by clip
        when a window is first cut.

        Raises:
            UserError: the samples do not fit into the given storage, or are damaged, or there is no GPU.
        """
        self.packed, self.device, self._audio_cache = packed, device, audio_cache
        self._load(())

    def leave_gpu(self) -> str | None:
        """Move the samples off the GPU if they are there by ``auto``; return where they are then, in words, or None."""
        if self.storage != "gpu" or self._audio_cache != "auto":
            return None
        self._load(("gpu",))
        return _STORAGE_TEXT[self.storage]

    def _load(self, refused: tuple[str, ...]) -> None:
        """Load the samples into the first storage, but those that failed before."""
        size, name = self.packed.samples.nbytes, self.packed.folder.name
        self.storage, why = _choose_storage(size, self.device, self._audio_cache, refused)
        if self.device.type == "cuda":
            log.info("%s: %.1f GB %s (%s)", name, size / 1e9, _STORAGE_TEXT[self.storage], why)
        if self.storage != "disk":
            self.packed.compare_all()
        try:
            self.flat, self.starts, self.lengths = self._loaded()
        except (RuntimeError, MemoryError) as error:
            text = f"{name}: {size / 1e9:.1f} GB {_STORAGE_TEXT[self.storage]} failed: {one_line(error)}"
            if self._audio_cache != "auto":
                raise UserError(f"{text}; use --audio-cache auto") from None
            if self.storage == "disk":
                raise
        else:
            return
        log.warning("%s; continuing without", text)
        self._load((*refused, self.storage))

    def _loaded(self) -> tuple[Tensor | shards.Shards, Tensor, Tensor]:
        """Return samples, and first frame and length of each clip, in their storage."""
        target = self.device if self.storage == "gpu" else torch.device("cpu")
        if self.storage == "pinned":
            flat = _pinned(shards.in_memory(self.packed.samples))
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the samples are read-only, and nothing writes to them
                flat = shards.as_tensors(self.packed.samples)
        if self.storage == "gpu":
            flat = shards.on_device(flat, target)
        return flat, self.packed.starts.to(target), self.packed.lengths.to(target)

    def windows(self, clips: Tensor, starts: Tensor, frames: int) -> Tensor:
        """Cut windows of one length, which may reach past their clips' ends.

        Args:
            clips: int64 (batch,), positions in the packed folder.
            starts: int64 (batch,), each window's first frame within its clip; may be negative.
            frames: length of the windows.

        Returns:
            float32 (batch, frames, channels) in -1..1 on the device. Past its ends a clip is mirrored without
            repeating the edge sample ('reflect'), as a centred spectrogram needs; a clip of one sample repeats it.
        """
        if self.storage == "gpu":
            clips, starts = to_device(torch.stack([clips, starts]), self.device).unsqueeze(2)
            positions = _mirror(starts + torch.arange(frames, device=self.device), self.lengths[clips])
            return waveform(self.flat[self.starts[clips] + positions])
        cuts = zip(clips.tolist(), starts.tolist(), strict=True)
        return waveform(to_device(torch.stack([self._cut(clip, start, frames) for clip, start in cuts]), self.device))

    def _cut(self, clip: int, start: int, frames: int) -> Tensor:
        self.packed.compare(clip)
        first, length = int(self.starts[clip]), int(self.lengths[clip])
        if start >= 0 and start + frames <= length:
            return self.flat[first + start : first + start + frames]
        return self.flat[first : first + length][_mirror(torch.arange(start, start + frames), torch.tensor(length))]


class JoinedStore:
    """Several stores as one: the clips of the second follow those of the first. No audio is copied.

    Attributes:
        stores: the stores, in order.
        device: their device.
    """

    def __init__(self, stores: Sequence[AudioStore]) -> None:
        self.stores, self.device = tuple(stores), stores[0].device
        self._ends = torch.tensor([len(store.packed) for store in stores]).cumsum(0)

    @property
    def on_gpu(self) -> bool:
        """Whether all samples are on the GPU, so that windows are cut without synchronising with the CPU."""
        return all(store.storage == "gpu" for store in self.stores)

    def samples(self, clips: Tensor, starts: Tensor, frames: int) -> Tensor:
        """Cut windows of one length, each within its clip.

        Args:
            clips: int64 (batch,), positions, counted through all stores; on the device if ``on_gpu``.
            starts: int64 (batch,), each window's first frame within its clip; on the device of ``clips``.
            frames: length of the windows.

        Returns:
            (batch, frames, channels) as stored, on the device.
        """
        if self.on_gpu:
            return self._gathered(clips, starts, frames)
        store = self.stores[0]
        out = torch.empty(len(clips), frames, store.packed.channels, dtype=store.flat.dtype)
        self._copy(clips, starts, out)
        return out.to(self.device)

    def batches(self, clips: Tensor, starts: Tensor, frames: int) -> Iterator[Tensor]:
        """Yield batches of samples, as ``samples`` returns them.

        From host memory to a GPU the next batches are prefetched; a batch is valid until the next one is requested.

        Args:
            clips: int64 (batches, batch), on the CPU.
            starts: int64 (batches, batch), on the CPU.
            frames: length of the windows.
        """
        if self.on_gpu or self.device.type == "cpu":
            for row in zip(clips.to(self.device), starts.to(self.device), strict=True):
                yield self.samples(*row, frames)
            return
        first = self.stores[0]
        shape = (clips.shape[1], frames, first.packed.channels)
        staged = any(store.storage == "disk" for store in self.stores)
        buffers = [DeviceBuffer(shape, first.flat.dtype, self.device, staged) for _ in range(AHEAD)]
        yield from prefetch(lambda number, out: self._copy(clips[number], starts[number], out), len(clips), buffers)

    def _gathered(self, clips: Tensor, starts: Tensor, frames: int) -> Tensor:
        """Cut windows without data-dependent branches: every store cuts one per clip, and its own clips' are kept."""
        inside = torch.arange(frames, device=self.device)
        windows, first = None, 0
        for store in self.stores:
            own = (clips - first).clamp(0, len(store.packed) - 1)
            window = store.flat[(store.starts[own] + starts).unsqueeze(1) + inside]
            windows = window if windows is None else torch.where((clips >= first).reshape(-1, 1, 1), window, windows)
            first += len(store.packed)
        return windows

    def _copy(self, clips: Tensor, starts: Tensor, out: Tensor) -> None:
        stores = torch.bucketize(clips, self._ends, right=True).tolist()
        for row, (clip, start, number) in enumerate(zip(clips.tolist(), starts.tolist(), stores, strict=True)):
            store = self.stores[number]
            own = clip - (int(self._ends[number - 1]) if number else 0)
            store.packed.compare(own)
            first = int(store.packed.starts[own]) + start
            out[row].copy_(store.flat[first : first + out.shape[1]], non_blocking=True)


_STORAGE_TEXT = {"gpu": "on the GPU", "pinned": "in pinned memory", "disk": "read from disk"}


def _choose_storage(
    size: int, device: torch.device, audio_cache: AudioCache, refused: Sequence[str] = ()
) -> tuple[str, str]:
    """Return the storage for ``size`` bytes of samples, none of ``refused``, and the reason in words."""
    if device.type != "cuda":
        if audio_cache in ("gpu", "pinned"):
            raise UserError(
                f"--audio-cache {audio_cache} needs a GPU, but this runs on the CPU; use --audio-cache auto"
            )
        return "disk", "on the CPU"
    sharing = int(os.environ.get("TAGASC_PROCESSES", "1"))  # processes of this run, one per GPU
    free, memory = torch.cuda.mem_get_info(device)[0], _available_memory() // sharing
    room = {"gpu": free if audio_cache == "gpu" else GPU_SHARE * free, "disk": size}
    room["pinned"] = memory if audio_cache == "pinned" else MEMORY_SHARE * memory
    if audio_cache != "auto":
        if size > room[audio_cache]:
            raise UserError(
                f"--audio-cache {audio_cache}: the audio takes {size / 1e9:.1f} GB and {room[audio_cache] / 1e9:.1f} GB"
                " are free there; use --audio-cache auto"
            )
        return audio_cache, "as given"
    storage = next(name for name in ("gpu", "pinned", "disk") if size <= room[name] and name not in refused)
    return storage, f"free: {free / 1e9:.1f} GB on the GPU, {memory / 1e9:.1f} GB of memory"


def _available_memory() -> int:
    """Return the bytes available without swapping, at most the memory limit of the job or container."""
    meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    machine = int(re.search(r"MemAvailable:\s*(\d+)", meminfo)[1]) * 1024
    cgroup = re.search("^0::/(.*)$", Path("/proc/self/cgroup").read_text(encoding="utf-8"), re.MULTILINE)
    group = _CGROUPS / (cgroup[1] if cgroup else "")
    files = [folder / "memory.max" for folder in (group, *group.parents) if folder.is_relative_to(_CGROUPS)]
    limits = [file.read_text(encoding="ascii").strip() for file in files if file.exists()]
    return min([machine, *(int(limit) for limit in limits if limit != "max")])


def _pinned(samples: np.ndarray) -> Tensor:
    """Pin memory in place; torch's pinned allocator would round its size up to a power of two."""
    flat = torch.from_numpy(samples)
    cuda = torch.cuda.cudart()
    status = int(cuda.cudaHostRegister(flat.data_ptr(), samples.nbytes, 0))
    if status != 0:
        raise RuntimeError(f"the system refuses to pin it (CUDA error {status}; see ulimit -l)")
    # Unpin on release: a later store may get the same address.
    weakref.finalize(samples, cuda.cudaHostUnregister, flat.data_ptr()).atexit = False
    return flat


def _mirror(positions: Tensor, length: Tensor) -> Tensor:
    """Reflect positions outside 0..length-1 at the ends: a triangle wave of period 2·(length - 1)."""
    last = length - 1
    return last - (positions.remainder((2 * last).clamp(min=1)) - last).abs()
