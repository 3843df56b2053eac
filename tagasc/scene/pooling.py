"""Max-pooling and LeakyReLU of a residual block, fused for the compiler to save passes over memory."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

POOL = 3
_NEGATIVE = 4  # added to the index of a maximum that is zero or negative


def pooled_activation(x: Tensor, slope: float) -> Tensor:
    """Apply LeakyReLU to the maximum of every three frames; of equal values the first gets the gradient.

    Table 1 pools after the activation. A rising activation commutes with the maximum, so the values are the same and
    the activation costs a third.

    Args:
        x: (batch, filters, 1, frames).
        slope: negative slope of LeakyReLU, at least 0.

    Returns:
        (batch, filters, 1, frames // 3).
    """
    if torch.compiler.is_compiling():
        return _PooledActivation.apply(x, slope)
    return F.leaky_relu(F.max_pool2d(x, (1, POOL)), slope)


class _PooledActivation(torch.autograd.Function):
    """The same in elementwise operations, which the compiler fuses with their neighbours.

    It saves one byte per maximum for the backward pass: its index, and whether it is positive. torch's own pooling
    would compile into a scatter of float32 gradients over a zeroed tensor. Channels are last here, as in memory,
    because another view would cost a copy.
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
        # Compute the result from the saved tensor; otherwise the compiler would read x a second time.
        return torch.where(kept < _NEGATIVE, y, y * slope).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        gradient = gradient.permute(0, 2, 3, 1)
        gradient = torch.where(kept < _NEGATIVE, gradient, gradient * ctx.slope).unsqueeze(3)
        indices = torch.arange(POOL, dtype=torch.int8, device=kept.device).unsqueeze(1)
        spread = torch.where((kept & (_NEGATIVE - 1)).unsqueeze(3) == indices, gradient, 0).flatten(2, 3)
        return F.pad(spread, (0, 0, 0, ctx.rest)).permute(0, 3, 1, 2), None
