#!/usr/bin/env python3
"""Your own tagging corpus, a folder of clips and a table of them → Lhotse manifests.

The table is a CSV with the columns ``file`` (relative to the table's folder) and ``labels`` (separated by commas, and
quoted if there are several). It may have a line per label instead: labels of lines with the same file are joined. The
column ``split`` is optional: ``curated`` (reliable labels), ``noisy`` (unreliable labels) or ``test``. Without it, all
clips are curated. The classes are the labels of the curated clips. Clips are mono.
"""

from dataclasses import replace
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
from tagasc.audio.decoding import open_audio
from tagasc.utils import cli, provenance
from tagasc.utils.errors import UserError
from tagasc.utils.tables import names_in, read_table, warn_of_alike

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
    splits = {name: present(clips, False, OWN) for name, clips in _read(table).items()}
    entries = [entry for clips in splits.values() for entry in clips]
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
    if provenance.is_current(str(out), provenance.read_whole(out), record, force):
        return
    first = splits["curated"][0].path
    with open_audio(first) as (file, _):
        audio = AudioFormat(file.samplerate, 1, f"convert it: clips are mono, with the sampling rate of {first.name}")
    write(out, "tagging_csv", {name: clips for name, clips in splits.items() if clips}, record, audio, nj)


def _read(table: Path) -> dict[str, list[ClipEntry]]:
    """Read the clips of each split; labels of several lines about the same file are joined.

    Raises:
        UserError: a line is wrong, or a file is in two splits.
    """
    clips: dict[Path, tuple[str, ClipEntry]] = {}
    for row in read_table(table, ("file", "labels"), ("split",), remedy="check the path"):
        name, path = listed_file(table, row)
        split, labels = row.get("split", "curated"), names_in(row["labels"])
        if split not in SPLITS:
            raise UserError(f"{row.where}: the split is {split!r}; it must be one of {', '.join(SPLITS)}")
        if not all(labels) or len(set(labels)) != len(labels):
            raise UserError(f"{row.where}: an empty label or a duplicate label; fix the line")
        known, clip = clips.get(path, (split, ClipEntry(name, path, (), {})))
        if known != split:
            raise UserError(f"{row.where}: {row['file']} is in both {known} and {split}; keep it in one split")
        clips[path] = split, replace(clip, labels=tuple(dict.fromkeys((*clip.labels, *labels))))
    entries = [clip for _, clip in clips.values()]
    check_unique(entries, table)
    warn_of_alike(table, "labels", (label for entry in entries for label in entry.labels))
    return {name: [clip for split, clip in clips.values() if split == name] for name in SPLITS}


if __name__ == "__main__":
    cli.run(main, positional=True)
