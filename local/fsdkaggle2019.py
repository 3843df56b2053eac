#!/usr/bin/env python3
"""FSDKaggle2019 → Lhotse manifests.

Sound events of 80 classes, 44.1 kHz, mono, 16 bit, https://zenodo.org/records/3612637: 4970 curated and 19,815 noisy
training clips, 4481 test clips (1120 public, 3361 private). Each clip has a Creative Commons licence of its own, some
non-commercial. Both releases are read: Zenodo's, and Kaggle's, whose test clips have no labels.

Splits: ``curated``, ``noisy``, ``test``; a test clip's supervision says whether it is Public or Private.
"""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from local.manifests import ClipEntry, check_counts, check_unique, present, read_table, state_of, write
from tagasc.utils import cli, provenance
from tagasc.utils.errors import UserError
from tagasc.utils.log import log

PUBLISHED = {
    "classes": 80,
    "curated": 4970,
    "noisy": 19815,
    "test": 4481,
    "curated labels": 5752,
    "noisy labels": 24000,
    "test labels": 6250,
    "Public": 1120,
    "Private": 3361,
}


@dataclass(frozen=True)
class Release:
    """Where one release keeps its audio and its tables, by split."""

    audio: dict[str, str]
    tables: dict[str, str]
    vocabulary: str


ZENODO = Release(
    {
        "curated": "FSDKaggle2019.audio_train_curated",
        "noisy": "FSDKaggle2019.audio_train_noisy",
        "test": "FSDKaggle2019.audio_test",
    },
    {
        "curated": "FSDKaggle2019.meta/train_curated_post_competition.csv",
        "noisy": "FSDKaggle2019.meta/train_noisy_post_competition.csv",
        "test": "FSDKaggle2019.meta/test_post_competition.csv",
    },
    "FSDKaggle2019.meta/vocabulary.csv",
)
KAGGLE = Release(
    {"curated": "train_curated", "noisy": "train_noisy", "test": "test"},
    {"curated": "train_curated.csv", "noisy": "train_noisy.csv", "test": "sample_submission.csv"},
    "sample_submission.csv",
)


def main(
    corpus: Path,
    out: Path,
    sampling_rate: int = 44100,
    longest: float = 35.0,
    allow_partial: bool = False,
    nj: int = 4,
    force: bool = False,
) -> None:
    """Write manifests of FSDKaggle2019.

    Args:
        corpus: the unpacked folder, in the layout of Zenodo or of Kaggle.
        out: folder for the manifests.
        sampling_rate: that the clips have, in Hz.
        longest: longest clip allowed, in seconds.
        allow_partial: take a corpus that lacks clips or whole parts.
        nj: number of processes.
        force: write them again even if they are there.
    """
    if not corpus.is_dir():
        raise UserError(f"{corpus} is not a folder; fetch the corpus (stage 0) or say where it is")
    corpus = corpus.resolve()
    release = _release(corpus)
    vocabulary = _vocabulary(corpus / release.vocabulary, release)
    splits = {}
    for split in ("curated", "noisy", "test"):
        entries = _entries(corpus, release, split, set(vocabulary), allow_partial)
        if entries:
            splits[split] = present(entries, allow_partial)
    _check(corpus, release, vocabulary, splits, allow_partial)
    tables = [corpus / name for name in {*release.tables.values(), release.vocabulary}]
    settings = {"sampling_rate": sampling_rate, "longest": longest, "allow_partial": allow_partial}
    record = provenance.record("fsdkaggle2019", settings, state_of(tables, sum(splits.values(), [])))
    if provenance.is_current(str(out), provenance.read(out), record, force):
        return
    write(out, "fsdkaggle2019", splits, record, sampling_rate, 1, (0.0, longest), nj)


def _release(corpus: Path) -> Release:
    for release in (ZENODO, KAGGLE):
        if (corpus / release.tables["curated"]).exists():
            return release
    raise UserError(
        f"{corpus} has neither {ZENODO.tables['curated']} (Zenodo) nor {KAGGLE.tables['curated']} (Kaggle);"
        " fetch the metadata"
    )


def _vocabulary(path: Path, release: Release) -> list[str]:
    """Class names in ASCII order; Zenodo's file has no header and lists index and name."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
        names = rows[0][1:] if release is KAGGLE else [row[1] for row in rows]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; fetch the corpus's metadata again") from None
    except (IndexError, UnicodeDecodeError, csv.Error):
        raise UserError(f"{path} does not list the classes; fetch it again") from None
    if names != sorted(names) or len(set(names)) != len(names):
        raise UserError(f"{path}: the classes are not in ASCII order, each once; fetch it again")
    return names


def _entries(corpus: Path, release: Release, split: str, vocabulary: set[str], allow_partial: bool) -> list[ClipEntry]:
    table = corpus / release.tables[split]
    audio = corpus / release.audio[split]
    if allow_partial and split != "curated" and not (table.exists() and audio.is_dir()):
        log.warning("%s: no %s clips", corpus, split)
        return []
    unlabelled = release is KAGGLE and split == "test"
    extra = ("usage",) if release is ZENODO and split == "test" else ()
    entries = []
    for row in read_table(table, ("fname",) if unlabelled else ("fname", "labels", *extra), ","):
        labels = () if unlabelled else tuple(row["labels"].split(","))
        unknown = [label for label in labels if label not in vocabulary]
        if unknown:
            raise UserError(
                f"{table}: {row['fname']} has the label {unknown[0]!r}, which the vocabulary lacks; mend the table"
            )
        if len(set(labels)) != len(labels):
            raise UserError(f"{table}: {row['fname']} has a label twice; mend the table")
        if Path(row["fname"]).name != row["fname"]:
            raise UserError(f"{table}: {row['fname']!r} is not a plain file name; mend the table")
        custom = {"usage": row["usage"]} if extra else {}
        entries.append(ClipEntry(Path(row["fname"]).stem, audio / row["fname"], labels, custom))
    check_unique(entries, table)
    return entries


def _check(
    corpus: Path, release: Release, vocabulary: list[str], splits: dict[str, list[ClipEntry]], allow_partial: bool
) -> None:
    found: Counter[str] = Counter({"classes": len(vocabulary)})
    for split, entries in splits.items():
        found[split] = len(entries)
        found[f"{split} labels"] = sum(len(entry.labels) for entry in entries)
        found.update(entry.custom["usage"] for entry in entries if "usage" in entry.custom)
    # Kaggle gave out test clips without labels, and not all of them to everyone.
    published = {
        k: v for k, v in PUBLISHED.items() if release is ZENODO or k not in ("test", "test labels", "Public", "Private")
    }
    check_counts(found, published, corpus, allow_partial)


if __name__ == "__main__":
    cli.run(main, positional=True)
