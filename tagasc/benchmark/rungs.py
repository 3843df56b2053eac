"""Hold each rung of ``tagasc.training.ladder`` against plain steps in float32, on noise, before hours of work.

A rung may round differently, as plain steps in its precision do. It must not compute something else, such as a batch
that it has seen before, or running statistics that stay behind.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tagasc.benchmark.scene import SceneBenchmark, noise_clips
from tagasc.scene.corpus import SceneClips
from tagasc.scene.inference import codes_and_logits
from tagasc.scene.step import EpochPlan
from tagasc.scene.systems import System
from tagasc.scene.training import SceneTrainer
from tagasc.training.ladder import RUNGS, Ladder, Rung, RungError
from tagasc.utils.device import Precision, computing_in, precision_on, release_memory
from tagasc.utils.errors import UserError
from tagasc.utils.log import log

# Relative deviations from plain float32 steps that are allowed. Measured on a CPU: see docs/gpu.md.
FLOAT32 = {"loss": 1e-3, "weights": 0.2, "statistics": 1e-2, "codes": 1e-2}
BFLOAT16 = {"loss": 1e-2, "weights": 0.5, "statistics": 5e-2, "codes": 5e-2}
SYSTEM = System("before_code", 3, 1, 3, shared=True)  # one head suits every trunk
_EPOCHS = 4  # of two steps: three eager ones, one to capture, four replays


@dataclass(frozen=True)
class Outcome:
    """What a few steps computed, and how fast.

    Attributes:
        losses: (steps,), loss of each step.
        changes: change of the weights of each part of the network: trunk, fusion, code, output.
        statistics: running mean and variance of each batch normalisation.
        codes: (clips, code size), codes after the steps.
        first: seconds until the rung is in use: compilation, eager steps, capture.
        later: seconds of a later step.
        memory: bytes reserved on the GPU at most.
    """

    losses: Tensor
    changes: list[Tensor]
    statistics: list[Tensor]
    codes: Tensor
    first: float
    later: float
    memory: int


@dataclass(frozen=True)
class Verdict:
    """How steps on a rung compare with plain float32 steps: relative deviations, and those that are too large."""

    precision: Precision
    rung: Rung
    outcome: Outcome
    deviations: dict[str, float]
    allowed: dict[str, float]

    @property
    def differs(self) -> str:
        """What deviates too much, in words; empty if nothing does."""
        large = [(name, value) for name, value in self.deviations.items() if not value <= self.allowed[name]]
        return ", ".join(f"{name} by {value:.1%} (allowed: {self.allowed[name]:.1%})" for name, value in large)


def require_float32(device: torch.device) -> float:
    """Return the relative error of a matrix product and a convolution in float32, the larger one.

    Raises:
        UserError: it is that of TF32, which an environment variable can force on NVIDIA's libraries.
    """
    x = torch.randn(1, 256, 1, 256, generator=torch.Generator().manual_seed(0)).to(device)
    weight = x.reshape(256, 256, 1, 1)
    products = lambda x, weight: (x[0, :, 0] @ x[0, :, 0].T, F.conv2d(x, weight))
    pairs = zip(products(x, weight), products(x.double(), weight.double()), strict=True)
    error = max(_distance(ours.double(), exact) for ours, exact in pairs)
    if error > 1e-5:
        raise UserError(f"float32 products have an error of {error:.0e}, as in TF32; unset NVIDIA_TF32_OVERRIDE")
    return error


def self_test(_: Rung, ladder: Ladder, what: SceneBenchmark) -> None:
    """Let a ladder fall below a rung that fails or computes something else than plain float32 steps.

    Raises:
        UserError: float32 is TF32, or the ladder may not fall.
    """
    require_float32(ladder.device)
    began = time.monotonic()
    for verdict in compare(ladder, what, [precision_on(ladder.device)]):
        if verdict.differs and verdict.rung == "plain":
            log.warning("%s differs from float32 in %s; see --precision", verdict.precision, verdict.differs)
    log.info("self-test of %s s: steps are %s", round(time.monotonic() - began), ladder.rung)


def compare(ladder: Ladder, what: SceneBenchmark, precisions: Sequence[Precision]) -> Iterator[Verdict]:
    """Run the same few steps on each rung, from plain up to the ladder's, which falls below one that fails or differs.

    Args:
        ladder: how the steps may run.
        what: trunk, training and length of clips; those of the work to come, so that it need not compile them again.
        precisions: float32, bfloat16, or both.
    """
    with tempfile.TemporaryDirectory() as folder:
        clips = noise_clips(Path(folder) / "noise", 2 * what.training.batch, what, ladder.device)
        with computing_in("float32"):
            reference = _run_steps("plain", what, clips)
        for precision in precisions:
            allowed = FLOAT32 if precision == "float32" else BFLOAT16
            with computing_in(precision):
                for rung in reversed(RUNGS):
                    if RUNGS.index(rung) < RUNGS.index(ladder.rung):
                        break
                    try:
                        outcome = _run_steps(rung, what, clips)
                    except RungError as error:
                        ladder.fall_below(error.rung, str(error))
                        break
                    verdict = Verdict(precision, rung, outcome, _deviations(outcome, reference), allowed)
                    yield verdict
                    if rung == "plain":  # other steps may round as much again
                        allowed = {name: max(allowed[name], 2 * value) for name, value in verdict.deviations.items()}
                    if verdict.differs and rung != "plain":
                        ladder.fall_below(rung, f"they differ from plain float32 ones: {verdict.differs}")
                        break


def _run_steps(rung: Rung, what: SceneBenchmark, clips: SceneClips) -> Outcome:
    gpu = clips.device.type == "cuda"
    if gpu:
        release_memory()  # of the rung before
        torch.cuda.reset_peak_memory_stats(clips.device)
    trainer = SceneTrainer(what.training, what.trunk, SYSTEM, clips, None, 1, rung)
    before, losses, seconds = _weights(trainer), [], []
    for row in _single_steps(trainer):
        began = time.perf_counter()
        losses.append(trainer.step.epoch(row, ""))  # reads the loss, so it waits for the GPU
        seconds.append(time.perf_counter() - began)
    codes, _ = codes_and_logits(trainer.network, clips)
    return Outcome(
        torch.tensor(losses),
        [after - old for after, old in zip(_weights(trainer), before, strict=True)],
        [value.clone() for name, value in trainer.network.named_buffers() if "running" in name],
        torch.from_numpy(codes),
        sum(seconds[: len(seconds) // 2]),
        min(seconds[len(seconds) // 2 :]),
        torch.cuda.max_memory_reserved(clips.device) if gpu else 0,
    )


def _single_steps(trainer: SceneTrainer) -> Iterator[EpochPlan]:
    """Yield plans of one step each, with mixup, so that each step's loss can be read."""
    for epoch in range(_EPOCHS):
        columns = trainer.plan(trainer.config.mixup_from_epoch + epoch).columns()
        yield from (EpochPlan(*row) for row in zip(*(column.split(1) for column in columns), strict=True))


def _weights(trainer: SceneTrainer) -> list[Tensor]:
    parts = [list(part.parameters()) for part in trainer.network.children()]
    return [torch.cat([value.detach().flatten() for value in values]) for values in parts]


def _deviations(outcome: Outcome, reference: Outcome) -> dict[str, float]:
    changes = zip(outcome.changes, reference.changes, strict=True)
    statistics = zip(outcome.statistics, reference.statistics, strict=True)
    return {
        "loss": float((outcome.losses / reference.losses - 1).abs().max()),
        "weights": max(_distance(*pair) for pair in changes),
        "statistics": max(_distance(*pair) for pair in statistics),
        "codes": _distance(outcome.codes, reference.codes),
    }


def _distance(values: Tensor, reference: Tensor) -> float:
    return float((values - reference).norm() / reference.norm())
