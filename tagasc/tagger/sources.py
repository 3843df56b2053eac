"""Where tag vectors come from: the recipe's own tagger, an ``.npz`` made elsewhere, or a Hugging Face model.

A tag source knows its classes and tags the clips of a packed folder. ``open_source`` tells them apart by how they are
written: ``hf:NAME_OR_DIR``, ``FILE.npz``, or the folder of a trained tagger.
"""

from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch

from tagasc.audio.packed import PackedAudio
from tagasc.tagger.experiment import TAGGER
from tagasc.tagger.inference import load_tagger
from tagasc.tagger.tags import TagVectors
from tagasc.utils.files import digest

HUGGING_FACE = "hf:"
Activation = Literal["auto", "sigmoid", "softmax"]


class TagSource(Protocol):
    """Whatever gives tag vectors."""

    classes: list[str]

    def input_hashes(self) -> dict[str, str]:
        """Hashes of all that the tags depend on besides the clips, by name."""
        ...

    def tags(self, packed: PackedAudio) -> np.ndarray:
        """Tag probabilities of every clip in order, float32 (clips, classes)."""
        ...


def open_source(name: str, device: torch.device, batch: int, activation: Activation = "auto") -> TagSource:
    """Open a tag source; see the module's text for the names.

    Raises:
        UserError: there is no such source, or it is not whole.
    """
    if name.startswith(HUGGING_FACE):
        from tagasc.tagger.hugging_face import HuggingFaceTagger  # here, since few use it, and its import takes seconds

        return HuggingFaceTagger(name.removeprefix(HUGGING_FACE), device, batch, activation)
    if name.endswith(".npz"):
        return TagFile(Path(name))
    return TrainedTagger(Path(name), device, batch)


class TrainedTagger:
    """The tagger that stage 3 trains."""

    def __init__(self, folder: Path, device: torch.device, batch: int) -> None:
        self.folder, self.device, self.batch = folder, device, batch
        self.ensemble = load_tagger(folder, device)
        self.classes = self.ensemble.classes

    def input_hashes(self) -> dict[str, str]:
        """The file that lists the weights with their hashes."""
        return {"tagger": digest(self.folder / TAGGER)}

    def tags(self, packed: PackedAudio) -> np.ndarray:
        """See ``TagSource``."""
        return self.ensemble.tag_scenes(packed, self.device, self.batch)


class TagFile:
    """Tag vectors made elsewhere, in one ``.npz`` with the arrays ids, classes and values for all clips."""

    def __init__(self, path: Path) -> None:
        self.vectors = TagVectors.read(path)
        self.path, self.classes = path, self.vectors.classes

    def input_hashes(self) -> dict[str, str]:
        """The file."""
        return {"tag source": digest(self.path)}

    def tags(self, packed: PackedAudio) -> np.ndarray:
        """See ``TagSource``."""
        return self.vectors.of(packed.ids)
