#!/usr/bin/env python3
"""Makes a synthetic scene corpus and a synthetic tagging corpus in the layouts of TAU 2019 and FSDKaggle2019 (Zenodo).

A scene is a steady background and events that come at the scene's own rates. A location is an acoustic
character: level, tone, reverberation, a habit of its own for each event; a city shifts the habits of all its
locations. Clips of one location share it, so only location-disjoint splits are honest, as with real recordings. Both
corpora take their events from disjoint recordings, and so do their training and test parts. Scene clips are labelled
by scene; ``event_labels.csv`` beside them tells which events each holds.

The sounds are synthesised (``sounds.py``), or cut from real recordings with ``--events`` and ``--backgrounds``; then
the names of the scenes are only names, and their rates are drawn from the seed. Everything comes from one seed: the
same options give the same files, whatever the number of processes.

What is made here is synthetic, and its licence is that of what it was made from; synthesised sounds are free (CC0).
"""

import hashlib
import json
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from inspect import signature
from math import inf
from pathlib import Path

import numpy as np
import soundfile

from local.published import TAU2019
from local.synthetic.composition import SCENES, ClipPlan, Sources, location_of, rates_of, render
from local.synthetic.layout import write_labels, write_table, write_vocabulary
from local.synthetic.sounds import RecordedBackgrounds, RecordedEvents, SynthesisedEvents, band_noise
from tagasc.utils import cli
from tagasc.utils.errors import SettingError, UserError
from tagasc.utils.files import atomic_folder, write_json
from tagasc.utils.log import log, progress
from tagasc.utils.processes import mapping

_LONGEST_MARGIN = 0.3  # seconds before the event of a tagging clip


@dataclass(frozen=True)
class SceneSize:
    """Size of the scene corpus.

    Args:
        seconds: length of a clip.
        sampling_rate: in Hz.
        train: training clips of each scene.
        test: test clips of each scene.
        unused: clips of each scene that the official fold leaves out.
        clips_per_location: clips recorded at one location.
        published: take the published numbers of clips of each scene (14,400 in all) in place of the three above.
        unique_clips: of each scene's training, test and unused clips so many differ; the others are these again under
            other names, for a corpus that is large, yet soon made and, where the file system has hard links, small on
            disk. 0: all differ.
    """

    seconds: float = 10.0
    sampling_rate: int = 48000
    train: int = 30
    test: int = 20
    unused: int = 2
    clips_per_location: int = 4
    published: bool = False
    unique_clips: int = 0

    def __post_init__(self) -> None:
        if (
            min(self.seconds, self.sampling_rate, self.train, self.test, self.clips_per_location) <= 0
            or min(self.unused, self.unique_clips) < 0
        ):
            raise SettingError("seconds, sampling_rate and numbers of clips must be positive")
        if not 1 <= self.seconds * self.sampling_rate < inf:
            raise SettingError(f"seconds: {self.seconds:g} must be finite, and one sample or more")

    def of(self, scene: str) -> tuple[int, int, int]:
        """Training, test and unused clips of a scene."""
        return TAU2019[scene] if self.published else (self.train, self.test, self.unused)


@dataclass(frozen=True)
class TaggingSize:
    """Size of the tagging corpus.

    Args:
        sampling_rate: in Hz.
        curated: clips with right labels, for training.
        noisy: clips with unreliable labels.
        test: test clips; a quarter is public.
        longest: longest clip in seconds.
        second_event: probability that a clip holds a second class.
        wrong: probability that a noisy clip's label is another class's.
        missing: probability that a label of a noisy clip with two classes is not given.
        unique_clips: of each part's clips so many differ; the others are these again under other names. 0: all differ.
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
        if not _LONGEST_MARGIN <= self.longest < inf:
            raise SettingError(f"longest: {self.longest:g} must be finite, and {_LONGEST_MARGIN} s or more")
        if not all(0 <= share <= 1 for share in (self.second_event, self.wrong, self.missing)):
            raise SettingError("second_event, wrong and missing are probabilities, in 0..1")


SCENE_CORPUS = "TAU-urban-acoustic-scenes-2019-development"

TAGGING_CORPUS = "FSDKaggle2019"


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
    """Make a synthetic scene corpus and a synthetic tagging corpus.

    Args:
        out: folder for both corpora.
        scenes: size of the scene corpus.
        tagging: size of the tagging corpus.
        seed: fixes every sample of both.
        events: folder of real events, a subfolder per class; synthesised if not given.
        backgrounds: folder of long real ambiences; needed with events.
        group: pattern whose match in an event's file name tells which files may come from one recording.
        nj: number of processes.
        force: make them again even if they are there; never in place of what this program did not make.
    """
    if (events is None) != (backgrounds is None):
        raise UserError("--events and --backgrounds go together; give both or neither")
    for folder in (events, backgrounds):
        if folder is not None and not folder.is_dir():
            raise UserError(f"{folder} is not a folder; give a folder of recordings")
    if seed < 0 or nj < 1:
        raise UserError("--seed must not be negative, --nj at least 1")
    try:
        re.compile(group)
    except re.error as error:
        raise UserError(f"--group {group!r} is no pattern ({error}); see Python's re") from None
    given = {"scenes": scenes, "tagging": tagging, "seed": seed, "group": group}
    options = cli.to_json({**given, "events": _listing(events), "backgrounds": _listing(backgrounds)})
    for corpus, make in ((SCENE_CORPUS, _make_scenes), (TAGGING_CORPUS, _make_tagging)):
        target = out / corpus
        if _is_there(target, options, force):
            log.info("%s: up to date", target)
            continue
        size = scenes if corpus == SCENE_CORPUS else tagging
        with atomic_folder(target) as folder:
            make(folder, size, _sources(events, backgrounds, size.sampling_rate, seed, group), seed, nj)
            write_json(folder / "soundscapes.json", options)
        log.info("%s: made", target)


def _listing(folder: Path | None) -> str | None:
    """Stands for a folder of recordings: a hash of its files' names and sizes."""
    if folder is None:
        return None
    files = sorted(f"{p.relative_to(folder)} {p.stat().st_size}" for p in folder.rglob("*") if p.is_file())
    return hashlib.sha256("\n".join(files).encode()).hexdigest()


def _is_there(corpus: Path, options: dict, force: bool) -> bool:
    """Whether a corpus need not be made.

    Raises:
        UserError: what is there was made by something else, or, without ``force``, with other options.
    """
    if not corpus.exists():
        return False
    try:
        made = json.loads((corpus / "soundscapes.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(
            f"{corpus} was not made by this program; choose another place for the synthetic corpora"
        ) from None
    if force:
        return False
    if _with_defaults(made, options) != options:
        raise UserError(f"{corpus} was made with other options; --force makes it anew")
    former = corpus / "soundscapes_events.csv"  # its name in earlier versions
    if former.exists():
        former.rename(corpus / "event_labels.csv")
    return True


def _with_defaults(made: dict, options: dict) -> dict:
    """The options of a corpus made before; those that the program did not have yet have their defaults."""
    parameters = signature(main).parameters
    defaults = cli.to_json({name: parameters[name].default for name in options})
    return made | {
        name: value | made.get(name, {}) if isinstance(value, dict) else made.get(name, value)
        for name, value in defaults.items()
    }


def _sources(events: Path | None, backgrounds: Path | None, rate: int, seed: int, group: str) -> Sources:
    if events is None:
        return Sources(SynthesisedEvents(rate, seed))
    ambiences = RecordedBackgrounds(backgrounds, rate)
    recorded = RecordedEvents(events, rate, seed, group, ambiences.names)
    for name, why in recorded.dropped.items():
        log.info("events: %s is left out: %s", name, why)
    log.info("events: %d classes: %s", len(recorded.classes), ", ".join(recorded.classes))
    return Sources(recorded, ambiences)


def _make_scenes(folder: Path, size: SceneSize, sources: Sources, seed: int, nj: int) -> None:
    plans = _plan(size, sources, seed)
    (folder / "audio").mkdir()
    rates = rates_of(sources.events, seed)

    def make(plan: ClipPlan) -> list[tuple]:
        wave, heard = render(plan, rates[plan.scene], size.seconds, size.sampling_rate, sources, seed)
        soundfile.write(folder / "audio" / plan.name, wave, size.sampling_rate, subtype="PCM_24")
        return heard

    first = _first_of([(plan.scene, plan.part) for plan in plans], size.unique_clips)
    made = _made_once(make, plans, first, nj, "scenes")
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
            *((row[0], *event) for row, events in zip(meta, made, strict=True) for event in events),
        ],
    }
    for name, rows in tables.items():
        write_table(folder / f"{name}.csv", rows, "\t")


def _plan(size: SceneSize, sources: Sources, seed: int) -> list[ClipPlan]:
    """Every clip with its location; a location belongs to one scene and one part."""
    plans, number, taken = [], 0, [0] * len(sources.backgrounds.files if sources.backgrounds else SCENES)
    for which, scene in enumerate(SCENES):
        for part, count in zip(("train", "test", "unused"), size.of(scene), strict=True):
            for first in range(0, count, size.clips_per_location):
                location = location_of(scene, part, number, seed)
                background = which % len(taken)
                segments = range(min(size.clips_per_location, count - first))
                stretch = (background, taken[background])
                plans += [ClipPlan(len(plans) + s, scene, location, s, part, stretch) for s in segments]
                number += 1
                taken[background] += 1
    sources.stretches = taken
    return plans


def _make_tagging(folder: Path, size: TaggingSize, sources: Sources, seed: int, nj: int) -> None:
    parts = {"train_curated": size.curated, "train_noisy": size.noisy, "test": size.test}
    for which, (part, count) in enumerate(parts.items()):
        audio = folder / f"FSDKaggle2019.audio_{part}"
        audio.mkdir()
        files = [audio / f"{hashlib.sha256(f'{seed} {part} {n}'.encode()).hexdigest()[:8]}.wav" for n in range(count)]

        def make(number: int, part: str = part, which: int = which, files: list[Path] = files) -> list[str]:
            random = np.random.default_rng([seed, 8, which, number])
            wave, labels = _tagging_clip(part, number, size, sources, random)
            soundfile.write(files[number], wave, size.sampling_rate, subtype="PCM_16")
            return labels

        first = _first_of([part] * count, size.unique_clips)
        labels = _made_once(make, range(count), first, nj, f"tagging {part}")
        _link(files, first)
        rows = sorted(zip([file.name for file in files], labels, strict=True))
        usage = lambda n: "Private" if n % 4 else "Public"
        table = [(name, ",".join(sorted(held)), usage(n), n, "CC0") for n, (name, held) in enumerate(rows)]
        write_labels(folder, part, table)
    write_vocabulary(folder, sources.events.classes)


def _tagging_clip(
    part: str, number: int, size: TaggingSize, sources: Sources, random: np.random.Generator
) -> tuple[np.ndarray, list[str]]:
    names, rate = sources.events.classes, size.sampling_rate
    # Classes come round in turn, so each has about the same number of clips.
    held = [names[number % len(names)]]
    if random.uniform() < size.second_event and len(names) > 1:
        held.append(str(random.choice([name for name in names if name != held[0]])))
    pool = "tagging_test" if part == "test" else "tagging_train"
    waves = [sources.events.draw(name, pool, random) * random.uniform(0.5, 1) for name in held]
    margins = [int(rate * random.uniform(0.05, _LONGEST_MARGIN)) for _ in waves]
    length = max(len(wave) + margin for wave, margin in zip(waves, margins, strict=True)) + int(rate * 0.05)
    clip = np.zeros(min(max(length, int(0.3 * rate)), int(size.longest * rate)))
    for wave, margin in zip(waves, margins, strict=True):
        end = min(margin + len(wave), len(clip))
        clip[margin:end] += wave[: end - margin]
    # Noisy clips come from video sound tracks: more background under them.
    background = random.uniform(-30, -12) if part == "train_noisy" else random.uniform(-60, -30)
    clip += band_noise(random, len(clip), rate, 60, 4000, -4) * np.sqrt(np.mean(clip**2)) * 10 ** (background / 20)
    clip *= random.uniform(0.2, 0.9) / (np.abs(clip).max() + 1e-9)
    if part == "train_noisy":
        held = [name for n, name in enumerate(held) if n == 0 or random.uniform() >= size.missing]
        others = [name for name in names if name not in held]
        if random.uniform() < size.wrong and others:
            held[0] = str(random.choice(others))
    return clip, held


def _first_of(kinds: Iterable[Hashable], unique_clips: int) -> list[int]:
    """For each clip, the number of the one whose sound it has: its own, or in turn one of its kind's first ones."""
    seen: dict[Hashable, list[int]] = defaultdict(list)
    found = []
    for number, kind in enumerate(kinds):
        of_kind = seen[kind]
        of_kind.append(number)
        found.append(of_kind[(len(of_kind) - 1) % unique_clips] if unique_clips else number)
    return found


def _made_once(make: Callable, clips: Sequence, first: list[int], nj: int, what: str) -> list:
    """Call ``make`` for those clips that are the first of their sound; returns, for every clip, what that gave."""
    global _work
    _work = make  # a closure, which cannot be pickled: the forked processes inherit it
    numbers = sorted(set(first))
    with mapping(nj) as run:
        results = list(progress(run(_call, [clips[n] for n in numbers]), what, total=len(numbers)))
    made = dict(zip(numbers, results, strict=True))
    return [made[n] for n in first]


_work: Callable | None = None


def _call(clip: object) -> object:
    return _work(clip)


def _link(files: Sequence[Path], first: list[int]) -> None:
    """Give a file that repeats an earlier one's sound its name: a hard link, or a copy where there can be none."""
    for file, of in zip(files, first, strict=True):
        if file != files[of]:
            try:
                file.hardlink_to(files[of])
            except OSError:  # no hard links on this file system, or no more of one file
                shutil.copyfile(files[of], file)


if __name__ == "__main__":
    cli.run(main)
