"""The recipe's own tagger, trained by stage 3."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tagasc.audio.packed import PackedAudio
from tagasc.sources.source import SourceOptions, require_default
from tagasc.tagger.experiment import TAGGER
from tagasc.tagger.inference import load_tagger
from tagasc.utils.device import precision_on
from tagasc.utils.files import digest

_WHOLE = "the recipe's own tagger takes whole clips of any length"


class OwnTagger:
    """A tag source; see ``tagasc.sources.source.TagSource``. Its embedding is the head's penultimate layer."""

    def __init__(self, folder: Path, device: torch.device, options: SourceOptions) -> None:
        """Load the tagger.

        Raises:
            UserError: it is not trained, or has changed since, or an option does not go with it.
        """
        require_default(options, str(folder), short=_WHOLE, long=_WHOLE, activation="its outputs are probabilities")
        self.folder, self.device, self.options = folder, device, options
        self.ensemble = load_tagger(folder, device)
        self.classes = self.ensemble.classes
        if options.take == "embedding":
            self.classes = [f"value {n + 1}" for n in range(self.ensemble.networks[-1].embedding_size)]

    def input_hashes(self) -> dict[str, str]:
        """Return the hash of the file that lists the weights with their hashes, and the networks' precision."""
        return {"tagger": digest(self.folder / TAGGER), "precision": precision_on(self.device)}

    def settings(self) -> dict[str, Any]:
        """Return every setting that the values depend on."""
        return {} if self.options.take == "probability" else {"take": self.options.take}

    def record(self) -> dict[str, Any]:
        """Describe the tagger; see ``TagSource``."""
        count = sum(value.numel() for network in self.ensemble.networks for value in network.parameters())
        rate, networks = self.ensemble.mel.sampling_rate, len(self.ensemble.networks)
        identity = {"kind": "own tagger", "source": self.folder.name, "sha256": {TAGGER: digest(self.folder / TAGGER)}}
        identity |= {"classes": len(self.classes), "parameters": count, "networks": networks, "sampling_rate": rate}
        return {**identity, "window_seconds": None, "activation": "sigmoid", "take": self.options.take}

    def lengths(self, packed: PackedAudio) -> dict[str, int]:
        """Count the clips: all are tagged whole."""
        return {"whole": len(packed)}

    def tags(self, packed: PackedAudio) -> np.ndarray:
        """Return probabilities or the embedding; see ``TagSource``."""
        compute = self.ensemble.tag_scenes if self.options.take == "probability" else self.ensemble.embed_scenes
        return compute(packed, self.device, self.options.batch)
