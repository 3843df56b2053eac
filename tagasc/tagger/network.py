"""The audio tagger: a ResNet over log-mel spectrograms with two heads (Akiyama & Sato [13]; paper, section 2.2)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagasc.utils.errors import SettingError


@dataclass(frozen=True)
class TaggerConfig:
    """Shape of the tagger. The defaults are the published system: ResNet-34, 24,592,224 parameters.

    Args:
        depths: blocks per stage of the ResNet.
        width: filters of the first stage, a multiple of 8; doubled at each further stage.
        hidden: units per hidden layer of a head.
        dropout: dropout probability of each hidden layer of a head.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    hidden: int = 1024
    dropout: tuple[float, float] = (0.2, 0.1)

    def __post_init__(self) -> None:
        if not self.depths or min(*self.depths, self.width, self.hidden) < 1:
            raise SettingError("depths, width and hidden must be positive")
        if self.width % 8:
            # In training, oneDNN 3.12's strided 1×1 convolution for AVX2 otherwise writes outside its memory.
            raise SettingError(f"width: {self.width} must be a multiple of 8")
        if not all(0 <= share < 1 for share in self.dropout):
            raise SettingError("dropout must lie in 0..1, below 1")


class Head(nn.Sequential):
    """Pooled features → class scores (logits)."""

    def __init__(self, features: int, classes: int, config: TaggerConfig) -> None:
        super().__init__(
            nn.Linear(features, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout[0]),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout[1]),
            nn.Linear(config.hidden, classes),
        )


class TaggerNetwork(nn.Module):
    """A ResNet trunk with a 1-channel stem and global max pooling, and a head each for curated and noisy labels."""

    def __init__(self, config: TaggerConfig, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, config.width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(config.width),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        stages, width = [], config.width
        for number, depth in enumerate(config.depths):
            filters = config.width * 2**number
            stages.append(_stage(width, filters, depth, stride=1 if number == 0 else 2))
            width = filters
        self.stages = nn.Sequential(*stages)
        self.curated = Head(width, classes, config)
        self.noisy = Head(width, classes, config)
        for module in self.stages.modules():
            if isinstance(module, nn.Conv2d):  # like torchvision's ResNets; [13] leaves the stem at PyTorch's default
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.to(memory_format=torch.channels_last)

    def features(self, log_mel: Tensor) -> Tensor:
        """Compute (batch, mels, frames) → (batch, features), by global max pooling."""
        image = log_mel.unsqueeze(1).contiguous(memory_format=torch.channels_last)
        return self.stages(self.stem(image)).amax(dim=(2, 3))

    @property
    def embedding_size(self) -> int:
        """Number of values of ``embedding``."""
        return self.curated[-1].in_features

    def embedding(self, log_mel: Tensor) -> Tensor:
        """Return the curated head's penultimate layer, (batch, embedding_size)."""
        value = self.features(log_mel)
        for layer in list(self.curated)[:-1]:
            value = layer(value)
        return value

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return the curated head's logits, (batch, classes); tag vectors are their sigmoid."""
        return self.curated(self.features(log_mel))


def released_noisy_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Compute the noisy head's loss in the released code of [13], which applies the sigmoid twice.

    Its gradient with respect to a logit is (σ(p) - target) · p · (1 - p), where p is the logit's sigmoid. The last
    factors nearly vanish where the network is sure, so a wrong label that contradicts it hardly counts. At the optimum
    σ(p) is the share of positive labels, limited to 0.5..0.73: a class with less gets p = 0, with more p = 1.

    Args:
        logits: (batch, classes).
        target: (batch, classes), 0..1.
    """
    return F.binary_cross_entropy_with_logits(logits.sigmoid(), target)


NOISY_LOSSES = {"released": released_noisy_loss, "bce": F.binary_cross_entropy_with_logits}


def _stage(inputs: int, filters: int, depth: int, stride: int) -> nn.Sequential:
    from torchvision.models.resnet import BasicBlock  # here, because the import is slow

    shortcut = None
    if stride != 1 or inputs != filters:
        shortcut = nn.Sequential(nn.Conv2d(inputs, filters, 1, stride=stride, bias=False), nn.BatchNorm2d(filters))
    first = BasicBlock(inputs, filters, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(filters, filters) for _ in range(depth - 1)))
