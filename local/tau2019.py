#!/usr/bin/env python3
"""TAU Urban Acoustic Scenes 2019, development set → Lhotse manifests.

14,400 ten-second clips (48 kHz, stereo, 24 bit, 35.6 GB) of ten scenes in ten cities, https://zenodo.org/records/2589280;
licence: non-commercial, for experiments. Fold 1 has 9185 training clips and 4185 test clips at other locations. The
other 1030 clips, all from Milan, are unused. By their digits, some of the paper's figures presumably refer to the test
clips, others to test and unused clips together, so both are kept.

Splits: ``train`` and ``validation`` (held out from the fold's training clips by recording location), ``test``,
``unused``.
"""

from collections import Counter
from pathlib import Path

from local.manifests import (
    AudioFormat,
    ClipEntry,
    check_counts,
    check_unique,
    present,
    state_of,
    write,
)
from local.published import TAU2019
from local.splits import split_by_location
from tagasc.utils import cli, provenance
from tagasc.utils.errors import UserError
from tagasc.utils.tables import Row, read_table

PUBLISHED = {
    f"{split} {scene}": count
    for scene, counts in TAU2019.items()
    for split, count in zip(("train", "test", "unused"), counts, strict=True)
}
_REMEDY = (
    "download it again; if all clips are so, set scene_rate or scene_seconds in recipe.sh (--sampling-rate, --seconds)"
)


def main(
    corpus: Path,
    out: Path,
    sampling_rate: int = 48000,
    seconds: float = 10.0,
    validation_share: float = 0.15,
    seed: int = 2019,
    allow_partial: bool = False,
    nj: int = 4,
    force: bool = False,
) -> None:
    """Write manifests of TAU Urban Acoustic Scenes 2019, development set.

    Args:
        corpus: folder of the unpacked corpus, with meta.csv, audio and evaluation_setup.
        out: folder for the manifests.
        sampling_rate: sampling rate of the clips, in Hz.
        seconds: duration of a clip, in seconds, within 10 %.
        validation_share: share of the training clips held out for validation.
        seed: seed of the validation split.
        allow_partial: accept a corpus with missing clips.
        nj: number of processes.
        force: write up-to-date manifests again.
    """
    if not corpus.is_dir():
        raise UserError(f"{corpus} is not a folder; download the corpus (stage 0) or give its folder")
    if not 0 < validation_share < 1:
        raise UserError(f"--validation-share {validation_share} must be between 0 and 1")
    corpus = corpus.resolve()
    tables = [corpus / "meta.csv", *(corpus / f"evaluation_setup/fold1_{name}.csv" for name in ("train", "evaluate"))]
    splits = official_fold(*tables)
    available = {entry.id: entry for entry in present(sum(splits.values(), []), allow_partial)}
    splits = {split: [available[e.id] for e in entries if e.id in available] for split, entries in splits.items()}
    counts = Counter(f"{split} {entry.labels[0]}" for split, entries in splits.items() for entry in entries)
    check_counts(counts, PUBLISHED, corpus, allow_partial)
    settings = {
        "sampling_rate": sampling_rate,
        "seconds": seconds,
        "validation_share": validation_share,
        "seed": seed,
        "allow_partial": allow_partial,
    }
    record = provenance.record("tau2019", settings, state_of(tables, sum(splits.values(), [])))
    if provenance.is_current(str(out), provenance.read_whole(out), record, force):
        return
    train, validation = split_by_location(splits["train"], validation_share, seed, city_of)
    splits = {"train": train, "validation": validation, "test": splits["test"], "unused": splits["unused"]}
    if not splits["unused"]:
        del splits["unused"]
    audio = AudioFormat(sampling_rate, 2, _REMEDY, (0.9 * seconds, 1.1 * seconds))
    write(out, "tau2019", splits, record, audio, nj, seconds)


def city_of(location: str) -> str:
    """Return the city of an identifier ``<city>-<location>``."""
    return location.rsplit("-", 1)[0]


def official_fold(meta: Path, train: Path, test: Path) -> dict[str, list[ClipEntry]]:
    """Read the official fold from its tables; whether the audio exists is not checked.

    Args:
        meta: table of all clips.
        train: table of the training clips.
        test: table of the test clips.

    Returns:
        The clips of train, test and unused.

    Raises:
        UserError: the tables contradict each other, or a location is in both train and test.
    """
    columns = ("filename", "scene_label", "identifier")
    entries = [_entry(meta, row) for row in read_table(meta, columns, ignored=["source_label"], delimiter="\t")]
    check_unique(entries, meta)
    by_name = {f"audio/{entry.path.name}": entry for entry in entries}
    splits = {"train": _listed(train, by_name), "test": _listed(test, by_name)}
    train_locations, test_locations = ({entry.custom["location"] for entry in part} for part in splits.values())
    shared = train_locations & test_locations
    if shared:
        raise UserError(
            f"{meta.parent}: location {min(shared)} is in both train and test of fold 1; download the metadata again"
        )
    used = {entry.id for part in splits.values() for entry in part}
    return splits | {"unused": [entry for entry in entries if entry.id not in used]}


def _listed(table: Path, by_name: dict[str, ClipEntry]) -> list[ClipEntry]:
    """Read the clips that one table of the fold lists."""
    rows = read_table(table, ("filename", "scene_label"), delimiter="\t")
    for row in rows:
        entry = by_name.get(row["filename"])
        if entry is None:
            raise UserError(f"{row.where}: {row['filename']} is not in meta.csv; download the metadata again")
        if entry.labels[0] != row["scene_label"]:
            scenes = f"{row['scene_label']}, and {entry.labels[0]} in meta.csv"
            raise UserError(f"{row.where}: {row['filename']} has the scene {scenes}; download both again")
    entries = [by_name[row["filename"]] for row in rows]
    check_unique(entries, table)
    return entries


def _entry(table: Path, row: Row) -> ClipEntry:
    corpus = table.parent
    path = corpus / row["filename"]
    if row["scene_label"] not in TAU2019:
        raise UserError(f"{row.where}: {row['filename']} has the unknown scene {row['scene_label']!r}; fix the table")
    if path.parent != corpus / "audio" or not row["filename"].startswith("audio/"):
        raise UserError(f"{row.where}: {row['filename']!r} is not in audio/; fix the table")
    return ClipEntry(path.stem, path, (row["scene_label"],), {"location": row["identifier"]})


if __name__ == "__main__":
    cli.run(main, positional=True)
