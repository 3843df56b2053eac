"""A packed scene corpus with its tag vectors, as runs see it: which clips of which splits, with whose tags."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tagasc.audio.packed import Clip, PackedAudio, packed_splits
from tagasc.audio.store import AudioCache, AudioStore, JoinedStore
from tagasc.scene.controls import apply_control
from tagasc.tagger.tags import TagScale, TagVectors, rescale
from tagasc.training.augment import EpochRng
from tagasc.utils.errors import UserError

CodeSegment = Literal["whole", "released"]
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
            raise UserError(
                f"{self.packed.folder} and its other splits differ in clip length; run stage 1 with --seconds"
            )
        folders = [store.packed.folder for store in stores for _ in store.packed.clips]
        self.labels = [_only_label(clip, folder) for clip, folder in zip(self.clips, folders, strict=True)]
        self.names = names or sorted(set(self.labels))
        indices = {name: index for index, name in enumerate(self.names)}
        self.scenes = torch.tensor([indices.get(label, -1) for label in self.labels])
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
class CodeWindows:
    """Equally long windows of clips.

    Attributes:
        clip_indices: int64 (windows,), positions of the clips.
        starts: int64 (windows,), each window's first frame.
        frames: length of the windows.
    """

    clip_indices: Tensor
    starts: Tensor
    frames: int


def released_windows(clips: SceneClips, training: bool, crop_seconds: float | None, seed: int) -> CodeWindows:
    """What the released code of [21] takes codes from: one random crop of each training clip, else the first 99.9 %.

    The training clips are shuffled, and their incomplete last batch is left out.
    """
    count = len(clips)
    if not training:
        return CodeWindows(torch.arange(count), torch.zeros(count, dtype=torch.int64), int(_TEST_SHARE * clips.frames))
    frames = crop_frames(crop_seconds, clips)
    rng = EpochRng(seed, 0)
    order = rng.permutation(count)[: max(1, count // _BATCH) * _BATCH]
    return CodeWindows(order, rng.integers(torch.full(order.shape, clips.frames - frames + 1)), frames)


def _only_label(clip: Clip, folder: Path) -> str:
    if len(clip.labels) != 1:
        raise UserError(f"{folder}: clip {clip.id} has {len(clip.labels)} scenes, must have one; mend the manifests")
    return clip.labels[0]


@dataclass(frozen=True)
class TagOptions:
    """How a run takes its tags: altered by a control (``tagasc.scene.controls``), on a scale, shuffled by its seed."""

    control: str = ""
    scale: TagScale = "probability"
    seed: int = 0


class SceneCorpus:
    """The splits of a scene corpus; each is opened once, when it is first asked for."""

    def __init__(
        self, audio: Path, name: str, tags: Path | None, device: torch.device, audio_cache: AudioCache = "auto"
    ) -> None:
        """Args: folder of packed audio (stage 2), corpus, folder of tag vectors (stage 4), device, the audio's home."""
        self._audio, self._name, self._tags, self._device = audio, name, tags, device
        self._store = cache(lambda split: AudioStore(PackedAudio(self.index(split).parent), device, audio_cache))
        self._vectors = cache(lambda split: TagVectors.read(self.tag_file(split)))

    @cached_property
    def splits(self) -> list[str]:
        """Every packed split.

        Raises:
            UserError: there is none.
        """
        splits = list(packed_splits(self._audio, self._name))
        if not splits:
            raise UserError(f"{self._audio} holds no packed {self._name}; run stage 2 (pack)")
        return splits

    def index(self, split: str) -> Path:
        """The file that stands for a split's audio."""
        return self._audio / f"{self._name}_{split}" / "index.json"

    def tag_file(self, split: str) -> Path:
        """The file of a split's tag vectors."""
        if self._tags is None:
            raise UserError("these systems use tags; give --tags, or take --systems baseline")
        return self._tags / f"{self._name}_{split}.npz"

    def files(self, splits: Sequence[str], with_tags: bool) -> dict[str, Path]:
        """By name, the files that clips of these splits are made from.

        Raises:
            UserError: one does not exist.
        """
        audio = {f"audio {split}": self.index(split) for split in splits}
        tags = {f"tags {split}": self.tag_file(split) for split in splits} if with_tags else {}
        for name, path in (audio | tags).items():
            if not path.exists():
                stage = "stage 2 (pack)" if name in audio else "stage 4 (tags)"
                raise UserError(f"{path} does not exist; {stage} makes it")
        return audio | tags

    def clips(
        self, splits: Sequence[str], tag_options: TagOptions | None, scenes: list[str] | None = None
    ) -> SceneClips:
        """The clips of some splits, one after another, with their tags unless ``tag_options`` is None.

        Args:
            splits: their names.
            tag_options: how the tags are taken.
            scenes: the list that scenes are counted by; None takes that of the training clips.

        Raises:
            UserError: something is missing or damaged, or a clip has no tags.
        """
        scenes = scenes or SceneClips([self._store("train")]).names
        clips = SceneClips([self._store(split) for split in splits], scenes)
        if tag_options is None:
            return clips
        return clips.tagged(np.concatenate([self._values(split, tag_options) for split in splits]))

    def _values(self, split: str, tag_options: TagOptions) -> np.ndarray:
        def own_tags(split: str) -> tuple[np.ndarray, list[str]]:
            clips, vectors = self._store(split).packed, self._vectors(split)
            if vectors.classes != self._vectors("train").classes:
                raise UserError(
                    f"{self.tag_file(split)} has other classes than {self.tag_file('train')}; run stage 4 (tags) again"
                )
            return vectors.of(clips.ids), [clip.labels[0] for clip in clips.clips]

        values, scenes = own_tags(split)
        if tag_options.control:
            values = apply_control(tag_options.control, values, scenes, own_tags("train"), tag_options.seed, split)
        return rescale(values, tag_options.scale)
