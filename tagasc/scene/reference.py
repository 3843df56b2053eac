"""Reference implementation of the scene network: Table 1 in plain PyTorch layers, without our optimisations.

Only tests and the benchmark use it; they compare ``SceneNetwork`` with it.
"""

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagasc.scene.network import SceneNetwork
from tagasc.scene.pooling import POOL
from tagasc.scene.trunk import STRIDE, Block


class ReferenceNetwork(nn.Module):
    """One-dimensional convolutions over (batch, channels, frames), the activation before the pooling."""

    def __init__(self, network: SceneNetwork) -> None:
        """Copy the weights of ``network``, under the same names without ``trunk``."""
        super().__init__()
        trunk = network.trunk
        self.slope, channels = trunk.slope, trunk.stem.in_features // STRIDE
        self.stem = nn.Conv1d(channels, trunk.stem.out_features, STRIDE, stride=STRIDE)
        self.stem.weight.data = as_convolution(trunk.stem.weight.data, channels)
        self.stem.bias.data = trunk.stem.bias.data.clone()
        self.stem_norm = _norm(trunk.stem_norm)
        self.blocks = nn.ModuleList(_ReferenceBlock(block) for block in trunk.blocks)
        self.extra = None if trunk.extra is None else _convolution(trunk.extra)
        self.extra_norm = None if trunk.extra is None else _norm(trunk.extra_norm)
        self.fusion, self.code, self.output = (deepcopy(x) for x in (network.fusion, network.code, network.output))

    def forward(self, wave: Tensor, tags: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute code and logits of a pre-emphasised wave, (batch, frames, channels)."""
        x = F.leaky_relu(self.stem_norm(self.stem(wave.transpose(1, 2))), self.slope)
        for block in self.blocks:
            x = block(x)
        if self.extra is not None:
            x = F.leaky_relu(self.extra_norm(self.extra(x)), self.slope)
        x = self.fusion.to_feature_map(x, tags)
        pooled = torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1)
        code = self.fusion.to_code(self.code(self.fusion.to_pooled(pooled, tags)), tags)
        return code, self.output(code)


class _ReferenceBlock(nn.Module):
    def __init__(self, block: Block) -> None:
        super().__init__()
        self.slope = block.slope
        self.conv1, self.norm1 = _convolution(block.conv1), _norm(block.norm1)
        self.conv2, self.norm2 = _convolution(block.conv2), _norm(block.norm2)
        self.shortcut = nn.Identity() if isinstance(block.shortcut, nn.Identity) else _convolution(block.shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.norm1(self.conv1(x)), self.slope)
        y = F.leaky_relu(self.norm2(self.conv2(y)) + self.shortcut(x), self.slope)
        return F.max_pool1d(y, POOL)


def as_convolution(stem: Tensor, channels: int) -> Tensor:
    """Reshape the stem's matrix (filters, 12 · channels), or its gradient, into (filters, channels, 12)."""
    return stem.unflatten(1, (STRIDE, channels)).transpose(1, 2).contiguous()


def _convolution(layer: nn.Conv2d) -> nn.Conv1d:
    reference = nn.Conv1d(layer.in_channels, layer.out_channels, layer.kernel_size[1], padding=layer.padding[1])
    reference.load_state_dict({"weight": layer.weight.data[:, :, 0], "bias": layer.bias.data})
    return reference.to(layer.weight.dtype)


def _norm(layer: nn.BatchNorm2d) -> nn.BatchNorm1d:
    reference = nn.BatchNorm1d(layer.num_features)
    reference.load_state_dict(layer.state_dict())
    return reference.to(layer.weight.dtype)
