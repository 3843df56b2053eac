"""Speed of the tagger's training and inference, part by part, on noise."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet34

from tagasc.audio.packed import PackedAudio
from tagasc.benchmark.measure import Speed, measure, noise_folder, tf32
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
    """Measure a tagger's training (two streams) and inference; for the published network, also plain PyTorch.

    Args:
        folder: empty folder for the noise.
        model: shape of the network.
        mel: log-mel spectrogram.
        training: training settings; batch and crops count.
        compiled: also measure the training step with torch.compile.
        device: device to measure.
        seconds: duration of each measurement, seconds.
    """
    batch = training.batch
    if model == TaggerConfig():
        reference = _torchvision_step(batch, device)
        yield measure(
            "training step, plain PyTorch in float32, ready spectrograms", reference, 2 * batch, device, seconds
        )
    for compile in (False, True)[: 1 + compiled]:
        trainer = _trainer(folder / f"compiled{compile}", model, mel, training, compile, device)
        streams, rng = trainer.streams(EpochRng(1, 1)), EpochRng(1, 1)
        step = lambda trainer=trainer, streams=streams, rng=rng: trainer.step(streams, 0, rng)
        yield measure("compiled: " * compile + STEP, step, 2 * batch, device, seconds)
    yield measure("log-mel of 10-s clips alone", _log_mel(mel, batch, device), batch, device, seconds)
    scenes = PackedAudio(noise_folder(folder / "scenes", batch, 10.0, 48000, 2, _CLASSES))
    ensemble = Ensemble([TaggerNetwork(model, 80).to(device).eval()], mel, _CLASSES, (0,))
    yield measure(TAGS, lambda: ensemble.tag_scenes(scenes, device, batch), batch, device, seconds)


class _TorchvisionTagger(nn.Module):
    """The same network, assembled from torchvision's ResNet-34."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = resnet34()
        self.trunk.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        self.trunk.avgpool, self.trunk.fc = nn.AdaptiveMaxPool2d(1), nn.Identity()
        self.heads = nn.ModuleList(Head(512, 80, TaggerConfig()) for _ in range(2))

    def forward(self, log_mel: Tensor, head: int) -> Tensor:
        return self.heads[head](self.trunk(log_mel.unsqueeze(1)))


def _torchvision_step(batch: int, device: torch.device) -> Callable[[], None]:
    """Return a training step on two streams in float32; on a GPU, products and convolutions use TF32."""
    network = _TorchvisionTagger().to(device)
    optimizer = torch.optim.Adam(network.parameters())
    inputs, target = torch.randn(2, batch, 128, 512, device=device), torch.zeros(batch, 80, device=device)

    def step() -> None:
        with tf32():
            optimizer.zero_grad(set_to_none=True)
            sum(F.binary_cross_entropy_with_logits(network(inputs[n], n), target) for n in range(2)).backward()
            optimizer.step()

    return step


def _trainer(
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
