"""The scene network: trunk, global pooling, code, output (Table 1), with any fusion of tags (section 3)."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from tagasc.scene.fusion import Fusion
from tagasc.scene.systems import System
from tagasc.scene.trunk import Trunk, TrunkConfig


class SceneNetwork(nn.Module):
    """One class for every system of Tables 2 to 5."""

    def __init__(self, trunk: TrunkConfig, system: System, scenes: int, tags: int = 80, channels: int = 2) -> None:
        """Build the network.

        Args:
            trunk: its shape.
            system: how tags are used.
            scenes: number of classes.
            tags: length c of the tag vector.
            channels: of the waveform.

        Raises:
            ValueError: heads that do not divide the filters.
        """
        super().__init__()
        self.trunk = Trunk(trunk, channels)
        self.fusion = Fusion(system, tags, trunk.filters, trunk.code_size, trunk.slope)
        self.code = nn.Linear(2 * trunk.filters + self.fusion.before_code, trunk.code_size)
        self.output = nn.Linear(trunk.code_size + self.fusion.after_code, scenes, bias=trunk.output_bias)

    def forward(self, wave: Tensor, tags: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute code and scene scores.

        Args:
            wave: (batch, frames, channels), pre-emphasised.
            tags: (batch, c) in 0..1; may be None for a system that uses none.

        Returns:
            code (batch, code size, or code size + c for *codecat* without transform), logits (batch, scenes).
        """
        return self.head(self.trunk(wave), tags)

    def head(self, feature_map: Tensor, tags: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As ``forward``, from the trunk's feature map, (batch, filters, time), on; in the head's own precision."""
        feature_map = feature_map.to(self.code.weight.dtype)
        feature_map = self.fusion.to_feature_map(feature_map, tags)
        pooled = torch.cat([feature_map.mean(dim=2), feature_map.amax(dim=2)], dim=1)
        code = self.fusion.to_code(self.code(self.fusion.to_pooled(pooled, tags)), tags)
        return code, self.output(code)


def fold_batch_norm(network: SceneNetwork) -> SceneNetwork:
    """A copy for evaluation, its batch normalisations folded into the convolutions before them.

    The same function but for rounding, at half the memory traffic.
    """
    network = deepcopy(network).eval()
    trunk = network.trunk
    trunk.stem, trunk.stem_norm = fuse_linear_bn_eval(trunk.stem, trunk.stem_norm), nn.Identity()
    for block in trunk.blocks:
        block.conv1, block.norm1 = fuse_conv_bn_eval(block.conv1, block.norm1), nn.Identity()
        block.conv2, block.norm2 = fuse_conv_bn_eval(block.conv2, block.norm2), nn.Identity()
    if trunk.extra is not None:
        trunk.extra, trunk.extra_norm = fuse_conv_bn_eval(trunk.extra, trunk.extra_norm), nn.Identity()
    trunk.set_memory_format(torch.channels_last)
    return network.eval()  # the identities too
