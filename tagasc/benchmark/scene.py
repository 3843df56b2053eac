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
from tagasc.benchmark.measure import Speed, measure, noise_folder
from tagasc.scene.config import SceneTraining
from tagasc.scene.corpus import SceneClips
from tagasc.scene.inference import codes_and_logits
from tagasc.scene.reference import ReferenceNetwork
from tagasc.scene.systems import System
from tagasc.scene.training import SceneTrainer
from tagasc.scene.trunk import TrunkConfig

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
        steps: steps per call, each with other clips.
        audio_cache: storage of the audio.
    """

    trunk: TrunkConfig = TrunkConfig()
    training: SceneTraining = SceneTraining()
    seconds: float = 10.0
    sampling_rate: int = 48000
    steps: int = 4
    audio_cache: AudioCache = "auto"


def measure_scene(
    folder: Path, what: SceneBenchmark, compiled: bool, device: torch.device, seconds: float
) -> Iterator[Speed]:
    """Measure training and inference of ``shared_h4_l3``.

    Args:
        folder: empty folder for the noise.
        what: clips and network.
        compiled: whether to use torch.compile.
        device: device to measure.
        seconds: duration of each measurement, seconds.
    """
    count = what.steps * what.training.batch
    packed = PackedAudio(noise_folder(folder / "scenes", count, what.seconds, what.sampling_rate, 2, _SCENES))
    clips = SceneClips([AudioStore(packed, device, what.audio_cache)]).tagged(
        np.random.default_rng(0).random((count, _TAGS), np.float32)
    )
    task = SceneTrainer(what.training, what.trunk, SYSTEM, clips, None, 1, compiled)
    crops = "whole clips" if what.training.crop_seconds is None else f"{what.training.crop_seconds:g}-s crops"
    yield measure(f"{PLAIN}, {crops}", _reference_steps(task, what.steps), count, device, seconds)
    for name, of in ((READY, _ready(task)), (WHOLE, clips)):
        step = SceneTrainer(what.training, what.trunk, SYSTEM, of, None, 1, compiled)
        plan = step.plan(what.training.mixup_from_epoch)
        yield measure(
            f"{name}, {crops}", lambda step=step, plan=plan: step.step.epoch(plan, ""), count, device, seconds
        )
    yield measure(CODES, lambda: codes_and_logits(task.network, clips), count, device, seconds)


def _reference_steps(task: SceneTrainer, steps: int) -> Callable[[], None]:
    """Return training steps in plain PyTorch in float32; on a GPU, products and convolutions may use TF32."""
    network = ReferenceNetwork(task.network).to(task.clips.device).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, weight_decay=1e-3, amsgrad=True)
    batch = task.config.batch
    wave = preemphasis(waveform(_crops(task)))
    tags, target = task.clips.tags[:batch], torch.arange(batch, device=wave.device) % len(_SCENES)

    def work() -> None:
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
