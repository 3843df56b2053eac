"""Levels of packed clips: audio in other units than -1..1 is refused; level and clipping of a split are described."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tagasc.utils.errors import UserError
from tagasc.utils.log import log

NAME = "levels.json"
_FULL = 32767 / 32768  # the largest int16 sample
_SILENT = 0.5 / 32768  # rounds to 0
_PEAK = 2.0  # decoded MP3s pass full scale by less
_BEYOND = 0.01  # of a clip's samples


@dataclass(frozen=True)
class Level:
    """What packing measured of one clip.

    Attributes:
        crc32: checksum of the stored samples.
        error: mean square of the rounding error; 0 if nothing is rounded.
        energy: mean square of the samples, of full scale 1.
        peak: largest absolute sample.
        full: number of samples at full scale or beyond.
        beyond: number of samples beyond full scale.
    """

    crc32: int
    error: float
    energy: float
    peak: float
    full: int
    beyond: int


def count_full(block: np.ndarray, peak: float) -> tuple[int, int]:
    """Return the numbers of samples at full scale or beyond it, and beyond it."""
    if peak < _FULL:
        return 0, 0
    absolute = np.abs(block)
    return int(np.count_nonzero(absolute >= _FULL)), int(np.count_nonzero(absolute > 1))


def check_scale(path: str, level: Level, samples: int) -> None:
    """Refuse a clip whose samples are not in -1..1; a few beyond full scale, as of an MP3, are accepted.

    Raises:
        UserError: the clip goes far beyond full scale, or often.
    """
    if level.peak > _PEAK or level.beyond > _BEYOND * samples:
        raise UserError(
            f"{path} goes beyond full scale: its largest sample is {level.peak:.4g}, not within -1..1; write its corpus"
            " again, divided by full scale (docs/packed_audio.md has a program)"
        )


def summary(levels: Sequence[Level], samples: Sequence[int]) -> dict[str, Any]:
    """Describe a split.

    Args:
        levels: one per clip.
        samples: number of samples of each clip, of all channels.
    """
    ratios = [10 * np.log10(level.energy / level.error) for level in levels if level.error > 0 and level.energy > 0]
    heard = [10 * np.log10(level.energy) for level in levels if level.energy > 0]
    peak = max(level.peak for level in levels)
    return {
        "clips": len(levels),
        "level, dB of full scale": _percentiles(heard),
        "largest peak, dB of full scale": round(20 * float(np.log10(peak)), 2) if peak else None,
        "silent clips": sum(level.peak < _SILENT for level in levels),
        "clips with samples at full scale": sum(level.full > 0 for level in levels),
        "share of samples at full scale": sum(level.full for level in levels) / sum(samples),
        "clips with samples beyond full scale": sum(level.beyond > 0 for level in levels),
        "signal to rounding error, dB": _percentiles(ratios),
    }


def _percentiles(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    quiet, median, loud = np.percentile(values, [1, 50, 99])
    return {"1st percentile": round(quiet, 2), "median": round(median, 2), "99th percentile": round(loud, 2)}


def report(title: str, split: dict[str, Any], rounded: bool) -> None:
    """Log a summary; warn of silence and of samples beyond full scale."""
    if level := split["level, dB of full scale"]:
        log.info(
            "%s: level %.1f dB of full scale in the median clip, %.1f dB in the quietest hundredth; peak %.1f dB;"
            " %.2g %% of the samples are at full scale, in %d clips",
            title, level["median"], level["1st percentile"], split["largest peak, dB of full scale"],
            100 * split["share of samples at full scale"], split["clips with samples at full scale"],
        )  # fmt: skip
    if ratio := split["signal to rounding error, dB"]:
        log.info(
            "%s: signal to rounding error %.1f dB in the median clip, %.1f dB in the quietest hundredth",
            title, ratio["median"], ratio["1st percentile"],
        )  # fmt: skip
    if count := split["silent clips"]:
        log.warning("%s: %d of %d clips are silent", title, count, split["clips"])
    if count := split["clips with samples beyond full scale"]:
        action = "clipped" if rounded else "kept"
        log.warning("%s: %d clips have samples beyond full scale, which are %s", title, count, action)
