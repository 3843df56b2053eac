#!/usr/bin/env python3
"""Record a composed scene corpus with several devices, in the layout of TAU 2020, TAU 2022 or CochlScene.

A device is a frequency response and a noise floor. As in TAU 2020, device a records everything; b, c and s1 to s3 also
record one segment of each training location, s4 to s6 none, and every device records every test segment. The responses
of s4 to s6 differ most, so a system is worse on them. In CochlScene's layout a participant, who has one device, is a
location. The corpora are **synthetic**: they show that a recipe runs and that its report tells devices apart.

Durations are those of the composed clips. In TAU 2022's layout each clip is cut into ten equal parts.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile

from local.cochlscene import SCENES as CLASSES
from local.synthetic.composition import toned
from local.synthetic.layout import write_table
from local.synthetic.sounds import write_sound
from local.tau import SCENES
from tagasc.utils import cli
from tagasc.utils.errors import UserError
from tagasc.utils.files import atomic_folder, read_json, write_json
from tagasc.utils.log import log, progress
from tagasc.utils.processes import mapping

Layout = Literal["tau2020", "tau2022", "cochlscene"]
_WRITTEN = ("audio", "evaluation_setup", "meta.csv", "Train", "Val", "Test", "devices.json")
_PARTS = 10  # of a clip, in TAU 2022's layout


@dataclass(frozen=True)
class Device:
    """A device that records.

    Attributes:
        tone: tilt in dB per octave; resonance centre in Hz, width in octaves, height in dB.
        noise: noise floor, dB full scale.
    """

    tone: tuple[float, float, float, float]
    noise: float


DEVICES = {
    "a": Device((0.0, 1000, 1.0, 0.0), -80),
    "b": Device((0.5, 2500, 0.6, 4.0), -66),
    "c": Device((-0.5, 900, 0.8, 4.0), -66),
    "s1": Device((1.0, 1500, 0.5, 5.0), -64),
    "s2": Device((-1.0, 3500, 0.5, 5.0), -64),
    "s3": Device((0.3, 600, 0.7, 6.0), -62),
    "s4": Device((6.0, 2800, 0.4, 14.0), -40),
    "s5": Device((-7.0, 400, 0.5, 14.0), -38),
    "s6": Device((7.0, 1200, 0.3, -18.0), -36),
}
UNSEEN = ("s4", "s5", "s6")  # record nothing that is trained on


@dataclass(frozen=True)
class Take:
    """One recording: a composed clip, the device, and the files that it is written to, in order."""

    source: Path
    device: str
    files: tuple[Path, ...]


def main(
    corpus: Path, out: Path, layout: Layout = "tau2020", seed: int = 2020, nj: int = 1, force: bool = False
) -> None:
    """Record a composed corpus with several devices.

    Args:
        corpus: scene corpus that compose.py has composed.
        out: folder of the new corpus.
        layout: whose layout it has.
        seed: seed of the devices' noise.
        nj: number of processes.
        force: record an existing corpus again; folders that this program did not write are never replaced.
    """
    if nj < 1 or seed < 0:
        raise UserError("--nj must be at least 1, --seed not negative")
    composed = read_json(corpus / "soundscapes.json", "compose.py")
    options = {"layout": layout, "seed": seed, "composed": composed}
    if out.exists():
        known = read_json(out / "devices.json", "this program") if (out / "devices.json").exists() else None
        if known is None:
            raise UserError(f"{out} was not recorded by this program; choose another folder as OUT")
        if {name: known.get(name) for name in options} == options and not force:
            log.info("%s: up to date", out)
            return
    parts = {part: _clips(corpus, part) for part in ("train", "test")}
    with atomic_folder(out, *_WRITTEN) as folder:
        takes = _cochlscene(folder, parts) if layout == "cochlscene" else _tau(folder, parts, layout == "tau2022")
        work = [(take, [seed, number]) for number, take in enumerate(takes)]
        with mapping(nj) as run:
            for _ in progress(run(_record, work), "recording", total=len(work)):
                pass
        write_json(folder / "devices.json", options)
    log.info("%s: %d recordings", out, len(takes))


def _clips(corpus: Path, part: str) -> list[Path]:
    """List the clips of a part of the official fold."""
    table = corpus / f"evaluation_setup/fold1_{'train' if part == 'train' else 'evaluate'}.csv"
    with table.open(newline="", encoding="utf-8") as file:
        return [corpus / row["filename"] for row in csv.DictReader(file, delimiter="\t")]


def _tau(folder: Path, parts: dict[str, list[Path]], seconds: bool) -> list[Take]:
    """Plan the recordings in the layout of TAU 2020 or 2022, and write the tables."""
    takes: list[Take] = []
    rows: dict[str, list[tuple]] = {"train": [], "test": [], "unused": []}
    for part, clips in parts.items():
        places: set[str] = set()
        for clip in clips:
            scene, city, location, segment, _ = clip.stem.split("-")
            place = f"{city}-{location}"
            others = () if part == "train" and place in places else tuple(DEVICES)[1:]
            places.add(place)
            for device in ("a", *others):
                numbers = [f"{n}-" for n in range(_PARTS)] if seconds else [""]
                names = [f"audio/{scene}-{place}-{segment}-{number}{device}.wav" for number in numbers]
                kept = "unused" if part == "train" and device in UNSEEN else part
                rows[kept] += [(name, scene, place, device) for name in names]
                takes.append(Take(clip, device, tuple(folder / name for name in names)))
    (folder / "audio").mkdir()
    header = ("filename", "scene_label", "identifier", "source_label")
    setup = folder / "evaluation_setup"
    write_table(folder / "meta.csv", [header, *(row for some in rows.values() for row in some)], "\t")
    for table, part, columns in (("train", "train", 2), ("evaluate", "test", 2), ("test", "test", 1)):
        write_table(setup / f"fold1_{table}.csv", [header[:columns], *(row[:columns] for row in rows[part])], "\t")
    return takes


def _cochlscene(folder: Path, parts: dict[str, list[Path]]) -> list[Take]:
    """Plan the recordings in the layout of CochlScene; every third location of a scene is for validation."""
    takes, users = [], list(DEVICES)
    for part, clips in parts.items():
        places: dict[str, list[str]] = {}
        for clip in clips:
            scene, _, location, segment, _ = clip.stem.split("-")
            known = places.setdefault(scene, [])
            if location not in known:
                known.append(location)
            name, split = CLASSES[SCENES.index(scene)], "Test"
            if part == "train":
                split = "Val" if known.index(location) % 3 == 2 else "Train"
            user, device = int(location), users[int(location) % len(users)]
            file = folder / f"{split}/{name}/{name}_user{user:04}_{user:08}_{int(segment):03}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            takes.append(Take(clip, device, (file,)))
    return takes


def _record(work: tuple[Take, list[int]]) -> None:
    """Record one clip, mono, and write its parts."""
    take, seed = work
    wave, rate = soundfile.read(take.source, always_2d=True)
    device = DEVICES[take.device]
    heard = toned(wave.mean(axis=1, keepdims=True), rate, device.tone)[:, 0]
    heard = heard + np.random.default_rng(seed).normal(size=len(heard)) * 10 ** (device.noise / 20)
    heard /= max(1.0, float(np.abs(heard).max()))
    length = len(heard) // len(take.files)
    for number, file in enumerate(take.files):
        write_sound(file, heard[number * length : (number + 1) * length], rate, "PCM_24")


if __name__ == "__main__":
    cli.run(main, positional=True)
