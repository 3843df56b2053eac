"""Reads packed audio (``tagasc.packed``) without copying it, and delivers windows of it on a device."""

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tagasc.console import log
from tagasc.errors import UserError
from tagasc.files import read_json
from tagasc.packed import FORMAT, FULL_SCALE, Clip


class PackedAudio:
    """A packed folder, memory-mapped.

    Attributes:
        folder: where it lies.
        samples: array (all frames, channels), int16 or float32, read-only.
        sampling_rate: in Hz.
        clips: the clips in the order of ``samples``.
    """

    def __init__(self, folder: Path) -> None:
        """Open ``folder``.

        Raises:
            UserError: it does not exist, or index and samples do not agree.
        """
        self.folder = folder
        self.index_file = folder / "index.json"
        index = read_json(self.index_file, "stage 2 (pack)")
        try:
            if index["format"] != FORMAT:
                raise UserError(
                    f"{self.index_file} has format {index['format']}, not {FORMAT}; pack again with --force"
                )
            self.sampling_rate: int = index["sampling_rate"]
            self.clips = [Clip(**{**clip, "labels": tuple(clip["labels"])}) for clip in index["clips"]]
            self.samples = np.load(folder / "audio.npy", mmap_mode="r", allow_pickle=False)
        except (KeyError, TypeError, ValueError, FileNotFoundError) as error:
            raise UserError(f"{folder} is not whole ({error}); run stage 2 (pack) with --force") from None
        end = self.clips[-1].start + self.clips[-1].frames if self.clips else 0
        if self.samples.shape != (end, index["channels"]):
            raise UserError(f"{folder}: audio.npy does not fit index.json; run stage 2 (pack) with --force")

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def channels(self) -> int:
        """Channels of every clip."""
        return self.samples.shape[1]

    @cached_property
    def ids(self) -> list[str]:
        """Clip ids in order."""
        return [clip.id for clip in self.clips]

    @cached_property
    def starts(self) -> Tensor:
        """First frame of each clip, int64."""
        return torch.tensor([clip.start for clip in self.clips], dtype=torch.int64)

    @cached_property
    def lengths(self) -> Tensor:
        """Frames of each clip, int64."""
        return torch.tensor([clip.frames for clip in self.clips], dtype=torch.int64)

    def one_length(self) -> int:
        """The number of frames that every clip has.

        Raises:
            UserError: the clips differ in length.
        """
        lengths = sorted({clip.frames for clip in self.clips})
        if len(lengths) != 1:
            found = f"{lengths[0]} to {lengths[-1]} frames" if lengths else "no clips"
            raise UserError(f"{self.folder} holds {found}, but scene clips need one length; pack with --seconds")
        return lengths[0]


class AudioStore:
    """Cuts windows out of packed audio and delivers them on a device.

    On a GPU the whole data set is kept in its memory if it takes at most ``share`` of what is free; else, and on the
    CPU, windows come from the memory-mapped file.
    """

    def __init__(self, packed: PackedAudio, device: torch.device, share: float = 0.7) -> None:
        self.packed = packed
        self.device = device
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the samples are read-only, and nothing writes to them
            self.flat = torch.from_numpy(packed.samples)
        size = packed.samples.nbytes
        self.resident = device.type == "cuda" and size <= share * torch.cuda.mem_get_info(device)[0]
        if device.type == "cuda" and not self.resident:
            log.info("%s: %.1f GB do not fit on the GPU and are read from disk", packed.folder.name, size / 1e9)
        home = device if self.resident else torch.device("cpu")
        self.flat, self.starts, self.lengths = (x.to(home) for x in (self.flat, packed.starts, packed.lengths))
        self.full_scale = FULL_SCALE if packed.samples.dtype == np.int16 else 1

    def windows(self, clips: Tensor, starts: Tensor, frames: int) -> Tensor:
        """Cut equally long windows.

        Args:
            clips: int64 (batch,), positions in the packed folder.
            starts: int64 (batch,), each window's first frame within its clip; may be negative.
            frames: length of the windows.

        Returns:
            float32 (batch, frames, channels) in -1..1 on the device. Where a window reaches past its clip's ends the
            clip is mirrored there, edge sample not repeated ('reflect'), as a centred spectrogram needs it; a clip of
            one sample repeats it.
        """
        if self.resident:
            clips, starts = clips.to(self.device).unsqueeze(1), starts.to(self.device).unsqueeze(1)
            place = _mirror(starts + torch.arange(frames, device=self.device), self.lengths[clips])
            window = self.flat[self.starts[clips] + place]
        else:
            cuts = zip(clips.tolist(), starts.tolist(), strict=True)
            window = torch.stack([self._cut(clip, start, frames) for clip, start in cuts]).to(self.device)
        return window.float() / self.full_scale

    def _cut(self, clip: int, start: int, frames: int) -> Tensor:
        first, length = int(self.starts[clip]), int(self.lengths[clip])
        if start >= 0 and start + frames <= length:
            return self.flat[first + start : first + start + frames]
        return self.flat[first + _mirror(torch.arange(start, start + frames), torch.tensor(length))]


def _mirror(place: Tensor, length: Tensor) -> Tensor:
    """Reflect positions outside 0..length-1 at the ends: a triangle wave of period 2·(length - 1)."""
    last = length - 1
    return last - (place.remainder((2 * last).clamp(min=1)) - last).abs()


class JoinedStore:
    """Several stores as one, in order: the clips of the second follow those of the first. No audio is copied."""

    def __init__(self, stores: Sequence[AudioStore]) -> None:
        self.stores, self.device = tuple(stores), stores[0].device
        self._ends = torch.tensor([len(store.packed) for store in stores]).cumsum(0)

    def windows(self, clips: Tensor, starts: Tensor, frames: int) -> Tensor:
        """As ``AudioStore.windows``; ``clips`` counts through all stores."""
        if len(self.stores) == 1:
            return self.stores[0].windows(clips, starts, frames)
        of_store = torch.bucketize(clips, self._ends, right=True)
        result = torch.empty(len(clips), frames, self.stores[0].packed.channels, device=self.device)
        for number in of_store.unique().tolist():
            here = torch.nonzero(of_store == number).flatten()
            first = int(self._ends[number - 1]) if number else 0
            result[here.to(self.device)] = self.stores[number].windows(clips[here] - first, starts[here], frames)
        return result


def preemphasis(wave: Tensor, coefficient: float = 0.97, scale: float = 32000.0) -> Tensor:
    """x[t] - coefficient · x[t-1] per channel, the first sample dropped, times ``scale`` (released code of [21]).

    Args:
        wave: (batch, frames, channels).
        coefficient: of the sample before.
        scale: of the result.

    Returns:
        (batch, frames - 1, channels); 480,000 frames give the paper's (479999, 2) (Table 1).
    """
    return torch.sub(wave[:, 1:], wave[:, :-1], alpha=coefficient) * scale
