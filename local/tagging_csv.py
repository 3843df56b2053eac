#!/usr/bin/env python3
"""Your own tagging corpus, a folder of clips and a table of them → Lhotse manifests.

The table is a CSV with the columns ``file`` (relative to the table's folder) and ``labels`` (separated by commas, and
quoted if there are several). The column ``split`` is optional: ``curated`` (reliable labels), ``noisy`` (unreliable
labels) or ``test``. Without it, all clips are curated. The classes are the labels of the curated clips. Clips are mono.
"""

from pathlib import Path

from local.manifests import (
    OWN,
    AudioFormat,
    ClipEntry,
    check_unique,
    header,
    listed_file,
    present,
    read_table,
    state_of,
    table_in,
    write,
)
from tagasc.utils import cli, provenance
from tagasc.utils.errors import UserError

SPLITS = ("curated", "noisy", "test")


def main(table: Path, out: Path, nj: int = 4, force: bool = False) -> None:
    """Write manifests of your own tagging corpus.

    Args:
        table: CSV with the columns file, labels and, if known, split; or a folder with sounds.csv.
        out: folder for the manifests.
        nj: number of processes.
        force: write up-to-date manifests again.
    """
    table = table_in(table, "sounds.csv")
    splits: dict[str, list[ClipEntry]] = {name: [] for name in SPLITS}
    for row in read_table(table, ("file", "labels"), ","):
        name = row.get("split", "curated")
        if name not in splits:
            raise UserError(f"{table}: {row['file']} is in the split {name!r}; it must be one of {', '.join(SPLITS)}")
        splits[name].append(_entry(table, row))
    entries = [entry for clips in splits.values() for entry in clips]
    check_unique(entries, table)
    present(entries, False, OWN)
    if not splits["curated"]:
        raise UserError(f"{table} has no curated clip, which the tagger needs for training; add some")
    known = {label for entry in splits["curated"] for label in entry.labels}
    for entry in entries:
        unknown = sorted(set(entry.labels) - known)
        if unknown:
            raise UserError(
                f"{table}: {entry.path.name} has the label {unknown[0]}, which no curated clip has; fix the line"
            )
    record = provenance.record("tagging_csv", {}, state_of([table], entries))
    if provenance.is_current(str(out), provenance.read(out), record, force):
        return
    rate = header(splits["curated"][0].path).samplerate  # all clips must have this rate
    kept = {name: clips for name, clips in splits.items() if clips}
    write(out, "tagging_csv", kept, record, AudioFormat(rate, 1), nj)


def _entry(table: Path, row: dict[str, str]) -> ClipEntry:
    name, path = listed_file(table, row["file"])
    labels = tuple(label.strip() for label in row["labels"].split(","))
    if not all(labels) or len(set(labels)) != len(labels):
        raise UserError(f"{table}: {row['file']} has no label, an empty label or a duplicate label; fix the line")
    return ClipEntry(name, path, labels, {})


if __name__ == "__main__":
    cli.run(main, positional=True)
