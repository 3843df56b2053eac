#!/usr/bin/env python3
"""TAU Urban Acoustic Scenes 2019, development set → Lhotse manifests.

14,400 ten-second clips (48 kHz, stereo, 24 bit, 35.6 GB) of ten scenes in ten cities, https://zenodo.org/records/2589280;
licence: non-commercial, for experiments. Fold 1 has 9185 training clips and 4185 test clips at other locations; 1030
clips, all from Milan, are in neither. The paper's printed figures come partly from the test clips, partly from test
and unused ones together, so both are kept.

Splits: ``train`` and ``validation`` (cut from the fold's training clips by whole recording locations), ``test``,
``unused``.
"""

from collections import Counter
from pathlib import Path

from local.manifests import (
    ClipEntry,
    check_counts,
    check_unique,
    present,
    read_table,
    split_by_location,
    state_of,
    write,
)
from local.published import TAU2019
from tagasc.utils import cli, provenance
from tagasc.utils.errors import UserError

PUBLISHED = {
    f"{split} {scene}": count
    for scene, counts in TAU2019.items()
    for split, count in zip(("train", "test", "unused"), counts, strict=True)
}


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
        corpus: the unpacked folder, with meta.csv, audio and evaluation_setup.
        out: folder for the manifests.
        sampling_rate: that the clips have, in Hz.
        seconds: that the clips last, give or take a tenth.
        validation_share: of the training clips.
        seed: of the validation split.
        allow_partial: take a corpus that lacks clips.
        nj: number of processes.
        force: write them again even if they are there.
    """
    if not corpus.is_dir():
        raise UserError(f"{corpus} is not a folder; fetch the corpus (stage 0) or say where it is")
    if not 0 < validation_share < 1:
        raise UserError(f"--validation_share {validation_share} must lie between 0 and 1")
    corpus = corpus.resolve()
    splits = _official(corpus, allow_partial)
    tables = [
        corpus / "meta.csv",
        *(corpus / "evaluation_setup" / f"fold1_{name}.csv" for name in ("train", "evaluate")),
    ]
    settings = {
        "sampling_rate": sampling_rate,
        "seconds": seconds,
        "validation_share": validation_share,
        "seed": seed,
        "allow_partial": allow_partial,
    }
    record = provenance.record("tau2019", settings, state_of(tables, sum(splits.values(), [])))
    if provenance.is_current(str(out), provenance.read(out), record, force):
        return
    kept, validation = split_by_location(splits["train"], validation_share, seed, city_of)
    splits = {"train": kept, "validation": validation, "test": splits["test"], "unused": splits["unused"]}
    if not splits["unused"]:
        del splits["unused"]
    write(out, "tau2019", splits, record, sampling_rate, 2, (0.9 * seconds, 1.1 * seconds), nj, seconds)


def city_of(location: str) -> str:
    """The city of an identifier ``<city>-<location>``."""
    return location.rsplit("-", 1)[0]


def _official(corpus: Path, allow_partial: bool) -> dict[str, list[ClipEntry]]:
    """The official fold: entries of train, test and unused."""
    meta = corpus / "meta.csv"
    entries = [_entry(corpus, row, meta) for row in read_table(meta, ("filename", "scene_label", "identifier"), "\t")]
    check_unique(entries, meta)
    by_name = {f"audio/{entry.path.name}": entry for entry in entries}
    fold = {}
    for split, table in (("train", "fold1_train.csv"), ("test", "fold1_evaluate.csv")):
        path = corpus / "evaluation_setup" / table
        rows = read_table(path, ("filename", "scene_label"), "\t")
        for row in rows:
            entry = by_name.get(row["filename"])
            if entry is None:
                raise UserError(f"{path} lists {row['filename']}, which meta.csv does not; fetch the metadata again")
            if entry.labels[0] != row["scene_label"]:
                raise UserError(
                    f"{path} calls {row['filename']} {row['scene_label']}, meta.csv {entry.labels[0]}; fetch both again"
                )
        fold[split] = [by_name[row["filename"]] for row in rows]
        check_unique(fold[split], path)
    train, test = ({entry.id for entry in fold[split]} for split in ("train", "test"))
    shared = {e.custom["location"] for e in fold["train"]} & {e.custom["location"] for e in fold["test"]}
    if shared:
        raise UserError(
            f"{corpus}: location {min(shared)} is in both train and test of fold 1; fetch the metadata again"
        )
    used = train | test
    fold["unused"] = [entry for entry in entries if entry.id not in used]
    fold = dict(zip(fold, _present(list(fold.values()), allow_partial), strict=True))
    counts = Counter(f"{split} {entry.labels[0]}" for split, entries in fold.items() for entry in entries)
    check_counts(counts, PUBLISHED, corpus, allow_partial)
    return fold


def _present(parts: list[list[ClipEntry]], allow_partial: bool) -> list[list[ClipEntry]]:
    there = {entry.id for entry in present(sum(parts, []), allow_partial)}
    return [[entry for entry in part if entry.id in there] for part in parts]


def _entry(corpus: Path, row: dict[str, str], table: Path) -> ClipEntry:
    path = corpus / row["filename"]
    if row["scene_label"] not in TAU2019:
        raise UserError(f"{table}: {row['filename']} has the unknown scene {row['scene_label']!r}; mend the table")
    if path.parent != corpus / "audio" or not row["filename"].startswith("audio/"):
        raise UserError(f"{table}: {row['filename']!r} does not lie in audio/; mend the table")
    return ClipEntry(path.stem, path, (row["scene_label"],), {"location": row["identifier"]})


if __name__ == "__main__":
    cli.run(main, positional=True)
