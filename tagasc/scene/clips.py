"""The clips of a scene corpus as a network takes them: audio, scenes, tags, and which part of a clip."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tagasc.augment import Draws
from tagasc.errors import UserError
from tagasc.packed import Clip
from tagasc.store import AudioStore, JoinedStore

Taken = Literal["whole", "released"]
_BATCH, _TEST_SHARE = 24, 479_520 / 480_000  # of the released code of [21]


class SceneClips:
    """Clips with scenes and, if given, tag vectors; of one packed folder or of several, one after another.

    Attributes:
        store: the audio.
        labels: the scene of each clip.
        names: the scenes.
        scenes: int64 (clips,), positions in ``names``; -1 where the scene is not in that list.
        tags: float32 (clips, c) or None.
    """

    def __init__(self, stores: Sequence[AudioStore], names: list[str] | None = None) -> None:
        """Take the clips of ``stores``; ``names`` None takes the clips' own scenes, in alphabetical order.

        Raises:
            UserError: clips of several lengths, or a clip with no or several scenes.
        """
        self.store, self.device = JoinedStore(stores), stores[0].device
        self.packed = stores[0].packed
        self.clips = [clip for store in stores for clip in store.packed.clips]
        self.frames = self.packed.one_length()
        if any(store.packed.one_length() != self.frames for store in stores):
            raise UserError(f"{self.packed.folder} and its other splits differ in clip length; pack with --seconds")
        where = [store.packed.folder for store in stores for _ in store.packed.clips]
        self.labels = [_only_label(clip, folder) for clip, folder in zip(self.clips, where, strict=True)]
        self.names = names or sorted(set(self.labels))
        place = {name: number for number, name in enumerate(self.names)}
        self.scenes = torch.tensor([place.get(label, -1) for label in self.labels])
        self.tags: Tensor | None = None

    def __len__(self) -> int:
        return len(self.clips)

    def tagged(self, values: np.ndarray | None) -> "SceneClips":
        """The same clips with these tag vectors, (clips, c), or with none."""
        clips = copy(self)
        clips.tags = None if values is None else torch.from_numpy(values).to(self.device)
        return clips

    def tags_of(self, clips: Tensor) -> Tensor | None:
        """(batch, c) on the device, or None."""
        return None if self.tags is None else self.tags[clips.to(self.device)]


def crop_frames(crop_seconds: float | None, clips: SceneClips) -> int:
    """Frames of a training crop, one more than its seconds, since pre-emphasis drops the first; None: whole clips."""
    whole = clips.frames
    return whole if crop_seconds is None else min(round(crop_seconds * clips.packed.sampling_rate) + 1, whole)


@dataclass(frozen=True)
class Windows:
    """Equally long windows of clips.

    Attributes:
        clips: int64 (windows,), positions of the clips.
        starts: int64 (windows,), each window's first frame.
        frames: length of the windows.
    """

    clips: Tensor
    starts: Tensor
    frames: int


def released_windows(clips: SceneClips, training: bool, crop_seconds: float | None, seed: int) -> Windows:
    """What the released code of [21] takes codes from: one random crop of each training clip, else the first 99.9 %.

    The training clips are shuffled, and their incomplete last batch is left out.
    """
    count = len(clips)
    if not training:
        return Windows(torch.arange(count), torch.zeros(count, dtype=torch.int64), int(_TEST_SHARE * clips.frames))
    frames = crop_frames(crop_seconds, clips)
    draws = Draws(seed, 0)
    order = draws.permutation(count)[: max(1, count // _BATCH) * _BATCH]
    return Windows(order, draws.integers(torch.full(order.shape, clips.frames - frames + 1)), frames)


def _only_label(clip: Clip, folder: Path) -> str:
    if len(clip.labels) != 1:
        raise UserError(f"{folder}: clip {clip.id} has {len(clip.labels)} scenes, must have one; mend the manifests")
    return clip.labels[0]
