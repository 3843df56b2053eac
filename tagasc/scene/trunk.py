"""The raw-waveform trunk of the scene network (section 2.1, Table 1): strided convolution and residual blocks.

Table 1 and the parameter count of Table 6 contradict each other. ``conf/trunk_table1.yaml`` follows the paper's text.
``conf/trunk_released.yaml`` follows the released code of the authors' earlier system [21]. Its 636,736 parameters, and
676,784 with the tags of ``shared_h4_l3``, are Table 6's 636k and 676k if these are truncated; rounded they are not.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagasc.scene.pooling import POOL, pooled_activation
from tagasc.utils.errors import SettingError

STRIDE = 12


@dataclass(frozen=True)
class TrunkConfig:
    """Shape of the trunk, the code layer and the output layer.

    Args:
        stem_filters: filters of the strided convolution.
        block_filters: filters of each residual block.
        shortcut_convolution: allow blocks that change the number of filters; their shortcut is a convolution.
        extra_convolution: add a convolution (length 1, padding 3) after the last block.
        slope: negative slope of every LeakyReLU.
        code_size: length of the code.
        output_bias: whether the output layer has a bias.
    """

    stem_filters: int = 128
    block_filters: tuple[int, ...] = (128,) * 7
    shortcut_convolution: bool = False
    extra_convolution: bool = False
    slope: float = 0.3
    code_size: int = 64
    output_bias: bool = True

    def __post_init__(self) -> None:
        widths = (self.stem_filters, *self.block_filters)
        if min(*widths, self.code_size) < 1 or len(widths) < 2:
            raise SettingError("stem_filters, block_filters and code_size must be positive")
        if not 0 <= self.slope < inf:  # pooled_activation needs a rising activation
            raise SettingError("slope must not be negative")
        if len(set(widths)) > 1 and not self.shortcut_convolution:
            raise SettingError("block_filters change the number of filters; set shortcut_convolution: true")

    @property
    def filters(self) -> int:
        """Filters f of the feature map M (eq. 1)."""
        return self.block_filters[-1]

    def least_frames(self) -> int:
        """Return the sample frames, after pre-emphasis, that give a feature map of one frame."""
        return STRIDE * POOL ** len(self.block_filters)


class Stem(nn.Linear):
    """Strided convolution [19]; filter length equals stride, so it is one matrix product over frames of 12 samples."""

    layout = torch.channels_last

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__(STRIDE * channels, filters)

    def forward(self, wave: Tensor, biased: bool = True) -> Tensor:
        """Map (batch, frames, channels) to (batch, filters, 1, frames // 12)."""
        frames = wave.shape[1] // STRIDE
        x = wave[:, : frames * STRIDE].reshape(wave.shape[0], frames, -1)
        bias = self.bias if biased else None
        if self.layout == torch.channels_last:
            return F.linear(x, self.weight, bias).transpose(1, 2).unsqueeze(2)
        # A linear layer's output would have to be copied; it has more channels than its input.
        return F.conv1d(x.transpose(1, 2), self.weight.unsqueeze(2), bias).unsqueeze(2)


class Convolution(nn.Conv2d):
    """Convolution over sequences stored as images of height 1."""

    def __init__(self, inputs: int, filters: int, length: int = 3, padding: int = 1) -> None:
        super().__init__(inputs, filters, (1, length), padding=(0, padding))

    def forward(self, x: Tensor, biased: bool = True) -> Tensor:
        """Map (batch, inputs, 1, frames) to (batch, filters, 1, frames + 2 · padding + 1 - length)."""
        return F.conv2d(x, self.weight, self.bias if biased else None, padding=self.padding)


def conv_norm(layer: Stem | Convolution, norm: nn.BatchNorm2d | nn.Identity, x: Tensor) -> Tensor:
    """Apply a layer, then batch normalisation.

    Training leaves the layer's bias out, because normalisation subtracts it again with the mean. The bias then gets no
    gradient and keeps its initial value; this saves two passes over memory. The running mean includes the bias, for
    evaluation. Batches are not counted, because nothing reads the count.
    """
    if not norm.training:
        return norm(layer(x))
    bias = layer.bias.detach()
    mean = norm.running_mean - bias
    y = F.batch_norm(
        layer(x, biased=False), mean, norm.running_var, norm.weight, norm.bias, True, norm.momentum, norm.eps
    )
    norm.running_mean.copy_(mean + bias)
    return y


class Block(nn.Module):
    """Residual block of Table 1: conv-BN-LeakyReLU-conv-BN, plus the shortcut, then LeakyReLU and MaxPool(3)."""

    def __init__(self, inputs: int, filters: int, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.conv1, self.norm1 = Convolution(inputs, filters), nn.BatchNorm2d(filters)
        self.conv2, self.norm2 = Convolution(filters, filters), nn.BatchNorm2d(filters)
        self.shortcut = Convolution(inputs, filters) if inputs != filters else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, 1, frames) to (batch, filters, 1, frames // 3)."""
        y = F.leaky_relu(conv_norm(self.conv1, self.norm1, x), self.slope)
        y = conv_norm(self.conv2, self.norm2, y) + self.shortcut(x)
        return pooled_activation(y, self.slope)


class Trunk(nn.Module):
    """The layers from wave to feature map; ``SceneNetwork.feature_map`` runs them.

    Sequences are stored as images of height 1, channels last unless ``set_memory_format`` changes that.
    """

    def __init__(self, config: TrunkConfig, channels: int = 2) -> None:
        super().__init__()
        self.slope = config.slope
        self.stem = Stem(channels, config.stem_filters)
        self.stem_norm = nn.BatchNorm2d(config.stem_filters)
        widths = (config.stem_filters, *config.block_filters)
        pairs = pairwise(widths)
        self.blocks = nn.Sequential(*(Block(inputs, filters, config.slope) for inputs, filters in pairs))
        self.extra = Convolution(widths[-1], widths[-1], 1, 3) if config.extra_convolution else None
        self.extra_norm = nn.BatchNorm2d(widths[-1]) if config.extra_convolution else None
        self.set_memory_format(torch.channels_last)

    def set_memory_format(self, layout: torch.memory_format) -> None:
        """Set the memory format of weights and activations; the values do not change."""
        self.stem.layout = layout
        self.to(memory_format=layout)

    def strided_conv(self, wave: Tensor) -> Tensor:
        """Apply the first row of Table 1 to a pre-emphasised wave.

        Args:
            wave: (batch, frames, channels); 479,999 frames for 10 s.

        Returns:
            (batch, filters, 1, frames // 12).
        """
        return F.leaky_relu(conv_norm(self.stem, self.stem_norm, wave), self.slope)

    def extra_conv(self, x: Tensor) -> Tensor:
        """Apply the released code's extra convolution to the last block's output; Table 1 has none."""
        if self.extra is None:
            return x
        return F.leaky_relu(conv_norm(self.extra, self.extra_norm, x), self.slope)
