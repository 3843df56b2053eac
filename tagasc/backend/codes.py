"""Codes: the representation vectors of clips (section 2.1), with ids, scenes and locations."""

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
        softmax_predictions: scenes predicted by the output layer, str (clips,); empty for tags alone.
        scenes: true scenes, str (clips,).
        locations: recording locations, str (clips,).
    """

    ids: np.ndarray
    codes: np.ndarray
    softmax_predictions: np.ndarray
    scenes: np.ndarray
    locations: np.ndarray

    def write(self, path: Path, record: dict[str, Any]) -> None:
        """Write an ``.npz`` atomically, with a provenance record."""
        write_npz(path, record, **vars(self))

    @classmethod
    def read(cls, path: Path) -> "Codes":
        """Read what ``write`` wrote.

        Raises:
            UserError: the file is missing or damaged, or its codes are not finite.
        """
        codes = cls(**read_npz(path, ("ids", "codes", "softmax_predictions", "scenes", "locations"), "stage 6 (codes)"))
        if codes.codes.ndim != 2 or len({len(value) for value in vars(codes).values()}) != 1:
            raise UserError(f"{path}: its arrays differ in length; run stage 6 (codes) again")
        if not np.isfinite(codes.codes).all():
            raise UserError(f"{path} holds codes that are not finite; run stage 6 (codes) again")
        return codes

    def joined(self, other: "Codes") -> "Codes":
        """Concatenate the clips of both."""
        return Codes(*(np.concatenate(pair) for pair in zip(vars(self).values(), vars(other).values(), strict=True)))


def deviation_of(codes: np.ndarray) -> float:
    """Compute the standard deviation of all values of some codes, (clips, code size); γ of the SVM depends on it."""
    return float(codes.std(dtype=np.float64))
