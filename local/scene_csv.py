#!/usr/bin/env python3
"""Your own scene corpus, a folder of clips and a table of them → Lhotse manifests.

The table is a CSV with the columns ``file`` (relative to the table's folder) and ``scene``. The columns ``location``
and ``split`` are optional. Clips cut from the same recording, or recorded at the same place, must share a location,
because all clips of a location stay in one split. Without the column, every clip is a separate location. Any further
column, such as ``device``, becomes a field of the supervisions, by which the report groups the test clips.

With ``from_folders`` there is no table: each folder is a scene, or a pattern finds scene, location, split and further
columns in paths. The table that this gives is written as ``scenes.csv`` beside the manifests.

Splits are ``train``, ``validation``, ``test`` and ``unused``. Without the column, test clips are held out by location.
Without validation clips, these are held out from the training clips by location.
"""

import csv
import io
from pathlib import Path

from local.folders import A_FOLDER_A_SCENE, rows_of
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
from local.summary import describe
from tagasc.audio.decoding import open_audio
from tagasc.utils import cli, provenance
from tagasc.utils.errors import UserError
from tagasc.utils.log import log
from tagasc.utils.tables import Row, read_table, warn_of_alike

SPLITS = ("train", "validation", "test", "unused")
COLUMNS = ("file", "scene", "location", "split")
_RESERVED = ("labels", "content", "seconds", "joined", "source", "usage")  # fields that mean something to the stages


def main(
    table: Path,
    out: Path,
    from_folders: bool = False,
    pattern: str = A_FOLDER_A_SCENE,
    seconds: float | None = None,
    test_share: float = 0.3,
    validation_share: float = 0.15,
    seed: int = 2019,
    nj: int = 4,
    force: bool = False,
) -> None:
    """Write manifests of your own scene corpus.

    Args:
        table: CSV with the columns file, scene and, if known, location and split; or a folder with scenes.csv; or, with
            from_folders, the folder of the clips.
        out: folder for the manifests.
        from_folders: read scenes from the folders, without a table.
        pattern: regular expression for a clip's whole path from the folder on, whose named groups are columns:
            (?P<scene>…) and, if known, location, split and others. By default the first folder is the scene.
        seconds: duration of a clip, in seconds, within 10 %; any duration if not given.
        test_share: share of all clips, if the table has no splits.
        validation_share: share of the training clips, if the table has no validation clips.
        seed: seed of both splits.
        nj: number of processes.
        force: write up-to-date manifests again.
    """
    if not (0 < test_share < 1 and 0 < validation_share < 1):
        raise UserError("--test-share and --validation-share must be between 0 and 1")
    table, rows = _rows(table, pattern if from_folders else None)
    _check_columns(table, rows)
    entries = [_entry(table, row) for row in rows]
    check_unique(entries, table)
    warn_of_alike(table, "scenes", (entry.labels[0] for entry in entries))
    warn_of_alike(table, "locations", (row["location"] for row in rows if "location" in row))
    entries = present(entries, False, OWN)
    shares = {"test_share": test_share, "validation_share": validation_share, "seed": seed}
    settings = {"seconds": seconds, **shares, "fields": _fields(rows[0])}
    settings |= {"pattern": pattern} if from_folders else {}
    record = provenance.record("scene_csv", settings, state_of([] if from_folders else [table], entries))
    if provenance.is_current(str(out), provenance.read_whole(out), record, force):
        return
    splits = _splits(table, rows, entries, test_share, validation_share, seed)
    describe(splits, nj)
    tables = {"scenes.csv": _as_csv(rows)} if from_folders else {}
    write(out, "scene_csv", splits, record, _format(entries[0].path, seconds), nj, seconds, tables=tables)


def _rows(path: Path, pattern: str | None) -> tuple[Path, list[Row]]:
    """Return the table and its rows; with a pattern, those that it makes of a folder, and the table's place there."""
    if pattern is not None:
        return path / "scenes.csv", rows_of(path, pattern)
    table = table_in(path, "scenes.csv")
    remedy = "check the path, or use --from-folders"
    return table, read_table(table, COLUMNS[:2], COLUMNS[2:], ignored=None, remedy=remedy)


def _check_columns(table: Path, rows: list[Row]) -> None:
    """Say which columns become fields, and warn if every clip counts as a separate place."""
    fields = _fields(rows[0])
    for name in fields:
        if name in _RESERVED:
            raise UserError(f"{table}: the column {name} has a name that stages use; rename it")
    if fields:
        log.info("%s: further columns, which become fields: %s", table, ", ".join(fields))
    if "location" not in rows[0]:
        log.warning("%s: no locations; every clip counts as a separate place, which is optimistic if it is not", table)


def _fields(row: Row) -> list[str]:
    return [name for name in row if name and name not in COLUMNS]


def _as_csv(rows: list[Row]) -> str:
    """Return rows as the text of a table."""
    names = [*COLUMNS, *dict.fromkeys(name for row in rows for name in _fields(row))]
    names = [name for name in names if any(name in row for row in rows)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([row.get(name, "") for name in names] for row in rows)
    return text.getvalue()


def _entry(table: Path, row: Row) -> ClipEntry:
    name, path = listed_file(table, row)
    fields = {field: row[field] for field in _fields(row) if row[field]}
    return ClipEntry(name, path, (row["scene"],), {"location": row.get("location", name), **fields})


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
