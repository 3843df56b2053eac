"""Tag vectors on disk: the probability of each sound event in each clip, from any tagger."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from tagasc.utils.errors import UserError
from tagasc.utils.files import read_npz

TagScale = Literal["probability", "log", "logit"]


def rescale(values: np.ndarray, scale: TagScale) -> np.ndarray:
    """Rescale tag probabilities for a network or an SVM; the paper uses them unchanged.

    Sigmoid outputs crowd near 0, where a logarithm or logit spreads them. Values are clipped to 1e-6..1 - 1e-6 first.

    Args:
        values: float32 (clips, classes), in 0..1.
        scale: ``probability`` is p, ``log`` is ln p, ``logit`` is ln p / (1 - p).
    """
    if scale == "probability":
        return values
    p = np.clip(values.astype(np.float64), 1e-6, 1 - 1e-6)
    return (np.log(p) if scale == "log" else np.log(p / (1 - p))).astype(np.float32)


@dataclass(frozen=True)
class TagVectors:
    """Tag vectors of clips.

    Attributes:
        ids: clip ids.
        classes: names of the sound events.
        values: float32 (clips, classes), probabilities.
        path: the file that they were read from.
    """

    ids: list[str]
    classes: list[str]
    values: np.ndarray
    path: Path = field(default=Path("tags"))

    @classmethod
    def read(cls, path: Path, made_by: str = "stage 4 (tags)") -> "TagVectors":
        """Read an ``.npz`` with the arrays ids, classes and values.

        Args:
            path: the file.
            made_by: stage that writes it, for the error.

        Raises:
            UserError: the file is missing or not such an ``.npz``, shapes disagree, or a value is not in 0..1.
        """
        arrays = read_npz(path, ("ids", "classes", "values"), made_by)
        try:
            names, classes = arrays["ids"].astype(str), arrays["classes"].astype(str)
            values = arrays["values"].astype(np.float32)
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: ids and classes must be text, values numbers ({error})") from None
        if (names.ndim, classes.ndim) != (1, 1):
            raise UserError(f"{path}: ids {names.shape} and classes {classes.shape} must each be one row of names")
        ids = names.tolist()
        if values.shape != (len(ids), len(classes)) or len(set(ids)) != len(ids):
            raise UserError(
                f"{path}: values {values.shape} do not fit {len(ids)} different ids and {len(classes)} classes"
            )
        if not (np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all()):
            bad = ids[int(np.argmin((np.isfinite(values) & (values >= 0) & (values <= 1)).all(axis=1)))]
            raise UserError(f"{path}: the tags of clip {bad} are not all numbers in 0..1; extract them again")
        return cls(ids, classes.tolist(), values, path)

    def of(self, ids: list[str]) -> np.ndarray:
        """Return the tag vectors of the given clips in their order, float32 (clips, classes).

        Raises:
            UserError: a clip has no tags.
        """
        row = {clip: number for number, clip in enumerate(self.ids)}
        missing = [clip for clip in ids if clip not in row]
        if missing:
            raise UserError(f"{self.path} has no tags for {len(missing)} of {len(ids)} clips, first {missing[0]}")
        return self.values[[row[clip] for clip in ids]]
