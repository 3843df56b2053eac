#!/usr/bin/env python3
"""Checks a GPU in half a minute, on noise: what works there, whether it computes what a CPU would, and how fast.

No stage of a recipe needs it; stage 5 makes the same test by itself. Without a GPU it prints "not run: no GPU".
"""

import platform
from dataclasses import dataclass
from importlib import metadata

import torch

from tagasc.benchmark.rungs import Verdict, compare, require_float32
from tagasc.benchmark.scene import SceneBenchmark
from tagasc.report.markdown import aligned
from tagasc.scene.config import SceneTraining
from tagasc.scene.trunk import TrunkConfig
from tagasc.training.ladder import Ladder, Rung
from tagasc.utils import cli
from tagasc.utils.device import Compile, choose_device, page_locked
from tagasc.utils.errors import UserError
from tagasc.utils.log import console

COLUMNS = (
    "precision",
    "steps",
    "loss",
    "weights",
    "statistics",
    "codes",
    "ms a step",
    "clips/s",
    "until then, s",
    "GPU, GB",
)


@dataclass(frozen=True)
class Options:
    """Compare captured, compiled and plain training steps, in float32 and bfloat16, with plain ones in float32.

    Exit status 1: a kind of steps fails or computes something else. Trainings then use the kind before it.

    Args:
        device: auto, cpu, cuda, or cuda:N; auto does nothing without a GPU.
        trunk: shape of the scene network.
        training: training of the scene network; batch and crops count.
        seconds: length of a clip, seconds.
        sampling_rate: sampling rate of the clips, Hz.
        compile: what to check: auto (on a GPU all kinds of steps), always (compiled ones on a CPU too), or never.
    """

    device: str = "auto"
    trunk: TrunkConfig = TrunkConfig()
    training: SceneTraining = SceneTraining()
    seconds: float = 10.0
    sampling_rate: int = 48000
    compile: Compile = "auto"


def main(options: Options) -> None:
    """Check, and print a table."""
    if options.device == "auto" and not torch.cuda.is_available():
        console.print("not run: no GPU")
        return
    device = choose_device(options.device)
    console.print(_machine(device))
    console.print(f"float32 products: relative error {require_float32(device):.0e} (TF32 has 3e-04)")
    ladder = Ladder(options.compile, device)
    best = "captured" if device.type == "cuda" and options.compile != "never" else ladder.rung
    what = SceneBenchmark(options.trunk, options.training, options.seconds, options.sampling_rate)
    verdicts = list(compare(ladder, what, ["float32", "bfloat16"]))
    console.print("\nrelative deviation from plain float32 steps, speed and memory; on noise\n")
    console.print(aligned((COLUMNS, [_row(verdict, options.training.batch) for verdict in verdicts])) + "\n")
    _conclude(verdicts, ladder, best)


def _machine(device: torch.device) -> str:
    lines = [f"Python {platform.python_version()}, torch {torch.__version__}"]
    if device.type == "cuda":
        card, (free, size) = torch.cuda.get_device_properties(device), torch.cuda.mem_get_info(device)
        pinned = page_locked(torch.zeros(1)).is_pinned()
        lines += [
            f"{card.name}, compute capability {card.major}.{card.minor}, {free / 1e9:.1f} of {size / 1e9:.1f} GB free",
            f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, Triton {_version('triton')}",
            f"pinned memory: {'works' if pinned else 'refused'}",
        ]
    return "\n".join(lines)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _row(verdict: Verdict, batch: int) -> tuple[str, ...]:
    outcome, deviations = verdict.outcome, [f"{value:.1e}" for value in verdict.deviations.values()]
    speed = (f"{1e3 * outcome.later:.1f}", f"{batch / outcome.later:.0f}", f"{outcome.first:.1f}")
    memory = f"{outcome.memory / 1e9:.1f}" if outcome.memory else "-"
    return (str(verdict.precision), verdict.rung, *deviations, *speed, memory)


def _conclude(verdicts: list[Verdict], ladder: Ladder, best: Rung) -> None:
    """Print what trainings will use.

    Raises:
        UserError: that is not the best of this device.
    """
    wrong = [f"{verdict.precision} {verdict.rung}: {verdict.differs}" for verdict in verdicts if verdict.differs]
    if wrong:
        raise UserError(f"these steps compute something else: {'; '.join(wrong)}; do not use them")
    if ladder.rung != best:
        raise UserError(f"{best} steps fail (see above); trainings use {ladder.rung} ones")
    console.print(f"all agree; trainings use {best} steps")


if __name__ == "__main__":
    cli.run(main)
