"""Show a scene corpus before anything is trained: clips by scene and split, locations, formats; and find duplicates."""

import filecmp
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from local.manifests import ClipEntry, content_sample
from tagasc.audio.decoding import open_audio
from tagasc.utils.errors import UserError
from tagasc.utils.log import log, progress
from tagasc.utils.processes import mapping

MIN_LOCATIONS = {"train": 3, "test": 2}  # of a scene; with fewer, a network may learn the place
_PER_PART = 256

Splits = dict[str, list[ClipEntry]]


@dataclass(frozen=True)
class Sound:
    """What a file's header says, and a sample of its content."""

    frames: int
    rate: int
    channels: int
    content: tuple[int, int]


def describe(splits: Splits, jobs: int) -> None:
    """Log a summary of a corpus, and warn of scenes with few locations.

    Args:
        splits: clips by split.
        jobs: number of processes.

    Raises:
        UserError: clips of two splits are the same file or have the same content, or a file is unreadable.
    """
    sounds = _sounds([entry.path for entries in splits.values() for entry in entries], jobs)
    formats = [sounds[entry.path] for entries in splits.values() for entry in entries]
    for line in (*_table(splits), *_formats(formats)):
        log.info("%s", line)
    _warn_of_few_locations(splits)
    _check_duplicates(splits, sounds)


def _sounds(paths: list[Path], jobs: int) -> dict[Path, Sound]:
    parts = [paths[start : start + _PER_PART] for start in range(0, len(paths), _PER_PART)]
    with mapping(jobs) as run:
        found = sum(progress(run(_read, parts), "summary", total=len(parts)), [])
    return dict(zip(paths, found, strict=True))


def _read(paths: list[Path]) -> list[Sound]:
    sounds = []
    for path in paths:
        with open_audio(path) as (file, frames):
            content = path.stat().st_size, content_sample(path)
            sounds.append(Sound(frames, file.samplerate, file.channels, content))
    return sounds


def _table(splits: Splits) -> list[str]:
    """Return the lines of a table: clips and, in brackets, locations of each scene and split."""
    scenes = sorted({entry.labels[0] for entries in splits.values() for entry in entries})
    rows = [["clips (locations)", *splits]]
    for scene in (*scenes, "all"):
        chosen = [[e for e in entries if scene in (e.labels[0], "all")] for entries in splits.values()]
        rows.append([scene, *(f"{len(each)} ({len(_locations(each))})" for each in chosen)])
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def _formats(sounds: list[Sound]) -> list[str]:
    """Return a line each on lengths, sampling rates and channels, the most frequent first."""
    kinds = {
        "length": Counter(f"{sound.frames / sound.rate:g} s" for sound in sounds),
        "sampling rate": Counter(f"{sound.rate} Hz" for sound in sounds),
        "channels": Counter(str(sound.channels) for sound in sounds),
    }
    return [f"{kind}: {_counted(counts)}" for kind, counts in kinds.items()]


def _counted(counts: Counter[str], most: int = 4) -> str:
    listed = ", ".join(f"{name} ({count} clips)" for name, count in counts.most_common(most))
    return listed + (f" and {len(counts) - most} more" if len(counts) > most else "")


def _locations(entries: Iterable[ClipEntry]) -> set[str]:
    return {entry.custom["location"] for entry in entries}


def _warn_of_few_locations(splits: Splits) -> None:
    for split, least in MIN_LOCATIONS.items():
        by_scene: dict[str, set[str]] = defaultdict(set)
        for entry in splits.get(split, ()):
            by_scene[entry.labels[0]].add(entry.custom["location"])
        for scene, locations in sorted(by_scene.items()):
            if len(locations) < least:
                log.warning(
                    "scene %s has %s clips of %d location%s only; a network may learn the place, add others",
                    scene, split, len(locations), "s" if len(locations) > 1 else "",
                )  # fmt: skip


def _check_duplicates(splits: Splits, sounds: dict[Path, Sound]) -> None:
    """Check that no clip of a split has the content of a clip of another."""
    alike: dict[tuple[int, int], list[tuple[str, Path]]] = defaultdict(list)
    for split, entries in splits.items():
        for entry in entries:
            alike[sounds[entry.path].content].append((split, entry.path))
    for group in alike.values():
        if len({split for split, _ in group}) > 1:
            for (split, path), (other, same) in combinations(group, 2):
                if split != other and filecmp.cmp(path, same, shallow=False):
                    raise UserError(
                        f"{path} in {split} and {same} in {other} have the same content; remove one, or give both"
                        " one location, which keeps them in one split"
                    )
