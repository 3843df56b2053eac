#!/usr/bin/env python3
"""FSDKaggle2019 → Lhotse manifests.

Sound events of 80 classes, 44.1 kHz, mono, 16 bit: 4970 curated and 19,815 noisy training clips, 4481 test clips (1120
public, 3361 private); about 103 hours. Zenodo's and Kaggle's releases are both supported; Kaggle's test clips have no
labels.

- Source: https://zenodo.org/records/3612637
- Licence: every clip has a Creative Commons licence; some are non-commercial.
- Citation: Fonseca, Plakal, Font, Ellis, Serra: "Audio tagging with noisy labels and minimal supervision", DCASE 2019.

Splits: ``curated``, ``noisy``, ``test``. The field ``usage`` of a test clip is Public or Private.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.manifests import (
    AudioFormat,
    ClipEntry,
    Manifests,
    check_counts,
    check_unique,
    load,
    present,
    state_of,
    write,
)
from tagasc.utils import cli, provenance
from tagasc.utils.errors import UserError
from tagasc.utils.log import log
from tagasc.utils.tables import Row, names_in, read_lines, read_table

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
_REMEDY = "download it again; if all clips are so, set tagging_rate in recipe.sh (--sampling-rate)"
_IGNORED = ("freesound_id", "flickr_video_URL", "license")


@dataclass(frozen=True)
class Release:
    """Folders of audio and tables of labels of one release, by split."""

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


def prepare_fsdkaggle2019(
    corpus_dir: Path | str, output_dir: Path | str, num_jobs: int = 1, **options: Any
) -> Manifests:
    """Prepare manifests of FSDKaggle2019.

    Args:
        corpus_dir: folder of the unpacked corpus, in the layout of Zenodo or of Kaggle.
        output_dir: folder for the manifests.
        num_jobs: number of processes.
        options: further options of ``main``, by name.

    Returns:
        Recordings and supervisions by split.
    """
    main(Path(corpus_dir), Path(output_dir), nj=num_jobs, **options)
    return load(Path(output_dir), "fsdkaggle2019")


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
        corpus: folder of the unpacked corpus, in the layout of Zenodo or of Kaggle.
        out: folder for the manifests.
        sampling_rate: sampling rate of the clips, in Hz.
        longest: longest duration allowed, in seconds.
        allow_partial: accept a corpus with missing clips or splits.
        nj: number of processes.
        force: write up-to-date manifests again.
    """
    if not corpus.is_dir():
        raise UserError(f"{corpus} is not a folder; download the corpus (stage 0) or give its folder")
    corpus = corpus.resolve()
    release = release_of(corpus)
    vocabulary = _vocabulary(corpus / release.vocabulary, release)
    splits = listed_clips(corpus, release, set(vocabulary), allow_partial)
    splits = {split: present(entries, allow_partial) for split, entries in splits.items()}
    check_counts(counts_of(vocabulary, splits), published(release), corpus, allow_partial)
    tables = [corpus / name for name in {*release.tables.values(), release.vocabulary}]
    settings = {"sampling_rate": sampling_rate, "longest": longest, "allow_partial": allow_partial}
    record = provenance.record("fsdkaggle2019", settings, state_of(tables, sum(splits.values(), [])))
    if provenance.is_current(str(out), provenance.read_whole(out), record, force):
        return
    write(out, "fsdkaggle2019", splits, record, AudioFormat(sampling_rate, 1, _REMEDY, (0.0, longest)), nj)


def release_of(corpus: Path) -> Release:
    """Return the release whose layout the folder has.

    Raises:
        UserError: the folder has neither layout.
    """
    for release in (ZENODO, KAGGLE):
        if (corpus / release.tables["curated"]).exists():
            return release
    raise UserError(
        f"{corpus} has neither {ZENODO.tables['curated']} (Zenodo) nor {KAGGLE.tables['curated']} (Kaggle);"
        " download the metadata"
    )


def _vocabulary(path: Path, release: Release) -> list[str]:
    """Read the class names, in ASCII order; Zenodo's file has no header and lists index and name."""
    rows = [cells for _, cells in read_lines(path)]
    if release is ZENODO and any(len(cells) < 2 for cells in rows):
        raise UserError(f"{path} does not list the classes; download it again")
    names = rows[0][1:] if release is KAGGLE else [cells[1] for cells in rows]
    if not all(names) or names != sorted(set(names)):
        raise UserError(f"{path}: the classes are not unique and in ASCII order; download it again")
    return names


def listed_clips(
    corpus: Path, release: Release, vocabulary: set[str], allow_partial: bool
) -> dict[str, list[ClipEntry]]:
    """Read the clips that the tables list, by split; whether the audio exists is not checked.

    Raises:
        UserError: a table is missing or contradicts the vocabulary.
    """
    splits = {}
    for split in release.tables:
        table, audio = corpus / release.tables[split], corpus / release.audio[split]
        if allow_partial and split != "curated" and not (table.exists() and audio.is_dir()):
            log.warning("%s: no %s clips", corpus, split)
            continue
        columns = ["fname"] if release is KAGGLE and split == "test" else ["fname", "labels"]
        if release is ZENODO and split == "test":
            columns.append("usage")
        # In Kaggle's order, by file name: the tagger's folds are drawn from positions.
        rows = sorted(read_table(table, columns, ignored={*_IGNORED, *vocabulary}), key=lambda row: row["fname"])
        splits[split] = [_entry(audio, row, vocabulary) for row in rows]
        check_unique(splits[split], table)
    return splits


def _entry(audio: Path, row: Row, vocabulary: set[str]) -> ClipEntry:
    name = row["fname"]
    labels = names_in(row["labels"]) if "labels" in row else ()
    unknown = [label for label in labels if label not in vocabulary]
    if unknown:
        raise UserError(f"{row.where}: {name} has the label {unknown[0]!r}, which the vocabulary lacks; fix the table")
    if len(set(labels)) != len(labels):
        raise UserError(f"{row.where}: {name} has a duplicate label; fix the table")
    if Path(name).name != name:
        raise UserError(f"{row.where}: {name!r} is not a plain file name; fix the table")
    return ClipEntry(Path(name).stem, audio / name, labels, {"usage": row["usage"]} if "usage" in row else {})


def counts_of(vocabulary: list[str], splits: dict[str, list[ClipEntry]]) -> Counter[str]:
    """Count classes, and the clips and labels of each split, under the names of ``PUBLISHED``."""
    counts: Counter[str] = Counter({"classes": len(vocabulary)})
    for split, entries in splits.items():
        counts[split] = len(entries)
        counts[f"{split} labels"] = sum(len(entry.labels) for entry in entries)
        counts.update(entry.custom["usage"] for entry in entries if "usage" in entry.custom)
    return counts


def published(release: Release) -> dict[str, int]:
    """Return the published counts; Kaggle's test clips have no labels, and not everyone received all of them."""
    left_out = ("test", "test labels", "Public", "Private") if release is KAGGLE else ()
    return {name: count for name, count in PUBLISHED.items() if name not in left_out}


if __name__ == "__main__":
    cli.run(main, positional=True)
