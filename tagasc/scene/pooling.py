"""Max-pooling and LeakyReLU in one, for a compiler: as few passes over memory as they need, forward and backward."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

POOL = 3
_NEGATIVE = 4  # added to the index of a maximum that is not positive


def pooled_activation(x: Tensor, slope: float) -> Tensor:
    """LeakyReLU of the maxima of every three frames; where values tie, the gradient is the first's.

    Args:
        x: (batch, filters, 1, frames).
        slope: of LeakyReLU, not negative, so that it may follow the pooling: the same values at a third of the work.

    Returns:
        (batch, filters, 1, frames // 3).
    """
    if torch.compiler.is_compiling():
        return _PooledActivation.apply(x, slope)
    return F.leaky_relu(F.max_pool2d(x, (1, POOL)), slope)


class _PooledActivation(torch.autograd.Function):
    """What a compiler joins with whatever stands before and behind.

    It keeps one byte a maximum: its index, and whether it is positive. The library's own pooling would be compiled into
    a scatter of float32 gradients over a cleared tensor. Frames stand last but one here, as they lie in memory, since
    other views would cost a copy.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        frames = x.shape[2] // POOL
        first, second, third = x[:, :, : frames * POOL].unflatten(2, (frames, POOL)).unbind(3)
        later = (second > first) | second.isnan()
        y = torch.where(later, second, first)
        index = torch.where((third > y) | third.isnan(), 2, later.to(torch.int8))
        y = torch.where(index == 2, third, y)
        kept = torch.where(y > 0, index, index + _NEGATIVE)
        ctx.save_for_backward(kept)
        ctx.slope, ctx.rest = slope, x.shape[2] % POOL
        # The result is made from what is kept, or a compiler would come back for that and read x once more.
        return torch.where(kept < _NEGATIVE, y, y * slope).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        gradient = gradient.permute(0, 2, 3, 1)
        gradient = torch.where(kept < _NEGATIVE, gradient, gradient * ctx.slope).unsqueeze(3)
        indices = torch.arange(POOL, dtype=torch.int8, device=kept.device).unsqueeze(1)
        spread = torch.where((kept & (_NEGATIVE - 1)).unsqueeze(3) == indices, gradient, 0).flatten(2, 3)
        return F.pad(spread, (0, 0, 0, ctx.rest)).permute(0, 3, 1, 2), None
