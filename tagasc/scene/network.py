"""The scene network, from stored samples to code and logits (Table 1, with the fusion of tags of section 3).

``SceneNetwork.forward`` is the only forward pass. The layers are in ``trunk``, the use of the tags is in ``fusion``.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from tagasc.audio.waveform import preemphasis, waveform
from tagasc.scene.fusion import Fusion
from tagasc.scene.systems import System
from tagasc.scene.trunk import Block, Trunk, TrunkConfig
from tagasc.training.augment import mix
from tagasc.utils.device import autocast

# Recompute everything between two convolutions in the backward pass rather than keep it in memory.
_RECOMPUTE = {"realize_reads_threshold": 30, "realize_acc_reads_threshold": 30, "realize_opcount_threshold": 300}


class SceneNetwork(nn.Module):
    """Stored samples and tag vector to code and logits; one class for every system of Tables 2 to 5.

    Attributes:
        compiled: whether the trunk runs as ``compiled_regions``; copies of the network keep the value.
    """

    compiled = False

    def __init__(self, trunk: TrunkConfig, system: System, scenes: int, tags: int = 80, channels: int = 2) -> None:
        """Build the network.

        Args:
            trunk: shape of the trunk.
            system: use of the tags.
            scenes: number of classes.
            tags: length c of the tag vector.
            channels: audio channels.

        Raises:
            SettingError: the heads do not divide the filters.
        """
        super().__init__()
        self.trunk = Trunk(trunk, channels)
        self.fusion = Fusion(system, tags, trunk.filters, trunk.code_size, trunk.slope)
        self.code = nn.Linear(2 * trunk.filters + self.fusion.before_code, trunk.code_size)
        self.output = nn.Linear(trunk.code_size + self.fusion.after_code, scenes, bias=trunk.output_bias)

    def forward(
        self, samples: Tensor, tags: Tensor | None = None, mixing: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the code and the logits of each clip.

        The trunk runs in the precision of ``tagasc.utils.device.precision_on``, by default bfloat16 on a GPU. Fusion,
        pooling, code and output run in float32.

        Args:
            samples: (batch, frames, channels) as stored, int16 or floating point; 480,000 frames for 10 s.
            tags: (batch, c), tag vectors T; None for a system without tags.
            mixing: order (batch,) and weight λ (1,) of mixup, applied to waves and tags; None mixes nothing.

        Returns:
            code (batch, code size, or code size + c for *codecat* without transform), logits (batch, scenes).
        """
        if mixing is not None and tags is not None:
            tags = mix(tags, *mixing)
        feature_map = self.feature_map(samples, mixing).to(self.code.weight.dtype)
        feature_map = self.fusion.to_feature_map(feature_map, tags)  # M' of eq. 2 (section 3.2)
        pooled = torch.cat([feature_map.mean(dim=2), feature_map.amax(dim=2)], dim=1)  # Gl avg, GL max, Concat
        code = self.code(self.fusion.to_pooled(pooled, tags))  # before code (section 3.1)
        code = self.fusion.to_code(code, tags)  # codecat (section 3.1)
        return code, self.output(code)

    def feature_map(self, samples: Tensor, mixing: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Compute the feature map M of eq. 1, (batch, filters f, time t), in the trunk's precision.

        For 10 s, t is 18, or 24 with the released code's extra convolution. Arguments as in ``forward``.
        """
        first, block, last = compiled_regions() if self.compiled else REGIONS
        with autocast(samples.device):
            x = first(self.trunk, samples, mixing)
            for residual_block in self.trunk.blocks[1:]:
                x = block(residual_block, x)
            return last(self.trunk, x)


def _first_region(trunk: Trunk, samples: Tensor, mixing: tuple[Tensor, Tensor] | None) -> Tensor:
    """Scale and pre-emphasise stored samples (section 4.2), mix waves, apply strided convolution and first block."""
    wave = preemphasis(waveform(samples))  # 32000 · (x[t] - 0.97 x[t-1]); int16 as -1..1
    if mixing is not None:
        wave = mix(wave, *mixing)
    return trunk.blocks[0](trunk.strided_conv(wave))


def _block_region(block: Block, x: Tensor) -> Tensor:
    """Apply one of the other residual blocks."""
    return block(x)


def _last_region(trunk: Trunk, x: Tensor) -> Tensor:
    """Turn the last block's output into the feature map M, (batch, f, t)."""
    return trunk.extra_conv(x).squeeze(2)


REGIONS = _first_region, _block_region, _last_region


@cache
def compiled_regions() -> tuple[Callable[..., Tensor], ...]:
    """Compile the trunk's regions, as in torch's regional compilation; all networks of the process share the result.

    The first region joins pre-emphasis, mixup, strided convolution and first block, so that the compiler fuses them.
    Block outputs are stored in any case. In one region, the backward pass would recompute all later blocks.

    A region is a function that takes its module as an argument. ``nn.Module.compile`` would keep a network alive until
    the garbage collector runs, and copies would lose it. torch caches the kernels on disk for the next process.
    """
    # Every block, clip length, batch size and precision is compiled separately. Beyond the limit torch would run
    # eagerly and hardly say so; as an error, it makes the steps fall to the plain rung with a line in the log.
    torch._dynamo.config.recompile_limit = 128
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return tuple(torch.compile(region, dynamic=False, options=_RECOMPUTE) for region in REGIONS)


def fold_batch_norm(network: SceneNetwork) -> SceneNetwork:
    """Copy a network for evaluation, with each batch normalisation folded into the convolution before it.

    The copy computes the same function up to rounding, at half the memory traffic.
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
