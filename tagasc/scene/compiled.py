"""The trunk from stored samples to feature map, block by block, plain or compiled."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from tagasc.audio.waveform import preemphasis, waveform
from tagasc.scene.trunk import Trunk
from tagasc.training.augment import mix

# How much a compiler computes again rather than keep it in memory: all that is between two convolutions.
_RECOMPUTE = {"realize_reads_threshold": 30, "realize_acc_reads_threshold": 30, "realize_opcount_threshold": 300}


def _part(part: Callable[..., Tensor], *inputs: Any) -> Tensor:
    return part(*inputs)


def feature_map(
    trunk: Trunk, samples: Tensor, mixing: tuple[Tensor, Tensor] | None = None, run: Callable[..., Tensor] = _part
) -> Tensor:
    """Stored samples to feature map.

    Args:
        trunk: in any mode.
        samples: (batch, frames, channels) as stored.
        mixing: order and λ of mixup, or None.
        run: calls its first argument, a part of the network, with the others.

    Returns:
        (batch, filters, time).
    """
    x = run(_first, trunk, samples, mixing)
    for block in trunk.blocks[1:]:
        x = run(block, x)
    return run(Trunk.last, trunk, x)


def _first(trunk: Trunk, samples: Tensor, mixing: tuple[Tensor, Tensor] | None) -> Tensor:
    """In one function, so that a compiler joins what reads the wave."""
    wave = preemphasis(waveform(samples))
    return trunk.first(wave if mixing is None else mix(wave, *mixing))


@cache
def compiled_feature_map() -> Callable[..., Tensor]:
    """``feature_map`` as torch.compile makes it: once a process for every system, since all have the same trunk.

    The trunk is an argument, so systems share what was compiled; torch keeps the kernels on disk for the next process,
    which traces the network anew. It is compiled block by block: what is between two blocks is in memory in any case,
    and of the whole a compiler would compute the gradient of the first block's output from all later blocks' anew.
    """
    # Every block has a length of its own, for every length and number of clips; beyond the limit, nothing is compiled.
    torch._dynamo.config.recompile_limit = 128
    return partial(feature_map, run=torch.compile(_part, dynamic=False, options=_RECOMPUTE))
