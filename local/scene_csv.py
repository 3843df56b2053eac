#!/usr/bin/env python3
"""Your own scene corpus, a folder of clips and a table of them → Lhotse manifests.

The table is a CSV with the columns ``file`` (relative to the table's folder) and ``scene``. The columns ``location``
and ``split`` are optional. Clips cut from the same recording, or recorded at the same place, must share a location,
because all clips of a location stay in one split. Without the column, every clip is a separate location.

Splits are ``train``, ``validation``, ``test`` and ``unused``. Without the column, test clips are held out by location.
Without validation clips, these are held out from the training clips by location.
"""

from pathlib import Path

from local.manifests import (
    OWN,
    AudioFormat,
    ClipEntry,
    check_unique,
    listed_file,
    present,
    state_of,
    table_in,
    write,
)
from local.splits import split_by_location
from tagasc.audio.decoding import open_audio
from tagasc.utils import cli, provenance
from tagasc.utils.errors import UserError
from tagasc.utils.tables import Row, read_table, warn_of_alike

SPLITS = ("train", "validation", "test", "unused")


def main(
    table: Path,
    out: Path,
    seconds: float | None = None,
    test_share: float = 0.3,
    validation_share: float = 0.15,
    seed: int = 2019,
    nj: int = 4,
    force: bool = False,
) -> None:
    """Write manifests of your own scene corpus.

    Args:
        table: CSV with the columns file, scene and, if known, location and split; or a folder with scenes.csv.
        out: folder for the manifests.
        seconds: duration of a clip, in seconds, within 10 %; any duration if not given.
        test_share: share of all clips, if the table has no splits.
        validation_share: share of the training clips, if the table has no validation clips.
        seed: seed of both splits.
        nj: number of processes.
        force: write up-to-date manifests again.
    """
    if not (0 < test_share < 1 and 0 < validation_share < 1):
        raise UserError("--test-share and --validation-share must be between 0 and 1")
    table = table_in(table, "scenes.csv")
    rows = read_table(table, ("file", "scene"), ("location", "split"), remedy="check the path")
    entries = [_entry(table, row) for row in rows]
    check_unique(entries, table)
    warn_of_alike(table, "scenes", (entry.labels[0] for entry in entries))
    warn_of_alike(table, "locations", (row["location"] for row in rows if "location" in row))
    entries = present(entries, False, OWN)
    shares = {"test_share": test_share, "validation_share": validation_share, "seed": seed}
    record = provenance.record("scene_csv", {"seconds": seconds, **shares}, state_of([table], entries))
    if provenance.is_current(str(out), provenance.read_whole(out), record, force):
        return
    splits = _splits(table, rows, entries, test_share, validation_share, seed)
    write(out, "scene_csv", splits, record, _format(entries[0].path, seconds), nj, seconds)


def _entry(table: Path, row: Row) -> ClipEntry:
    name, path = listed_file(table, row)
    return ClipEntry(name, path, (row["scene"],), {"location": row.get("location", name)})


def _format(first: Path, seconds: float | None) -> AudioFormat:
    """Return the format of the first clip, which all must have."""
    remedy = f"convert it to the format of {first.name}, the first clip of the table"
    with open_audio(first) as (file, _):
        rate, channels = file.samplerate, file.channels
    if seconds is None:
        return AudioFormat(rate, channels, remedy, one_length=True)
    return AudioFormat(rate, channels, f"{remedy}, or change --scene-seconds", (0.9 * seconds, 1.1 * seconds))


def _splits(
    table: Path,
    rows: list[Row],
    entries: list[ClipEntry],
    test_share: float,
    validation_share: float,
    seed: int,
) -> dict[str, list[ClipEntry]]:
    splits: dict[str, list[ClipEntry]] = {name: [] for name in SPLITS}
    if "split" in rows[0]:
        splits = _listed_splits(table, rows, entries)
    else:
        splits["train"], splits["test"] = split_by_location(entries, test_share, seed, kept=2, name="test")
    if not splits["validation"]:
        splits["train"], splits["validation"] = split_by_location(splits["train"], validation_share, seed)
    _check_scenes(table, splits)
    return {name: clips for name, clips in splits.items() if clips}


def _listed_splits(table: Path, rows: list[Row], entries: list[ClipEntry]) -> dict[str, list[ClipEntry]]:
    """Return the splits that the table lists."""
    splits: dict[str, list[ClipEntry]] = {name: [] for name in SPLITS}
    split_of: dict[str, str] = {}
    for row, entry in zip(rows, entries, strict=True):
        split, location = row["split"], entry.custom["location"]
        if split not in splits:
            raise UserError(f"{row.where}: the split is {split!r}; it must be one of {', '.join(SPLITS)}")
        splits[split].append(entry)
        first = split_of.setdefault(location, split)
        if first != split:
            raise UserError(f"{row.where}: location {location} is in both {first} and {split}; keep it in one split")
    for split in ("train", "test"):
        if not splits[split]:
            raise UserError(f"{table} has no clip in the split {split}; add some, or remove the column")
    return splits


def _check_scenes(table: Path, splits: dict[str, list[ClipEntry]]) -> None:
    """Check that there are two training scenes or more, and that they cover all splits."""
    trained = {entry.labels[0] for entry in splits["train"]}
    if len(trained) < 2:
        raise UserError(f"{table} has training clips of one scene only, {min(trained)}; add clips of another")
    for name, clips in splits.items():
        for entry in clips:
            if entry.labels[0] not in trained:
                raise UserError(
                    f"{table}: {entry.path.name} in the split {name} has the scene {entry.labels[0]}, which has no"
                    " training clip; add some, or leave the scene out"
                )


if __name__ == "__main__":
    cli.run(main, positional=True)
