#!/usr/bin/env python3
"""Compose synthetic scene and tagging corpora in the layouts of TAU 2019 and FSDKaggle2019 (Zenodo).

A scene is a steady background and events at the scene's rates. A location is an acoustic character: level, tone,
reverberation, and a factor on each event's rate. A city shifts these factors in all its locations. Clips of a location
share its character, so splits must be by location, as with real recordings. The two corpora use disjoint recordings of
events, and so do their training and test parts. ``event_labels.csv`` lists the events of each scene clip.

The sounds are synthesised (``sounds.py``), or cut from recordings with ``--events`` and ``--backgrounds``. With
recordings, the scenes keep only their names, and the rates are drawn from the seed. The same seed and options give the
same files for any number of processes.

The corpora inherit the licence of their sounds; synthesised sounds are free (CC0).
"""

import hashlib
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from inspect import signature
from math import inf
from pathlib import Path

import numpy as np

from local.published import TAU2019
from local.synthetic.composition import SCENES, ClipPlan, Sources, location_of, rates_of, render
from local.synthetic.layout import write_labels, write_table, write_vocabulary
from local.synthetic.sounds import RecordedBackgrounds, RecordedEvents, SynthesisedEvents, write_sound
from local.synthetic.tagging_clip import LONGEST_MARGIN, render_tagging_clip
from tagasc.utils import cli
from tagasc.utils.errors import SettingError, UserError
from tagasc.utils.files import atomic_folder, read_json, write_json
from tagasc.utils.log import log, progress
from tagasc.utils.processes import mapping


@dataclass(frozen=True)
class SceneSize:
    """Size of the scene corpus.

    Args:
        seconds: duration of a clip, seconds.
        sampling_rate: sampling rate, Hz.
        train: training clips per scene.
        test: test clips per scene.
        unused: clips per scene outside the official fold.
        clips_per_location: clips per location.
        event_rate: factor on the events per minute.
        published: use the published numbers of clips (14,400 in all) instead of train, test and unused.
        unique_clips: number of distinct clips per scene and part; the others repeat them as hard links, which makes a
            large corpus quickly and on little disk. 0: all clips are distinct.
    """

    seconds: float = 10.0
    sampling_rate: int = 48000
    train: int = 30
    test: int = 20
    unused: int = 2
    clips_per_location: int = 4
    event_rate: float = 1.0
    published: bool = False
    unique_clips: int = 0

    def __post_init__(self) -> None:
        if (
            min(self.seconds, self.sampling_rate, self.train, self.test, self.clips_per_location) <= 0
            or min(self.unused, self.unique_clips) < 0
        ):
            raise SettingError("seconds, sampling_rate and numbers of clips must be positive")
        if not 0 <= self.event_rate < inf:
            raise SettingError(f"event_rate: {self.event_rate:g} must be a finite factor, not negative")
        if not 1 <= self.seconds * self.sampling_rate < inf:
            raise SettingError(f"seconds: {self.seconds:g} must be finite and give at least one sample")

    def of(self, scene: str) -> tuple[int, int, int]:
        """Return the numbers of training, test and unused clips of a scene."""
        return TAU2019[scene] if self.published else (self.train, self.test, self.unused)


@dataclass(frozen=True)
class TaggingSize:
    """Size of the tagging corpus.

    Args:
        sampling_rate: sampling rate, Hz.
        curated: training clips with correct labels.
        noisy: training clips with unreliable labels.
        test: test clips; a quarter of them is public.
        longest: longest duration of a clip, seconds.
        second_event: probability of a second class in a clip.
        wrong: probability that a noisy clip has the label of another class.
        missing: probability that the second label of a noisy clip is missing.
        unique_clips: number of distinct clips per part; the others repeat them. 0: all clips are distinct.
    """

    sampling_rate: int = 44100
    curated: int = 300
    noisy: int = 300
    test: int = 150
    longest: float = 15.0
    second_event: float = 0.16
    wrong: float = 0.3
    missing: float = 0.4
    unique_clips: int = 0

    def __post_init__(self) -> None:
        if min(self.sampling_rate, self.curated, self.noisy, self.test) <= 0 or self.unique_clips < 0:
            raise SettingError("sampling_rate and numbers of clips must be positive")
        if not LONGEST_MARGIN <= self.longest < inf:
            raise SettingError(f"longest: {self.longest:g} must be finite and at least {LONGEST_MARGIN} s")
        if not all(0 <= share <= 1 for share in (self.second_event, self.wrong, self.missing)):
            raise SettingError("second_event, wrong and missing must be probabilities, in 0..1")


SCENE_CORPUS = "TAU-urban-acoustic-scenes-2019-development"

TAGGING_CORPUS = "FSDKaggle2019"


_WRITTEN = ("audio", "evaluation_setup", "meta.csv", "event_labels.csv", "FSDKaggle2019.*", "soundscapes*")  # by main


def main(
    out: Path,
    scenes: SceneSize = SceneSize(),
    tagging: TaggingSize = TaggingSize(),
    seed: int = 2019,
    events: Path | None = None,
    backgrounds: Path | None = None,
    group: str = r"^(.*?)(?:-[A-Z])?$",
    nj: int = 1,
    force: bool = False,
) -> None:
    """Compose a synthetic scene corpus and a synthetic tagging corpus.

    Args:
        out: folder for both corpora.
        scenes: size of the scene corpus.
        tagging: size of the tagging corpus.
        seed: seed of both corpora.
        events: folder of recorded events, a subfolder per class; synthesised if not given.
        backgrounds: folder of long recorded ambiences, required with events.
        group: pattern whose match in an event's file name is its group; files of a group may share a recording.
        nj: number of processes.
        force: compose existing corpora again; folders that this program did not write are never replaced.
    """
    if (events is None) != (backgrounds is None):
        raise UserError("--events and --backgrounds need each other; give both or neither")
    for folder in (events, backgrounds):
        if folder is not None and not folder.is_dir():
            raise UserError(f"{folder} is not a folder; give a folder of recordings")
    if seed < 0 or nj < 1:
        raise UserError("--seed must not be negative, --nj at least 1")
    try:
        re.compile(group)
    except re.error as error:
        raise UserError(f"--group {group!r} is not a regular expression ({error}); fix it") from None
    given = {"scenes": scenes, "tagging": tagging, "seed": seed, "group": group}
    options = cli.to_json({**given, "events": _listing(events), "backgrounds": _listing(backgrounds)})
    for corpus, make in ((SCENE_CORPUS, _make_scenes), (TAGGING_CORPUS, _make_tagging)):
        target = out / corpus
        if _is_current(target, options, force):
            log.info("%s: up to date", target)
            continue
        size = scenes if corpus == SCENE_CORPUS else tagging
        with atomic_folder(target, *_WRITTEN) as folder:
            make(folder, size, _sources(events, backgrounds, size.sampling_rate, seed, group), seed, nj)
            write_json(folder / "soundscapes.json", options)
        log.info("%s: composed", target)


def _listing(folder: Path | None) -> str | None:
    """Return a hash of the file names and sizes in a folder of recordings."""
    if folder is None:
        return None
    files = sorted(f"{p.relative_to(folder)} {p.stat().st_size}" for p in folder.rglob("*") if p.is_file())
    return hashlib.sha256("\n".join(files).encode()).hexdigest()


def _is_current(corpus: Path, options: dict, force: bool) -> bool:
    """Tell whether a corpus exists with these options.

    Raises:
        UserError: the folder was not written by this program or, without ``force``, has other options.
    """
    if not corpus.exists():
        return False
    try:
        composed = read_json(corpus / "soundscapes.json", "this program")
    except (OSError, UserError):
        raise UserError(f"{corpus} was not composed by this program; choose another folder as --out") from None
    if force:
        return False
    if _with_defaults(composed, options) != options:
        raise UserError(f"{corpus} was composed with other options; --force composes it again")
    former = corpus / "soundscapes_events.csv"  # the name in earlier versions
    if former.exists():
        former.rename(corpus / "event_labels.csv")
    return True


def _with_defaults(composed: dict, options: dict) -> dict:
    """Return the options of an existing corpus; options that are newer than the corpus have their defaults."""
    parameters = signature(main).parameters
    defaults = cli.to_json({name: parameters[name].default for name in options})
    return composed | {
        name: value | composed.get(name, {}) if isinstance(value, dict) else composed.get(name, value)
        for name, value in defaults.items()
    }


def _sources(events: Path | None, backgrounds: Path | None, rate: int, seed: int, group: str) -> Sources:
    if events is None:
        return Sources(SynthesisedEvents(rate, seed))
    ambiences = RecordedBackgrounds(backgrounds, rate)
    recorded = RecordedEvents(events, rate, seed, group, ambiences.names)
    for name, reason in recorded.dropped.items():
        log.info("events: %s is left out: %s", name, reason)
    log.info("events: %d classes: %s", len(recorded.classes), ", ".join(recorded.classes))
    return Sources(recorded, ambiences)


def _make_scenes(folder: Path, size: SceneSize, sources: Sources, seed: int, nj: int) -> None:
    plans = _plan(size, sources, seed)
    (folder / "audio").mkdir()
    rates = {
        scene: {event: size.event_rate * per_minute for event, per_minute in events.items()}
        for scene, events in rates_of(sources.events, seed).items()
    }

    def make(plan: ClipPlan) -> list[tuple]:
        wave, events = render(plan, rates[plan.scene], size.seconds, size.sampling_rate, sources, seed)
        write_sound(folder / "audio" / plan.name, wave, size.sampling_rate, "PCM_24")
        return events

    first = _first_of([(plan.scene, plan.part) for plan in plans], size.unique_clips)
    events_of = _render_unique(make, plans, first, nj, "scenes")
    _link([folder / "audio" / plan.name for plan in plans], first)
    meta = [(f"audio/{plan.name}", plan.scene, plan.location.name, "a") for plan in plans]
    part = lambda name: [row[:2] for plan, row in zip(plans, meta, strict=True) if plan.part == name]
    tables = {
        "meta": [("filename", "scene_label", "identifier", "source_label"), *meta],
        "evaluation_setup/fold1_train": [("filename", "scene_label"), *part("train")],
        "evaluation_setup/fold1_evaluate": [("filename", "scene_label"), *part("test")],
        "evaluation_setup/fold1_test": [("filename",), *(row[:1] for row in part("test"))],
        "event_labels": [
            ("filename", "event", "onset", "duration", "level_db"),
            *((row[0], *event) for row, events in zip(meta, events_of, strict=True) for event in events),
        ],
    }
    for name, rows in tables.items():
        write_table(folder / f"{name}.csv", rows, "\t")


def _plan(size: SceneSize, sources: Sources, seed: int) -> list[ClipPlan]:
    """Plan every clip with its location; a location belongs to one scene and one part."""
    plans, number, stretches = [], 0, [0] * len(sources.backgrounds.files if sources.backgrounds else SCENES)
    for scene_number, scene in enumerate(SCENES):
        for part, count in zip(("train", "test", "unused"), size.of(scene), strict=True):
            for first in range(0, count, size.clips_per_location):
                location = location_of(scene, part, number, seed)
                background = scene_number % len(stretches)
                segments = range(min(size.clips_per_location, count - first))
                stretch = (background, stretches[background])
                plans += [ClipPlan(len(plans) + s, scene, location, s, part, stretch) for s in segments]
                number += 1
                stretches[background] += 1
    sources.stretches = stretches
    return plans


def _make_tagging(folder: Path, size: TaggingSize, sources: Sources, seed: int, nj: int) -> None:
    parts = {"train_curated": size.curated, "train_noisy": size.noisy, "test": size.test}
    for part_number, (part, count) in enumerate(parts.items()):
        audio = folder / f"FSDKaggle2019.audio_{part}"
        audio.mkdir()
        files = [audio / f"{hashlib.sha256(f'{seed} {part} {n}'.encode()).hexdigest()[:8]}.wav" for n in range(count)]

        def make(clip: int, part: str = part, part_number: int = part_number, files: list[Path] = files) -> list[str]:
            random = np.random.default_rng([seed, 8, part_number, clip])
            wave, labels = _tagging_clip(part, clip, size, sources, random)
            write_sound(files[clip], wave, size.sampling_rate, "PCM_16")
            return labels

        first = _first_of([part] * count, size.unique_clips)
        labels = _render_unique(make, range(count), first, nj, f"tagging {part}")
        _link(files, first)
        rows = sorted(zip([file.name for file in files], labels, strict=True))
        usage = lambda n: "Private" if n % 4 else "Public"
        table = [(name, ",".join(sorted(classes)), usage(n), n, "CC0") for n, (name, classes) in enumerate(rows)]
        write_labels(folder, part, table)
    write_vocabulary(folder, sources.events.classes)


def _tagging_clip(
    part: str, number: int, size: TaggingSize, sources: Sources, random: np.random.Generator
) -> tuple[np.ndarray, list[str]]:
    classes, rate = sources.events.classes, size.sampling_rate
    # The classes alternate, so that they have about the same number of clips.
    labels = [classes[number % len(classes)]]
    if random.uniform() < size.second_event and len(classes) > 1:
        labels.append(str(random.choice([name for name in classes if name != labels[0]])))
    clip = render_tagging_clip(part, labels, size.longest, rate, sources, random)
    if part == "train_noisy":
        labels = [name for n, name in enumerate(labels) if n == 0 or random.uniform() >= size.missing]
        others = [name for name in classes if name not in labels]
        if random.uniform() < size.wrong and others:
            labels[0] = str(random.choice(others))
    return clip, labels


def _first_of(kinds: Iterable[Hashable], unique_clips: int) -> list[int]:
    """Return, for each clip, the index of the clip whose sound it has: itself, or one of the first of its kind."""
    by_kind: dict[Hashable, list[int]] = defaultdict(list)
    first = []
    for index, kind in enumerate(kinds):
        indices = by_kind[kind]
        indices.append(index)
        first.append(indices[(len(indices) - 1) % unique_clips] if unique_clips else index)
    return first


def _render_unique(make: Callable, clips: Sequence, first: list[int], nj: int, title: str) -> list:
    """Call ``make`` for the first clip of each sound; return its result for every clip.

    Args:
        make: function of a clip.
        clips: all clips.
        first: for each clip, the index of the clip whose sound it has.
        nj: number of processes.
        title: title of the progress bar.
    """
    global _work
    _work = make  # a closure, which cannot be pickled: the forked processes inherit it
    indices = sorted(set(first))
    with mapping(nj) as run:
        results = list(progress(run(_call, [clips[index] for index in indices]), title, total=len(indices)))
    by_index = dict(zip(indices, results, strict=True))
    return [by_index[index] for index in first]


_work: Callable | None = None


def _call(clip: object) -> object:
    return _work(clip)


def _link(files: Sequence[Path], first: list[int]) -> None:
    """Create the files that repeat the sound of another: as hard links, or as copies if links fail."""
    for file, index in zip(files, first, strict=True):
        if file != files[index]:
            try:
                file.hardlink_to(files[index])
            except OSError:  # the file system has no hard links, or the file has too many
                shutil.copyfile(files[index], file)


if __name__ == "__main__":
    cli.run(main)
