"""Speed of a scene network's training and inference, part by part, on noise."""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tagasc.audio.packed import PackedAudio
from tagasc.audio.store import AudioCache, AudioStore
from tagasc.audio.waveform import preemphasis, waveform
from tagasc.benchmark.measure import Speed, measure, noise_folder, tf32
from tagasc.scene.config import SceneTraining
from tagasc.scene.corpus import CodeWindows, SceneClips
from tagasc.scene.inference import codes_and_logits
from tagasc.scene.reference import ReferenceNetwork
from tagasc.scene.step import EpochPlan
from tagasc.scene.systems import System
from tagasc.scene.training import SceneTrainer
from tagasc.scene.trunk import TrunkConfig
from tagasc.training.ladder import RUNGS, Ladder, Rung, RungError

SYSTEM = System("before_code", 3, 4, 3, shared=True)  # shared_h4_l3, the paper's best
PLAIN = "training step, plain PyTorch, ready waves"
READY = "our training step, ready samples"
WHOLE = "our training step, data path included"
CODES = "codes of whole clips"
_SCENES = [f"scene{n}" for n in range(10)]
_TAGS = 80


@dataclass(frozen=True)
class SceneBenchmark:
    """Clips and network to measure.

    Args:
        trunk: shape of the network.
        training: batch, length of crops, optimiser.
        seconds: length of a clip, seconds.
        sampling_rate: sampling rate of the clips, Hz.
        channels: channels of the clips.
        steps: steps with different clips.
        repeats: how often a call repeats these steps on a GPU, where a few of them are too short to time.
        audio_cache: storage of the audio.
    """

    trunk: TrunkConfig = TrunkConfig()
    training: SceneTraining = SceneTraining()
    seconds: float = 10.0
    sampling_rate: int = 48000
    channels: int = 2
    steps: int = 4
    repeats: int = 25
    audio_cache: AudioCache = "auto"


def noise_clips(folder: Path, count: int, what: SceneBenchmark, device: torch.device) -> SceneClips:
    """Write ``count`` clips of noise into a new folder and open them, with scenes and tags, on a device."""
    packed = PackedAudio(noise_folder(folder, count, what.seconds, what.sampling_rate, what.channels, _SCENES))
    tags = np.random.default_rng(0).random((count, _TAGS), np.float32)
    return SceneClips([AudioStore(packed, device, what.audio_cache)]).tagged(tags)


def measure_scene(
    folder: Path, what: SceneBenchmark, ladder: Ladder, device: torch.device, seconds: float
) -> Iterator[Speed]:
    """Measure training and inference of ``shared_h4_l3``, training on each rung up to the ladder's.

    Args:
        folder: empty folder for the noise.
        what: clips and network.
        ladder: how the steps run; it falls where a rung fails.
        device: device to measure.
        seconds: duration of each measurement, seconds.
    """
    clips = noise_clips(folder / "scenes", what.steps * what.training.batch, what, device)
    times = what.repeats if device.type == "cuda" else 1
    count = times * len(clips)
    crops = "whole clips" if what.training.crop_seconds is None else f"{what.training.crop_seconds:g}-s crops"
    new = lambda rung, of=clips: SceneTrainer(what.training, what.trunk, SYSTEM, of, None, 1, rung)
    yield measure(f"{PLAIN}, {crops}", _reference_steps(new("plain"), times * what.steps), count, device, seconds)

    def speed(rung: Rung, name: str, of: SceneClips) -> Speed:
        task = new(rung, of)
        plan = EpochPlan(*(column.repeat(times, 1) for column in task.plan(what.training.mixup_from_epoch).columns()))
        return measure(f"{name}, {rung}, {crops}", lambda: task.step.epoch(plan, ""), count, device, seconds)

    for rung in reversed(RUNGS):  # the fastest last
        if RUNGS.index(rung) < RUNGS.index(ladder.rung):
            break
        try:
            whole = speed(rung, WHOLE, clips)
        except RungError as error:
            ladder.fall_below(rung, str(error))
            break
        yield whole
    yield speed(ladder.rung, READY, _ready(new("plain")))
    network, indices = new(ladder.rung).network, torch.arange(count) % len(clips)
    windows = CodeWindows(indices, torch.zeros_like(indices), clips.frames)
    yield measure(CODES, lambda: codes_and_logits(network, clips, windows), count, device, seconds)


def _reference_steps(task: SceneTrainer, steps: int) -> Callable[[], None]:
    """Return training steps in plain PyTorch in float32; on a GPU, products and convolutions use TF32."""
    network = ReferenceNetwork(task.network).to(task.clips.device).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, weight_decay=1e-3, amsgrad=True)
    batch = task.config.batch
    wave = preemphasis(waveform(_crops(task)))
    tags, target = task.clips.tags[:batch], torch.arange(batch, device=wave.device) % len(_SCENES)

    def work() -> None:
        with tf32():
            for _ in range(steps):
                optimizer.zero_grad(set_to_none=True)
                F.cross_entropy(network(wave, tags)[1], target).backward()
                optimizer.step()

    return work


def _ready(task: SceneTrainer) -> SceneClips:
    """Return the clips with a store that delivers the same ready batch again and again."""
    samples = _crops(task)

    class Ready:
        on_gpu = False

        def batches(self, clips: Tensor, starts: Tensor, frames: int) -> Iterator[Tensor]:
            return repeat(samples, len(clips))

    clips = copy(task.clips)
    clips.store = Ready()
    return clips


def _crops(task: SceneTrainer) -> Tensor:
    plan = task.plan(1)
    return next(task.clips.store.batches(plan.clip_indices[:1], plan.crop_starts[:1], task.frames)).clone()
