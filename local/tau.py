"""What the TAU Urban Acoustic Scenes sets share: clip names, tables, the official fold, validation by location.

Every set has ``audio/``, ``meta.csv`` (filename, scene_label, identifier, source_label) and ``evaluation_setup/`` with
the tables of fold 1, all tab-separated, with either kind of line end. A clip is
``<scene>-<city>-<location>-<segment>-<device>.wav``; where a segment is cut into seconds, the name has the second's
number before the device. Its supervision has the fields ``city``, ``device``, ``location`` (``<city>-<location>``) and
``segment``.
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.manifests import AudioFormat, ClipEntry, check_counts, check_unique, present, state_of, write
from local.published import TAU2019
from local.splits import split_by_location
from tagasc.utils import provenance
from tagasc.utils.errors import UserError
from tagasc.utils.log import log
from tagasc.utils.tables import Row, read_table

Splits = dict[str, list[ClipEntry]]
SCENES = tuple(TAU2019)
AGAIN = "download the metadata again"
_REMEDY = (
    "download it again; if all clips are so, set scene_rate or scene_seconds in recipe.sh (--sampling-rate, --seconds)"
)


@dataclass(frozen=True)
class Release:
    """A release of a set.

    Attributes:
        name: what to call it, for the log.
        published: numbers of clips by "<split> <scene>" or "<split> <device>".
        only: clips that no other release lists, by which it is recognised.
        withdrawn: clips of an older release, whose audio may remain on the disk.
    """

    name: str
    published: dict[str, int]
    only: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()


@dataclass(frozen=True)
class TauSet:
    """What distinguishes one set from another.

    Attributes:
        name: name of the corpus, with which its manifests begin.
        channels: channels of a clip.
        releases: its releases; the last one is taken if no other is recognised.
        seconds_in_name: whether a clip is a second of a segment, with its number in the file name.
        unused_leaks: whether the clips in neither list repeat training clips or test locations. If so, they get no cut
            manifest, and no stage uses them.
    """

    name: str
    channels: int
    releases: tuple[Release, ...]
    seconds_in_name: bool = False
    unused_leaks: bool = True


@dataclass(frozen=True)
class Checked:
    """A corpus whose tables and files were checked.

    Attributes:
        splits: clips of ``train``, ``test`` and ``unused`` that exist.
        tables: tables that they were read from.
        release: name of the release.
    """

    splits: Splits
    tables: list[Path]
    release: str


def check_corpus(tau: TauSet, corpus: Path, allow_partial: bool) -> Checked:
    """Read the tables of a set, and compare them with the files and with the published numbers.

    Raises:
        UserError: files are missing, or in no table, or the numbers are not the published ones, unless
            ``allow_partial``; or the tables contradict each other.
    """
    if not corpus.is_dir():
        raise UserError(f"{corpus} is not a folder; download the corpus (stage 0) or give its folder")
    tables = [corpus / "meta.csv", *(corpus / f"evaluation_setup/fold1_{name}.csv" for name in ("train", "evaluate"))]
    splits = official_fold(*tables, seconds_in_name=tau.seconds_in_name)
    entries = sum(splits.values(), [])
    listed = {entry.id for entry in entries}
    release = next((each for each in tau.releases if listed.intersection(each.only)), tau.releases[-1])
    if len(tau.releases) > 1:
        log.info("%s: the %s release, %d clips", tau.name, release.name, len(entries))
    available = {entry.id: entry for entry in present(entries, allow_partial)}
    _check_unlisted(corpus, listed.union(release.withdrawn), allow_partial)
    splits = {split: [available[e.id] for e in entries if e.id in available] for split, entries in splits.items()}
    check_counts(counts_of(splits), release.published, corpus, allow_partial)
    return Checked(splits, tables, release.name)


def write_manifests(
    tau: TauSet,
    out: Path,
    splits: Splits,
    settings: dict[str, Any],
    inputs: dict,
    audio: AudioFormat,
    nj: int,
    force: bool,
) -> None:
    """Hold out validation clips by location, and write the manifests, unless they are up to date.

    Args:
        tau: the set.
        out: folder for the manifests.
        splits: clips of ``train``, ``test`` and ``unused``.
        settings: every option that the manifests depend on, with ``validation_share``, ``seed`` and ``seconds``.
        inputs: files that they depend on, from ``state_of``.
        audio: format that every file must have.
        nj: number of processes.
        force: write up-to-date manifests again.
    """
    share = settings["validation_share"]
    if not 0 < share < 1:
        raise UserError(f"--validation-share {share} must be between 0 and 1")
    record = provenance.record(tau.name, settings | {"fields": sorted(splits["train"][0].custom)}, inputs)
    if provenance.is_current(str(out), provenance.read_whole(out), record, force):
        return
    train, validation = split_by_location(splits["train"], share, settings["seed"], city_of)
    splits = {"train": train, "validation": validation, "test": splits["test"], "unused": splits["unused"]}
    splits = {split: entries for split, entries in splits.items() if entries or split != "unused"}
    uncut = ("unused",) if tau.unused_leaks else ()
    write(out, tau.name, splits, record, audio, nj, settings["seconds"], uncut)


def prepare(
    tau: TauSet,
    corpus: Path,
    out: Path,
    sampling_rate: int,
    seconds: float,
    validation_share: float,
    seed: int,
    allow_partial: bool,
    nj: int,
    force: bool,
) -> None:
    """Check a set whose clips are whole segments, and write its manifests; see ``main`` of the sets' modules."""
    checked = check_corpus(tau, corpus.resolve(), allow_partial)
    settings = {
        "sampling_rate": sampling_rate,
        "seconds": seconds,
        "validation_share": validation_share,
        "seed": seed,
        "allow_partial": allow_partial,
        "release": checked.release,
    }
    inputs = state_of(checked.tables, sum(checked.splits.values(), []))
    audio = audio_format(sampling_rate, tau.channels, seconds)
    write_manifests(tau, out, checked.splits, settings, inputs, audio, nj, force)


def audio_format(sampling_rate: int, channels: int, seconds: float) -> AudioFormat:
    """Return the format of a set's files, whose durations may differ by 10 %."""
    return AudioFormat(sampling_rate, channels, _REMEDY, (0.9 * seconds, 1.1 * seconds))


def city_of(location: str) -> str:
    """Return the city of an identifier ``<city>-<location>``."""
    return location.rsplit("-", 1)[0]


def counts_of(splits: Splits) -> Counter[str]:
    """Count the clips of each split by scene and by device, as in ``Release.published``."""
    named = ((split, entry) for split, entries in splits.items() for entry in entries)
    return Counter(f"{split} {name}" for split, e in named for name in (e.labels[0], e.custom["device"]))


def official_fold(meta: Path, train: Path, test: Path, seconds_in_name: bool = False) -> Splits:
    """Read the official fold from its tables; whether the audio exists is not checked.

    Args:
        meta: table of all clips.
        train: table of the training clips.
        test: table of the test clips.
        seconds_in_name: whether a clip is a second of a segment.

    Returns:
        The clips of train, test and unused.

    Raises:
        UserError: the tables contradict each other, or a location is in both train and test.
    """
    columns = ("filename", "scene_label", "identifier", "source_label")
    entries = [_entry(meta.parent / "audio", row, seconds_in_name) for row in read_table(meta, columns, delimiter="\t")]
    check_unique(entries, meta)
    by_name = {f"audio/{entry.path.name}": entry for entry in entries}
    splits = {"train": listed_clips(train, by_name), "test": listed_clips(test, by_name)}
    train_locations, test_locations = ({entry.custom["location"] for entry in part} for part in splits.values())
    shared = train_locations & test_locations
    if shared:
        raise UserError(f"{meta.parent}: location {min(shared)} is in both train and test of fold 1; {AGAIN}")
    used = {entry.id for part in splits.values() for entry in part}
    return splits | {"unused": [entry for entry in entries if entry.id not in used]}


def listed_clips(
    table: Path, by_name: dict[str, ClipEntry], remedy: str = AGAIN, lenient: bool = False
) -> list[ClipEntry]:
    """Read the clips that a table lists.

    Args:
        table: table with the columns filename and scene_label.
        by_name: the clips of meta.csv by the name in its column filename.
        remedy: what to do if the table is missing, for the error.
        lenient: leave out clips that are not in ``by_name``.

    Raises:
        UserError: the table is missing or contradicts meta.csv.
    """
    rows = read_table(table, ("filename", "scene_label"), delimiter="\t", remedy=remedy)
    rows = [row for row in rows if row["filename"] in by_name or not lenient]
    for row in rows:
        entry = by_name.get(row["filename"])
        if entry is None:
            raise UserError(f"{row.where}: {row['filename']} is not in meta.csv; {AGAIN}")
        if entry.labels[0] != row["scene_label"]:
            scenes = f"{row['scene_label']}, and {entry.labels[0]} in meta.csv"
            raise UserError(f"{row.where}: {row['filename']} has the scene {scenes}; download both again")
    entries = [by_name[row["filename"]] for row in rows]
    check_unique(entries, table)
    return entries


def _entry(audio: Path, row: Row, seconds_in_name: bool) -> ClipEntry:
    folder, _, name = row["filename"].rpartition("/")
    stem = os.path.splitext(name)[0]
    if row["scene_label"] not in SCENES:
        raise UserError(f"{row.where}: {row['filename']} has the unknown scene {row['scene_label']!r}; fix the table")
    if folder != "audio":
        raise UserError(f"{row.where}: {row['filename']!r} is not in audio/; fix the table")
    scene, *place, device = stem.split("-")
    if len(place) != 3 + seconds_in_name:
        form = f"<scene>-<city>-<location>-<segment>-{'<second>-' * seconds_in_name}<device>.wav"
        raise UserError(f"{row.where}: {row['filename']!r} is not called {form}; is this another set? {AGAIN}")
    if (scene, "-".join(place[:2]), device) != (row["scene_label"], row["identifier"], row["source_label"]):
        raise UserError(f"{row.where}: {row['filename']!r} and the other columns contradict each other; {AGAIN}")
    fields = {"location": row["identifier"], "city": place[0], "device": device, "segment": place[2]}
    return ClipEntry(stem, audio / name, (row["scene_label"],), fields)


def _check_unlisted(corpus: Path, known: set[str], allow_partial: bool) -> None:
    """Check that every sound file of a corpus is in its table.

    Raises:
        UserError: a file is not, and ``allow_partial`` is false.
    """
    names = (path.name for path in (corpus / "audio").iterdir()) if (corpus / "audio").is_dir() else ()
    unlisted = sorted(name for name in names if name.endswith(".wav") and not name.startswith("."))
    unlisted = [name for name in unlisted if name.removesuffix(".wav") not in known]
    if not unlisted:
        return
    message = f"{len(unlisted)} file(s) of {corpus / 'audio'} are not in meta.csv, first {unlisted[0]}"
    if not allow_partial:
        raise UserError(f"{message}; move them away, or leave them out with --allow-partial (allow_partial=true)")
    log.warning("%s; left out", message)
