"""How fast the tagger is trained and used, part by part, on noise in place of clips."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet34

from tagasc.audio.packed import PackedAudio
from tagasc.benchmark.measure import Speed, measure, noise_folder
from tagasc.tagger.clips import TaggedClips
from tagasc.tagger.config import TaggerTraining
from tagasc.tagger.features import MelConfig, MelPower, normalise, reflect, to_decibels
from tagasc.tagger.inference import Ensemble
from tagasc.tagger.network import Head, TaggerConfig, TaggerNetwork
from tagasc.tagger.training import FoldSetup, TaggerTrainer
from tagasc.training.augment import EpochRng

STEP = "our training step, from packed audio, separate passes"
TAGS = "tags of 10-s 48-kHz stereo clips, one model, one pad"
_CLASSES = [f"class{n:02d}" for n in range(80)]


def measure_tagger(
    folder: Path,
    model: TaggerConfig,
    mel: MelConfig,
    training: TaggerTraining,
    compiled: bool,
    device: torch.device,
    seconds: float,
) -> Iterator[Speed]:
    """Measure a tagger in training (two streams) and in use; beside the published one, what plain PyTorch makes of it.

    Args:
        folder: an empty folder, for the noise.
        model: shape of the network.
        mel: the spectrogram.
        training: its batch and crops.
        compiled: measure the training step as torch.compile makes it, too.
        device: where.
        seconds: for each measurement.
    """
    batch = training.batch
    if model == TaggerConfig():
        plain = _torchvision_step(batch, device)
        yield measure("training step, plain PyTorch in float32, ready spectrograms", plain, 2 * batch, device, seconds)
    for also in (False, True)[: 1 + compiled]:
        task = _task(folder / f"compiled{also}", model, mel, training, also, device)
        streams, rng = task.streams(EpochRng(1, 1)), EpochRng(1, 1)
        step = lambda task=task, streams=streams, rng=rng: task.step(streams, 0, rng)
        yield measure("compiled: " * also + STEP, step, 2 * batch, device, seconds)
    yield measure("log-mel of 10-s clips alone", _log_mel(mel, batch, device), batch, device, seconds)
    scenes = PackedAudio(noise_folder(folder / "scenes", batch, 10.0, 48000, 2, _CLASSES))
    ensemble = Ensemble([TaggerNetwork(model, 80).to(device).eval()], mel, _CLASSES, (0,))
    yield measure(TAGS, lambda: ensemble.tag_scenes(scenes, device, batch), batch, device, seconds)


class _TorchvisionTagger(nn.Module):
    """The same network out of torchvision's parts, without any of our choices."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = resnet34()
        self.trunk.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        self.trunk.avgpool, self.trunk.fc = nn.AdaptiveMaxPool2d(1), nn.Identity()
        self.heads = nn.ModuleList(Head(512, 80, TaggerConfig()) for _ in range(2))

    def forward(self, log_mel: Tensor, head: int) -> Tensor:
        return self.heads[head](self.trunk(log_mel.unsqueeze(1)))


def _torchvision_step(batch: int, device: torch.device) -> Callable[[], None]:
    """A step on two streams; float32 as PyTorch has it by default, which on a GPU lets convolutions use TF32."""
    network = _TorchvisionTagger().to(device)
    optimizer = torch.optim.Adam(network.parameters())
    inputs, target = torch.randn(2, batch, 128, 512, device=device), torch.zeros(batch, 80, device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        sum(F.binary_cross_entropy_with_logits(network(inputs[n], n), target) for n in range(2)).backward()
        optimizer.step()

    return step


def _task(
    folder: Path, model: TaggerConfig, mel: MelConfig, training: TaggerTraining, compiled: bool, device: torch.device
) -> TaggerTrainer:
    config = replace(training, folds=2, leave_out=())
    noise = [
        noise_folder(folder / name, 2 * config.batch, 6.0, mel.sampling_rate, 1, _CLASSES)
        for name in ("curated", "noisy")
    ]
    clips = [TaggedClips(packed, _CLASSES, mel, device) for packed in noise]
    return TaggerTrainer(FoldSetup(0, *clips, config, model, mel, 1, folder, device, compiled))


def _log_mel(mel: MelConfig, batch: int, device: torch.device) -> Callable[[], Tensor]:
    power, wave = MelPower(mel).to(device), torch.randn(batch, 10 * mel.sampling_rate, device=device)
    return torch.inference_mode()(lambda: normalise(to_decibels(power(reflect(wave, mel)))))
