#!/usr/bin/env python3
"""Try a tagger on made-up sounds, and say in words what is wrong with it."""

import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tagasc.audio.packed import FORMAT, PackedAudio
from tagasc.sources.source import SourceOptions, TagSource, open_source
from tagasc.utils import cli
from tagasc.utils.device import choose_device
from tagasc.utils.errors import UserError
from tagasc.utils.files import write_json
from tagasc.utils.log import log

RATE = 48000  # of the sounds, Hz; TAU's, so most taggers have them resampled
_SECONDS = 10
_SAME = 1e-3  # tags that differ by more are not of the same sound; rounding in 16 bits stays below
_SOFTMAX = 1e-3


@dataclass(frozen=True, kw_only=True)
class Options(SourceOptions):
    """Try a tagger on noise and silence, short and long, alone and in a batch.

    Args:
        tags_from: the tagger, as for extract_tags.py (docs/taggers.md).
        device: auto, cpu, cuda, or cuda:N.
    """

    tags_from: str
    device: str = "auto"


def main(options: Options) -> None:
    """Try the tagger; fail if something is wrong with it."""
    if options.tags_from.endswith(".npz"):
        raise UserError(f"{options.tags_from} holds tags and is no tagger; give what they were made with")
    source = open_source(options.tags_from, choose_device(options.device), options)
    with tempfile.TemporaryDirectory() as name:
        trial = Trial(source, Path(name))
        for check in (_classes, _silence, _repeated, _batch, _state, _lengths):
            trial.run(check)
    if trial.problems:
        raise UserError(f"{options.tags_from}: {len(trial.problems)} problem(s): {'; '.join(trial.problems)}")
    log.info("%s: nothing wrong was found", options.tags_from)


@dataclass
class Trial:
    """A tagger on trial.

    Attributes:
        source: the tagger.
        folder: folder for the sounds.
        problems: what is wrong, in words.
    """

    source: TagSource
    folder: Path
    problems: list[str] = field(default_factory=list)

    def run(self, check: Callable[["Trial"], str]) -> None:
        """Run one check, which returns what it found and raises UserError where something is wrong."""
        try:
            log.info("%s", check(self))
        except UserError as error:
            self.problems.append(str(error).removeprefix(f"{self.folder / 'sounds'}: "))
            log.warning("problem: %s", self.problems[-1])

    def tags(self, *waves: np.ndarray) -> np.ndarray:
        """Tag sounds together; return float32 (sounds, classes)."""
        folder = self.folder / "sounds"
        folder.mkdir(exist_ok=True)
        samples = np.concatenate(waves)[:, None]
        np.save(folder / "audio.npy", samples)
        clips, start = [], 0
        for number, wave in enumerate(waves):
            place = {"id": f"sound {number + 1}", "start": start, "frames": len(wave), "crc32": zlib.crc32(wave)}
            clips.append({**place, "labels": [], "location": "", "usage": ""})
            start += len(wave)
        write_json(folder / "index.json", {"format": FORMAT, "sampling_rate": RATE, "channels": 1, "clips": clips})
        return self.source.tags(PackedAudio(folder))

    def highest(self, values: np.ndarray) -> str:
        """Name the three highest classes."""
        order = np.argsort(-values)[:3]
        return ", ".join(f"{self.source.classes[n]} {values[n]:.2f}" for n in order)


def noise(seed: int, seconds: float = _SECONDS, level: float = 0.1) -> np.ndarray:
    """Return white noise."""
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE)).astype(np.float32)


SILENCE = np.zeros(_SECONDS * RATE, np.float32)


def _classes(trial: Trial) -> str:
    names = trial.source.classes
    return (
        f"{len(names)} classes, first {', '.join(names[:3])}; last {names[-1]}: compare their order with the tagger's"
    )


def _silence(trial: Trial) -> str:
    """Noise and silence must sound different, and a class of silence must be among the highest on silence."""
    heard, silent = trial.tags(noise(1), SILENCE)
    if np.abs(heard - silent).max() < 1e-4:
        raise UserError("noise and silence get the same tags: its weights may not be loaded, or its input not used")
    names = [name.lower() for name in trial.source.classes]
    if "silence" in names and names.index("silence") not in np.argsort(-silent)[: max(1, len(names) // 20)]:
        raise UserError(
            f"on silence it hears {trial.highest(silent)}, and Silence is not among the highest twentieth: its classes"
            " may be in another order"
        )
    softmax = np.abs(np.array([heard.sum(), silent.sum()]) - 1).max() < _SOFTMAX
    note = "; tags add up to 1 (a softmax): wrong for a tagger of several events at once" if softmax else ""
    return f"noise: {trial.highest(heard)}; silence: {trial.highest(silent)}{note}"


def _repeated(trial: Trial) -> str:
    first, _, third = trial.tags(noise(1), noise(2), noise(1))
    _require_same(first, third, "the same sound twice in a batch gets different tags: the order of rows may be wrong")
    return "the same sound twice in a batch gets the same tags"


def _batch(trial: Trial) -> str:
    together, alone = trial.tags(noise(1), noise(2, level=0.5), SILENCE)[0], trial.tags(noise(1))[0]
    _require_same(together, alone, "a sound gets other tags in a batch than alone: it is not in evaluation mode, or it"
                                   " normalises over the batch; set batch to 1 if that cannot be helped")  # fmt: skip
    return "a sound gets the same tags in a batch and alone"


def _state(trial: Trial) -> str:
    before = trial.tags(noise(1))[0]
    trial.tags(noise(3, level=0.5))
    _require_same(before, trial.tags(noise(1))[0], "a sound gets other tags after another sound: a state leaks between"
                                                   " calls, or something is drawn at random")  # fmt: skip
    return "a sound gets the same tags before and after another sound"


def _lengths(trial: Trial) -> str:
    waves = (noise(4, 1), noise(4, 25))
    trial.tags(*waves)
    treated = trial.source.lengths(PackedAudio(trial.folder / "sounds"))
    return "sounds of 1 s and 25 s: " + ", ".join(f"{count} {name}" for name, count in treated.items())


def _require_same(first: np.ndarray, second: np.ndarray, problem: str) -> None:
    if (difference := float(np.abs(first - second).max())) > _SAME * max(1, float(np.abs(first).max())):
        raise UserError(f"{problem} (largest difference {difference:.2g})")


if __name__ == "__main__":
    cli.run(main)
