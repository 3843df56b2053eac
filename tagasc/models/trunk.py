"""The raw-waveform trunk of the scene network (paper, Table 1), in its two readings.

Table 1 and the parameter count of Table 6 contradict each other. ``table1`` is the paper's text; ``released`` is the
authors' released code of their earlier system [21], which Table 6 fits to the parameter. Both are configurations of
one class: ``egs/dcase2019/conf/trunk_table1.yaml`` and ``trunk_released.yaml``.
"""

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagasc.errors import SettingError

STRIDE = 12
POOL = 3


@dataclass(frozen=True)
class TrunkConfig:
    """The shape of the trunk and of the code layer behind it.

    Args:
        stem_filters: filters of the strided convolution.
        block_filters: filters of each residual block.
        shortcut_convolution: where a block changes the number of filters, the shortcut is a convolution; without
            this option such a change is an error.
        extra_convolution: one more convolution (length 1, padding 3) after the last block.
        slope: negative slope of every LeakyReLU.
        code_size: values of the code.
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
        if len(set(widths)) > 1 and not self.shortcut_convolution:
            raise SettingError("block_filters change the number of filters; set shortcut_convolution: true")

    @property
    def filters(self) -> int:
        """Filters f of the feature map M (eq. 1)."""
        return self.block_filters[-1]

    def least_frames(self) -> int:
        """Sample frames, after pre-emphasis, that give a feature map of one frame."""
        return STRIDE * POOL ** len(self.block_filters)


class Block(nn.Module):
    """Residual block: conv-BN-LeakyReLU-conv-BN, plus the shortcut, then LeakyReLU and max-pool of 3.

    Pooling stands before the last activation here: LeakyReLU is monotonic, so the values are the same, at a third of
    the work.
    """

    def __init__(self, inputs: int, filters: int, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.conv1 = nn.Conv2d(inputs, filters, (1, 3), padding=(0, 1))
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, (1, 3), padding=(0, 1))
        self.norm2 = nn.BatchNorm2d(filters)
        self.shortcut = nn.Conv2d(inputs, filters, (1, 3), padding=(0, 1)) if inputs != filters else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, 1, frames) → (batch, filters, 1, frames // 3)."""
        y = F.leaky_relu(self.norm1(self.conv1(x)), self.slope)
        y = self.norm2(self.conv2(y)) + self.shortcut(x)
        return F.leaky_relu(max_pool(y), self.slope)


def max_pool(x: Tensor) -> Tensor:
    """(batch, filters, 1, frames) → (batch, filters, 1, frames // 3); where values tie, the gradient is the first's.

    For a compiler it is written as comparisons, which it joins with what stands before and behind, forward and
    backward; the library's own would be compiled into a scatter of float32 gradients over a cleared tensor.
    """
    if not torch.compiler.is_compiling():
        return F.max_pool2d(x, (1, POOL))
    frames = x.shape[-1] // POOL
    candidates = x[..., : frames * POOL].unflatten(-1, (frames, POOL)).unbind(-1)
    return reduce(lambda a, b: torch.where((b > a) | b.isnan(), b, a), candidates)


class Trunk(nn.Module):
    """Waveform to feature map.

    Sequences are held as images of height 1; channels last, unless ``lay_out`` says otherwise.
    """

    def __init__(self, config: TrunkConfig, channels: int = 2) -> None:
        super().__init__()
        self.slope = config.slope
        # Filter length equals stride, so the strided convolution is one matrix product over frames of 12 samples.
        self.stem = nn.Linear(STRIDE * channels, config.stem_filters)
        self.stem_norm = nn.BatchNorm2d(config.stem_filters)
        widths = (config.stem_filters, *config.block_filters)
        pairs = pairwise(widths)
        self.blocks = nn.Sequential(*(Block(inputs, filters, config.slope) for inputs, filters in pairs))
        self.extra = nn.Conv2d(widths[-1], widths[-1], 1, padding=(0, 3)) if config.extra_convolution else None
        self.extra_norm = nn.BatchNorm2d(widths[-1]) if config.extra_convolution else None
        self.lay_out(torch.channels_last)

    def lay_out(self, layout: torch.memory_format) -> None:
        """Choose the layout in memory of weights and of what is computed; the values are the same."""
        self._layout = layout
        self.to(memory_format=layout)

    def forward(self, wave: Tensor) -> Tensor:
        """Compute the feature map M.

        Args:
            wave: (batch, frames, channels), pre-emphasised; 479,999 frames for 10 s.

        Returns:
            (batch, filters, time); for 10 s time is 18, or 24 with the extra convolution.
        """
        frames = wave.shape[1] // STRIDE
        x = self.stem(wave[:, : frames * STRIDE].reshape(wave.shape[0], 1, frames, -1)).permute(0, 3, 1, 2)
        x = self.blocks(F.leaky_relu(self.stem_norm(x.contiguous(memory_format=self._layout)), self.slope))
        if self.extra is not None:
            x = F.leaky_relu(self.extra_norm(self.extra(x)), self.slope)
        return x.squeeze(2)
