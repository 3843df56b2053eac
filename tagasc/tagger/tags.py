"""Tag vectors on disk: the probability of each sound event in each clip, or an embedding, from any tagger."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from tagasc.utils.errors import UserError
from tagasc.utils.files import read_npz

TagScale = Literal["probability", "log", "logit"]
TagKind = Literal["probability", "embedding"]


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


def standardise(values: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Scale each value of an embedding to mean 0 and deviation 1 over the training clips; a constant one to mean 0.

    Args:
        values: float32 (clips, values).
        training: float32 (training clips, values).
    """
    from sklearn.preprocessing import StandardScaler  # here, since the import is slow

    return StandardScaler().fit(training.astype(np.float64)).transform(values.astype(np.float64)).astype(np.float32)


@dataclass(frozen=True)
class TagVectors:
    """Tag vectors of clips.

    Attributes:
        ids: clip ids.
        classes: names of the sound events.
        values: float32 (clips, classes), probabilities or, of an embedding, any finite numbers.
        path: the file that they were read from.
        kind: ``probability`` or ``embedding``, whose classes are no events.
    """

    ids: list[str]
    classes: list[str]
    values: np.ndarray
    path: Path = field(default=Path("tags"))
    kind: TagKind = "probability"

    @classmethod
    def read(cls, path: Path, made_by: str = "stage 4 (tags)") -> "TagVectors":
        """Read an ``.npz`` with the arrays ids, classes and values, and perhaps kind.

        Args:
            path: the file.
            made_by: stage that writes it, for the error.

        Raises:
            UserError: the file is missing or not such an ``.npz``, shapes disagree, or a value is not in 0..1 (of an
                embedding: not finite).
        """
        arrays = read_npz(path, ("ids", "classes", "values"), made_by, optional=("kind",))
        kind = str(arrays.get("kind", "probability"))
        if kind not in get_args(TagKind):
            raise UserError(f"{path}: kind must be one of {' | '.join(get_args(TagKind))}, not {kind[:40]!r}")
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
        good = np.isfinite(values) & ((kind == "embedding") | ((values >= 0) & (values <= 1)))
        if not good.all():
            bad, wanted = ids[int(np.argmin(good.all(axis=1)))], "finite" if kind == "embedding" else "in 0..1"
            raise UserError(f"{path}: the tags of clip {bad} are not all numbers {wanted}; extract them again")
        return cls(ids, classes.tolist(), values, path, kind)

    @property
    def has_names(self) -> bool:
        """Whether each value is the probability of a named event."""
        return self.kind == "probability"

    def require_scale(self, scale: TagScale) -> None:
        """Check that the values can be brought to a scale: only probabilities have a logarithm.

        Raises:
            UserError: they cannot.
        """
        if not self.has_names and scale != "probability":
            raise UserError(
                f"tag_scale {scale} is for probabilities, but {self.path} holds an embedding, which is standardised;"
                " set tag_scale: probability in the training's configuration, or --tag-scale probability"
            )

    def scaled(self, values: np.ndarray, scale: TagScale, training: np.ndarray) -> np.ndarray:
        """Bring values of these tags to the scale of a network and an SVM, float32 (clips, classes).

        Args:
            values: float32 (clips, classes), of these tags, perhaps altered.
            scale: scale of probabilities.
            training: float32 (training clips, classes); an embedding is standardised over them.

        Raises:
            UserError: an embedding has no such scale.
        """
        self.require_scale(scale)
        return rescale(values, scale) if self.has_names else standardise(values, training)

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
