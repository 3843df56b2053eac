"""Tag vectors that exist already: one ``.npz`` with the arrays ids, classes and values of all clips."""

from pathlib import Path
from typing import Any

import numpy as np

from tagasc.audio.packed import PackedAudio
from tagasc.sources.source import SourceOptions, require_default
from tagasc.tagger.tags import TagVectors
from tagasc.utils.files import digest


class TagFile:
    """A tag source; see ``tagasc.sources.source.TagSource``."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        """Read the file.

        Raises:
            UserError: it is missing, damaged or not such a file, or an option does not go with it.
        """
        why = "its values are taken as they are"
        require_default(options, str(path), short=why, long=why, activation=why, take=why)
        self.vectors = TagVectors.read(path)
        self.path, self.classes = path, self.vectors.classes

    def input_hashes(self) -> dict[str, str]:
        """Return the hash of the file."""
        return {"tag source": digest(self.path)}

    def settings(self) -> dict[str, Any]:
        """Return no settings: the values are those of the file."""
        return {}

    def record(self) -> dict[str, Any]:
        """Describe the file; see ``TagSource``."""
        identity = {"kind": "tag file", "source": self.path.name, "sha256": {self.path.name: digest(self.path)}}
        return {**identity, "classes": len(self.classes), "parameters": None, "take": self.vectors.kind}

    def lengths(self, packed: PackedAudio) -> dict[str, int]:
        """Return nothing: the file does not say how its clips were tagged."""
        return {}

    def tags(self, packed: PackedAudio) -> np.ndarray:
        """Return the values of the clips; see ``TagSource``."""
        return self.vectors.of(packed.ids)
