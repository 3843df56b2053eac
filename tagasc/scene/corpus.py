"""A packed scene corpus and its tag vectors: clips of one or several splits, with the tags that a run uses."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tagasc.audio.packed import Clip, PackedAudio, packed_splits, require_index
from tagasc.audio.store import AudioCache, AudioStore, JoinedStore
from tagasc.scene.controls import apply_control
from tagasc.tagger.tags import TagScale, TagVectors
from tagasc.training.augment import EpochRng
from tagasc.utils.errors import UserError

CodeSegment = Literal["whole", "released"]
_BATCH, _TEST_SHARE = 24, 479_520 / 480_000  # values of the released code of [21]


class SceneClips:
    """Clips of one or several packed folders, with their scenes and, if given, tag vectors.

    Attributes:
        store: audio of the clips.
        labels: scene name of each clip.
        names: scene names, in the order of the output layer.
        scenes: int64 (clips,), index of each clip's scene in ``names``; -1 if it is missing there.
        tags: float32 (clips, c), or None.
    """

    def __init__(self, stores: Sequence[AudioStore], names: list[str] | None = None) -> None:
        """Join the clips of ``stores``; with ``names`` None, the scene names are the clips' own, sorted.

        The order is ours; in the released code of [21] it is that of first appearance in ``meta.csv``.

        Raises:
            UserError: the clips differ in length, or a clip has no scene or several.
        """
        self.store, self.device = JoinedStore(stores), stores[0].device
        self.packed = stores[0].packed
        self.clips = [clip for store in stores for clip in store.packed.clips]
        self.frames = self.packed.one_length()
        if any(store.packed.one_length() != self.frames for store in stores):
            raise UserError(
                f"{self.packed.folder} and its other splits differ in clip length; run stage 1 with --scene-seconds"
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
        """Copy the clips with these tag vectors, (clips, c), or without tags."""
        clips = copy(self)
        clips.tags = None if values is None else torch.from_numpy(values).to(self.device)
        return clips

    def tags_of(self, clips: Tensor) -> Tensor | None:
        """Return the tags of the clips with these indices, (batch, c), on the device, or None."""
        return None if self.tags is None else self.tags[clips.to(self.device)]


def crop_frames(crop_seconds: float | None, clips: SceneClips) -> int:
    """Return the frames of a training crop; one extra, since pre-emphasis drops the first. None: whole clips."""
    whole = clips.frames
    return whole if crop_seconds is None else min(round(crop_seconds * clips.packed.sampling_rate) + 1, whole)


@dataclass(frozen=True)
class CodeWindows:
    """Windows of equal length, one code each.

    Attributes:
        clip_indices: int64 (windows,), index of each window's clip.
        starts: int64 (windows,), first frame of each window.
        frames: length of the windows, frames.
    """

    clip_indices: Tensor
    starts: Tensor
    frames: int


def released_windows(
    clips: SceneClips, training: bool, crop_seconds: float | None, seed: int, epoch: int
) -> CodeWindows:
    """Return the windows that the released code of [21] computes codes from after an epoch.

    Training clips give one random crop each, shuffled, without the incomplete last batch; each epoch draws others.
    Other clips give their first 99.9 %, counted after pre-emphasis, which drops the first frame.
    """
    count = len(clips)
    if not training:
        frames = min(int(_TEST_SHARE * clips.frames) + 1, clips.frames)
        return CodeWindows(torch.arange(count), torch.zeros(count, dtype=torch.int64), frames)
    frames = crop_frames(crop_seconds, clips)
    rng = EpochRng(seed, epoch)
    order = rng.permutation(count)[: max(1, count // _BATCH) * _BATCH]
    return CodeWindows(order, rng.integers(torch.full(order.shape, clips.frames - frames + 1)), frames)


def _only_label(clip: Clip, folder: Path) -> str:
    if len(clip.labels) != 1:
        raise UserError(f"{folder}: clip {clip.id} has {len(clip.labels)} scenes, must have one; fix the manifests")
    return clip.labels[0]


@dataclass(frozen=True)
class TagOptions:
    """Choice of a run's tags.

    Attributes:
        control: control that alters them (``tagasc.scene.controls``), or empty.
        scale: scale of probabilities; embeddings are standardised over the training clips.
        seed: seed of the control's shuffling.
    """

    control: str = ""
    scale: TagScale = "probability"
    seed: int = 0


class SceneCorpus:
    """Splits of a packed scene corpus; each is opened once, on first use."""

    def __init__(
        self, audio: Path, name: str, tags: Path | None, device: torch.device, audio_cache: AudioCache = "auto"
    ) -> None:
        """Name the corpus; nothing is read yet.

        Args:
            audio: folder of packed audio (stage 2).
            name: name of the corpus.
            tags: folder of tag vectors (stage 4).
            device: device of audio and tags.
            audio_cache: where the audio is kept.
        """
        self._audio, self._name, self._tags, self._device = audio, name, tags, device
        self._opened: list[AudioStore] = []
        self._store = cache(lambda split: self._open(split, audio_cache))
        self._vectors = cache(lambda split: TagVectors.read(self.tag_file(split)))

    @cached_property
    def splits(self) -> list[str]:
        """Every packed split.

        Raises:
            UserError: no split is packed.
        """
        splits = list(packed_splits(self._audio, self._name))
        if not splits:
            raise UserError(f"{self._audio} holds no packed {self._name}; run stage 2 (pack)")
        return splits

    def index(self, split: str) -> Path:
        """Return the index file of a split's audio."""
        return self._audio / f"{self._name}_{split}" / "index.json"

    def tag_file(self, split: str) -> Path:
        """Return the file of a split's tag vectors.

        Raises:
            UserError: no folder of tag vectors is given.
        """
        if self._tags is None:
            raise UserError("these systems use tags, but --tags is missing; give --tags, or use --systems baseline")
        return self._tags / f"{self._name}_{split}.npz"

    def files(self, splits: Sequence[str], with_tags: bool) -> dict[str, Path]:
        """Return, by name, the files that the clips of these splits are read from.

        Raises:
            UserError: a file is missing or damaged.
        """
        audio = {f"audio {split}": require_index(self.index(split).parent) for split in splits}
        for split in splits if with_tags else ():
            self._vectors(split)  # fails if they are damaged
        return audio | ({f"tags {split}": self.tag_file(split) for split in splits} if with_tags else {})

    def require_scale(self, scale: TagScale) -> None:
        """Check that the training clips' tags can be brought to a scale; see ``TagVectors.require_scale``."""
        self._vectors("train").require_scale(scale)

    def clips(
        self, splits: Sequence[str], tag_options: TagOptions | None, scenes: list[str] | None = None
    ) -> SceneClips:
        """Join the clips of several splits.

        Args:
            splits: names of the splits.
            tag_options: choice of the tags; None leaves the clips without tags.
            scenes: scene names, in the order of the output layer; None takes those of the training clips.

        Raises:
            UserError: a file is missing or damaged, or a clip has no tags.
        """
        scenes = scenes or SceneClips([self._store("train")]).names
        clips = SceneClips([self._store(split) for split in splits], scenes)
        if tag_options is None:
            return clips
        return clips.tagged(np.concatenate([self._values(split, tag_options) for split in splits]))

    def leave_gpu(self) -> str | None:
        """Move audio off the GPU, as ``AudioStore.leave_gpu``; the clips that hold it need not be joined again."""
        places = [place for store in self._opened if (place := store.leave_gpu())]
        return places[0] if places else None

    def _open(self, split: str, audio_cache: AudioCache) -> AudioStore:
        self._opened.append(AudioStore(PackedAudio(self.index(split).parent), self._device, audio_cache))
        return self._opened[-1]

    def _values(self, split: str, tag_options: TagOptions) -> np.ndarray:
        def own_tags(split: str) -> tuple[np.ndarray, list[str]]:
            clips, vectors = self._store(split).packed, self._vectors(split)
            if (vectors.classes, vectors.kind) != (self._vectors("train").classes, self._vectors("train").kind):
                raise UserError(
                    f"{self.tag_file(split)} has other classes than {self.tag_file('train')}; run stage 4 (tags) again"
                )
            return vectors.of(clips.ids), [clip.labels[0] for clip in clips.clips]

        values, scenes = own_tags(split)
        if tag_options.control:
            values = apply_control(tag_options.control, values, scenes, own_tags("train"), tag_options.seed, split)
        return self._vectors(split).scaled(values, tag_options.scale, self._vectors("train").values)
