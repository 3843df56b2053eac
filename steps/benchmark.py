#!/usr/bin/env python3
"""Measures how fast this machine does the work, in clips a second, on noise; no stage of a recipe needs it."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from tagasc import command, provenance
from tagasc.console import console, log
from tagasc.errors import UserError
from tagasc.files import write_json
from tagasc.report import aligned
from tagasc.speed import Speed
from tagasc.tagger.speed import speeds as tagger_speeds
from tagasc.training import choose_device

What = Literal["tagger", "all"]


@dataclass(frozen=True)
class Options:
    """Where and how long to measure; see ``main``."""

    folder: Path
    batch: int | None
    compiled: bool
    device: torch.device
    seconds: float


def tagger(options: Options) -> Iterator[Speed]:
    """The tagger's training step, log-mel, and tagging of scene clips."""
    batch = options.batch or (64 if options.device.type == "cuda" else 8)
    return tagger_speeds(options.folder, batch, options.compiled, options.device, options.seconds)


MEASUREMENTS: dict[str, Callable[[Options], Iterator[Speed]]] = {"tagger": tagger}


def main(
    what: What,
    seconds: float = 10.0,
    batch: int | None = None,
    compiled: bool = False,
    device: str = "auto",
    json: Path | None = None,
) -> None:
    """Print clips a second for each part of the work, all measured in one run.

    Args:
        what: which part of the chain: tagger; or all.
        seconds: for each measurement.
        batch: clips at a time, of each stream where there are several; null: 64 on a GPU, 8 on a CPU.
        compiled: also measure training steps as torch.compile makes them.
        device: auto, cpu, cuda, or cuda:N.
        json: also write the figures, with machine and versions, to this file.
    """
    if seconds < 0 or (batch is not None and batch < 2):
        raise UserError("--seconds must not be negative, --batch at least 2")
    where = choose_device(device)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    log.info("%s, torch %s", name, torch.__version__)
    rows, found = [], []
    for part in MEASUREMENTS if what == "all" else (what,):
        with tempfile.TemporaryDirectory() as folder:
            for speed in MEASUREMENTS[part](Options(Path(folder), batch, compiled, where, seconds)):
                log.info("%s: %s: %.3g clips/s", part, speed.what, speed.clips_per_second)
                rows.append((part, speed.what, f"{speed.clips_per_second:.3g}", str(speed.calls)))
                found.append({"part": part, **asdict(speed)})
    console.print("\n" + aligned((("part", "what", "clips/s", "calls"), rows)) + "\n")
    if json is not None:
        settings = {"what": what, "seconds": seconds, "batch": batch, "device": name}
        write_json(json, {"speeds": found, "made_from": provenance.made_from("benchmark", settings, {})})


if __name__ == "__main__":
    command.run(main, positional=True)
