"""Tables in the layout of FSDKaggle2019's Zenodo release."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

_SOURCE = {"train_curated": "freesound_id", "train_noisy": "flickr_video_URL", "test": "freesound_id"}


def write_table(path: Path, rows: Iterable[Sequence], delimiter: str = ",") -> None:
    """Write a CSV; create its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)


def write_labels(corpus: Path, part: str, rows: Iterable[tuple[str, str, str, object, str]]) -> None:
    """Write one part's labels.

    Args:
        corpus: folder of the corpus.
        part: train_curated, train_noisy or test.
        rows: file name, labels, usage (Public or Private; only written for test), source and licence of each clip.
    """
    table = [("fname", "labels", "usage", _SOURCE[part], "license"), *rows]
    if part != "test":
        table = [row[:2] + row[3:] for row in table]
    write_table(corpus / "FSDKaggle2019.meta" / f"{part}_post_competition.csv", table)


def write_vocabulary(corpus: Path, classes: Iterable[str]) -> None:
    """Write the names of the classes."""
    write_table(corpus / "FSDKaggle2019.meta" / "vocabulary.csv", enumerate(classes))
