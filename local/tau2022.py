#!/usr/bin/env python3
"""TAU Urban Acoustic Scenes 2022 Mobile, development set → Lhotse manifests.

The clips of TAU Urban 2020 Mobile, each cut into ten: 230,350 one-second clips (44.1 kHz, mono, 27.5 GB), 139,620 for
training and 29,680 for testing. The other 61,050 are named ``unused``, and no stage uses them; ``local/tau2020.py``
explains it. DCASE 2024 trains on a part of the training clips: 5, 10, 25, 50 or 100 % of them, whole segments, nested.

``join_segments`` puts the seconds of a segment together again, ``tags`` for the tagger alone, ``clips`` for the network
too, so that a clip lasts ten seconds. DCASE's task since 2022 is to recognise a single second. A system that hears more
is not comparable, so the report marks its figures.

- Source: https://zenodo.org/records/6337421; splits: https://github.com/CPJKU/dcase2024_task1_baseline/releases
- Licence: non-commercial, for experiments; it covers results too, such as weights trained on the clips.
- Citation: Martín-Morató, Paissan, Ancilotto, Heittola, Mesaros, Farella, Brutti, Virtanen: "Low-complexity acoustic
  scene classification in DCASE 2022 challenge", DCASE 2022.

Splits: ``train`` and ``validation`` (held out from the training clips by recording location, with all devices of a
location on one side), ``test``, ``unused``. Fields of a supervision: ``local/tau.py``; ``joined`` is the segment.
"""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from local.manifests import ClipEntry, Manifests, check_counts, load, state_of
from local.published import TAU2022, TAU2022_SPLITS, by_split
from local.tau import Release, Splits, TauSet, audio_format, check_corpus, listed_clips, write_manifests
from tagasc.utils import cli
from tagasc.utils.errors import UserError
from tagasc.utils.log import log

SET = TauSet("tau2022", 1, (Release("only", by_split(TAU2022)),), seconds_in_name=True)
SECONDS = 10  # clips of a segment
MARKS = {
    "none": "",
    "tags": "joined segments: the tagger hears ten seconds, of which the task allows one",
    "clips": "joined segments: tagger and network hear ten seconds, of which the task allows one",
}
_SPLITS = "https://github.com/CPJKU/dcase2024_task1_baseline/releases/download/files"

TrainSplit = Literal[5, 10, 25, 50, 100]
JoinSegments = Literal["none", "tags", "clips"]


def prepare_tau2022(corpus_dir: Path | str, output_dir: Path | str, num_jobs: int = 1, **options: Any) -> Manifests:
    """Prepare manifests of TAU Urban Acoustic Scenes 2022 Mobile, development set.

    Args:
        corpus_dir: folder of the unpacked corpus, with meta.csv, audio and evaluation_setup.
        output_dir: folder for the manifests.
        num_jobs: number of processes.
        options: further options of ``main``, by name.

    Returns:
        Recordings and supervisions by split.
    """
    main(Path(corpus_dir), Path(output_dir), nj=num_jobs, **options)
    return load(Path(output_dir), SET.name)


def main(
    corpus: Path,
    out: Path,
    train_split: TrainSplit = 100,
    join_segments: JoinSegments = "none",
    sampling_rate: int = 44100,
    seconds: float = 1.0,
    validation_share: float = 0.15,
    seed: int = 2022,
    allow_partial: bool = False,
    nj: int = 4,
    force: bool = False,
) -> None:
    """Write manifests of TAU Urban Acoustic Scenes 2022 Mobile, development set.

    Args:
        corpus: folder of the unpacked corpus, with meta.csv, audio and evaluation_setup.
        out: folder for the manifests.
        train_split: part of the training clips, in per cent; below 100 from evaluation_setup/split<n>.csv.
        join_segments: what the ten seconds of a segment are joined for: none, tags (the tagger) or clips (the network,
            too).
        sampling_rate: sampling rate of the clips, in Hz.
        seconds: duration of a file, in seconds, within 10 %.
        validation_share: share of the training clips held out for validation.
        seed: seed of the validation split.
        allow_partial: accept a corpus with missing clips, or with clips that no table lists.
        nj: number of processes.
        force: write up-to-date manifests again.
    """
    corpus = corpus.resolve()
    checked = check_corpus(SET, corpus, allow_partial)
    splits, tables = checked.splits, checked.tables
    if train_split != 100:
        table = corpus / f"evaluation_setup/split{train_split}.csv"
        splits, tables = _train_on(table, splits, train_split, allow_partial), [*tables, table]
    settings = {
        "train_split": train_split,
        "join_segments": join_segments,
        "mark": MARKS[join_segments],
        "sampling_rate": sampling_rate,
        "seconds": SECONDS * seconds if join_segments == "clips" else seconds,
        "validation_share": validation_share,
        "seed": seed,
        "allow_partial": allow_partial,
    }
    inputs = state_of(tables, sum(splits.values(), []))
    if join_segments != "none":
        splits = {split: _joined(entries, join_segments == "clips") for split, entries in splits.items()}
    audio = audio_format(sampling_rate, SET.channels, seconds)
    write_manifests(SET, out, splits, settings, inputs, audio, nj, force)


def _train_on(table: Path, splits: Splits, per_cent: int, allow_partial: bool) -> Splits:
    """Keep the training clips that a table lists; the others become unused.

    Raises:
        UserError: the table is missing, lists other clips, or has not the published number of them.
    """
    by_name = {f"audio/{entry.path.name}": entry for entry in sum(splits.values(), [])}
    remedy = f"download {_SPLITS}/{table.name} into {table.parent}"
    listed = {entry.id for entry in listed_clips(table, by_name, remedy, lenient=allow_partial)}
    train = [entry for entry in splits["train"] if entry.id in listed]
    others = listed - {entry.id for entry in train}
    if others:
        raise UserError(f"{table} lists {min(others)}, which is no training clip of fold 1; {remedy}")
    check_counts({"train": len(train)}, {"train": TAU2022_SPLITS[per_cent]}, table, allow_partial)
    left = [entry for entry in splits["train"] if entry.id not in listed]
    return splits | {"train": train, "unused": [*splits["unused"], *left]}


def _joined(entries: list[ClipEntry], as_clips: bool) -> list[ClipEntry]:
    """Put the seconds of each segment together.

    Args:
        entries: clips of one second.
        as_clips: return one clip per segment; otherwise the seconds in order, each with its segment as ``joined``.
    """
    segments: dict[str, list[ClipEntry]] = defaultdict(list)
    for entry in entries:
        *begin, _, device = entry.id.split("-")
        segments["-".join([*begin, device])].append(entry)
    partial = [segment for segment, parts in segments.items() if len(parts) != SECONDS]
    if partial:
        log.warning("%d segments lack seconds and are left out, first %s", len(partial), partial[0])
    joined = []
    for segment, parts in segments.items():
        if len(parts) == SECONDS:
            parts = sorted(parts, key=lambda entry: entry.id.split("-")[-2])
            parts = [replace(entry, custom={**entry.custom, "joined": segment}) for entry in parts]
            whole = replace(parts[0], id=segment, more=tuple(entry.path for entry in parts[1:]))
            joined += [whole] if as_clips else parts
    return joined


if __name__ == "__main__":
    cli.run(main, positional=True)
