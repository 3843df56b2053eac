"""Packed audio: every clip of a data set, decoded once, in one flat array that training reads without copying.

A packed folder holds ``audio.npy``, an array of shape (frames, channels), interleaved as in a WAV file, and
``index.json``: sampling rate and, for each clip in order, its id, first frame, number of frames, labels, location
and a checksum of its samples. The index therefore stands for the audio wherever a hash of the audio is needed.

int16 samples are ``round(x · 32768)``, ties to even, clipped to ±full scale, for x in -1..1; 24-bit audio is thus
rounded to 16 bits, not cut off (``steps/pack_audio.py`` logs the ratio of signal to rounding error).

``tagasc.packing`` writes it, ``tagasc.audio`` reads it.
"""

from dataclasses import dataclass
from pathlib import Path

FORMAT = 1
FULL_SCALE = 32768


@dataclass(frozen=True)
class Clip:
    """One clip of a packed folder; ``start`` and ``frames`` count sample frames of ``audio.npy``."""

    id: str
    start: int
    frames: int
    labels: tuple[str, ...]
    location: str
    usage: str
    crc32: int


def packed_splits(audio: Path, corpus: str) -> dict[str, Path]:
    """A corpus's packed folders in ``audio``, ``<corpus>_<split>``, by their splits in alphabetical order.

    No split has ``_`` in its name (stage 2 sees to it): ``cafe_events_test`` is of ``cafe_events``, not of ``cafe``.
    """
    folders = sorted(index.parent for index in audio.glob("*_*/index.json"))
    named = ((*folder.name.rsplit("_", 1), folder) for folder in folders)
    return {split: folder for name, split, folder in named if name == corpus}
