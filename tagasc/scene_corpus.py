"""A packed scene corpus with its tag vectors, as runs see it: which clips of which splits, with whose tags."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch

from tagasc.audio import PackedAudio
from tagasc.controls import altered
from tagasc.errors import UserError
from tagasc.packed import packed_splits
from tagasc.scene.clips import SceneClips
from tagasc.store import AudioStore, DataOn
from tagasc.tags import TagScale, TagVectors, scaled


@dataclass(frozen=True)
class Tagging:
    """How a run takes its tags: altered by a control (see ``tagasc.controls``), on a scale, shuffled by its seed."""

    control: str = ""
    scale: TagScale = "probability"
    seed: int = 0


class SceneCorpus:
    """The splits of a scene corpus; each is opened once, when it is first asked for."""

    def __init__(
        self, audio: Path, name: str, tags: Path | None, device: torch.device, data_on: DataOn = "auto"
    ) -> None:
        """Args: folder of packed audio (stage 2), corpus, folder of tag vectors (stage 4), device, the audio's home."""
        self._audio, self._name, self._tags, self._device = audio, name, tags, device
        self._store = cache(lambda split: AudioStore(PackedAudio(self.index(split).parent), device, data_on))
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

    def clips(self, splits: Sequence[str], tagging: Tagging | None, scenes: list[str] | None = None) -> SceneClips:
        """The clips of some splits, one after another, with their tags unless ``tagging`` is None.

        Args:
            splits: their names.
            tagging: how the tags are taken.
            scenes: the list that scenes are counted by; None takes that of the training clips.

        Raises:
            UserError: something is missing or damaged, or a clip has no tags.
        """
        scenes = scenes or SceneClips([self._store("train")]).names
        clips = SceneClips([self._store(split) for split in splits], scenes)
        if tagging is None:
            return clips
        return clips.tagged(np.concatenate([self._values(split, tagging) for split in splits]))

    def _values(self, split: str, tagging: Tagging) -> np.ndarray:
        def of(split: str) -> tuple[np.ndarray, list[str]]:
            clips, vectors = self._store(split).packed, self._vectors(split)
            if vectors.classes != self._vectors("train").classes:
                raise UserError(
                    f"{self.tag_file(split)} has other classes than {self.tag_file('train')}; run stage 4 (tags) again"
                )
            return vectors.of(clips.ids), [clip.labels[0] for clip in clips.clips]

        values, scenes = of(split)
        if tagging.control:
            values = altered(tagging.control, values, scenes, of("train"), tagging.seed, split)
        return scaled(values, tagging.scale)
