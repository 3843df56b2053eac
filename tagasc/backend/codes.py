"""Codes: what a scene network makes of each clip, with what is known of the clip."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tagasc.utils.errors import UserError
from tagasc.utils.files import read_npz, write_npz


@dataclass(frozen=True)
class Codes:
    """Codes of one split.

    Attributes:
        ids: clip ids, str (clips,).
        codes: float32 (clips, code size).
        answers: the scene that the network itself names, by softmax, str (clips,); empty where there is no network.
        scenes: the true scene of each clip, str (clips,).
        locations: the recording location of each clip, str (clips,).
    """

    ids: np.ndarray
    codes: np.ndarray
    softmax_predictions: np.ndarray
    scenes: np.ndarray
    locations: np.ndarray

    def write(self, path: Path, record: dict[str, Any]) -> None:
        """Write an ``.npz``, whole or not at all."""
        write_npz(path, record, **vars(self))

    @classmethod
    def read(cls, path: Path) -> "Codes":
        """Raises UserError: the file is absent, not such a file, or its codes are not finite."""
        codes = cls(**read_npz(path, ("ids", "codes", "softmax_predictions", "scenes", "locations"), "stage 6 (codes)"))
        if codes.codes.ndim != 2 or len({len(value) for value in vars(codes).values()}) != 1:
            raise UserError(f"{path}: its arrays differ in length; extract the codes again (stage 6)")
        if not np.isfinite(codes.codes).all():
            raise UserError(f"{path} holds codes that are not finite; extract them again (stage 6)")
        return codes

    def joined(self, other: "Codes") -> "Codes":
        """The clips of both."""
        return Codes(*(np.concatenate(pair) for pair in zip(vars(self).values(), vars(other).values(), strict=True)))
