"""Sources of tag vectors: the recipe's own tagger, an external ``.npz``, or a Hugging Face model.

A tag source knows its classes and tags the clips of a packed folder. Its name is ``hf:NAME_OR_DIR``, ``FILE.npz``, or
the folder of a trained tagger.
"""

from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch

from tagasc.audio.packed import PackedAudio
from tagasc.tagger.experiment import TAGGER
from tagasc.tagger.inference import load_tagger
from tagasc.tagger.tags import TagVectors
from tagasc.utils.device import precision_on
from tagasc.utils.files import digest

HUGGING_FACE = "hf:"
Activation = Literal["auto", "sigmoid", "softmax"]


class TagSource(Protocol):
    """A source of tag vectors."""

    classes: list[str]

    def input_hashes(self) -> dict[str, str]:
        """Return hashes of everything that the tags depend on besides the clips, by name."""
        ...

    def tags(self, packed: PackedAudio) -> np.ndarray:
        """Return tag probabilities of every clip in order, float32 (clips, classes)."""
        ...


def open_source(name: str, device: torch.device, batch: int, activation: Activation = "auto") -> TagSource:
    """Open a tag source by its name; the module's docstring lists the forms.

    Raises:
        UserError: the source is missing or incomplete.
    """
    if name.startswith(HUGGING_FACE):
        from tagasc.tagger.hugging_face import HuggingFaceTagger  # here, because the import is slow

        return HuggingFaceTagger(name.removeprefix(HUGGING_FACE), device, batch, activation)
    if name.endswith(".npz"):
        return TagFile(Path(name))
    return TrainedTagger(Path(name), device, batch)


class TrainedTagger:
    """A tagger trained by stage 3 (tagger)."""

    def __init__(self, folder: Path, device: torch.device, batch: int) -> None:
        self.folder, self.device, self.batch = folder, device, batch
        self.ensemble = load_tagger(folder, device)
        self.classes = self.ensemble.classes

    def input_hashes(self) -> dict[str, str]:
        """Return the hash of the file that lists the weights with their hashes, and the networks' precision."""
        return {"tagger": digest(self.folder / TAGGER), "precision": precision_on(self.device)}

    def tags(self, packed: PackedAudio) -> np.ndarray:
        """Return tag probabilities; see ``TagSource``."""
        return self.ensemble.tag_scenes(packed, self.device, self.batch)


class TagFile:
    """External tag vectors: one ``.npz`` with the arrays ids, classes and values of all clips."""

    def __init__(self, path: Path) -> None:
        self.vectors = TagVectors.read(path)
        self.path, self.classes, self.kind = path, self.vectors.classes, self.vectors.kind

    def input_hashes(self) -> dict[str, str]:
        """Return the hash of the file."""
        return {"tag source": digest(self.path)}

    def tags(self, packed: PackedAudio) -> np.ndarray:
        """Return tag probabilities; see ``TagSource``."""
        return self.vectors.of(packed.ids)
