"""Augmentations, on the device. Every random draw comes from a generator that the caller seeds."""

import numpy as np
import torch
from torch import Tensor

from tagasc.utils.device import to_device


class EpochRng:
    """Random numbers of one epoch. They depend on seed and epoch alone, so a resumed run draws the same numbers.

    Draws are made on the CPU, so that they are the same on every device.
    """

    def __init__(self, seed: int, epoch: int) -> None:
        self._numpy = np.random.default_rng([seed, epoch])
        torch.manual_seed(int(self._numpy.integers(2**62)))  # dropout

    def permutation(self, count: int) -> Tensor:
        """Draw a permutation of 0..count-1, int64."""
        return torch.from_numpy(self._numpy.permutation(count))

    def integers(self, below: Tensor) -> Tensor:
        """Draw for each entry of ``below`` (at least 1) an integer in 0..entry-1, int64 of the same shape."""
        return torch.from_numpy(self._numpy.integers(0, below.numpy()))

    def uniform(self, low: float, high: float, count: int) -> Tensor:
        """Draw uniformly from low to high, float32 (count,)."""
        return torch.from_numpy(self._numpy.uniform(low, high, count)).float()

    def beta(self, alpha: float, count: int) -> Tensor:
        """Draw from Beta(alpha, alpha), float32 (count,)."""
        return torch.from_numpy(self._numpy.beta(alpha, alpha, count)).float()

    def chance(self, probability: float, count: int) -> Tensor:
        """Draw bool (count,), each true with the given probability."""
        return self.uniform(0, 1, count) < probability


def mix(values: Tensor, order: Tensor, weight: Tensor) -> Tensor:
    """Mix up a batch: weight · values + (1 - weight) · values[order].

    Args:
        values: (batch, …).
        order: int64 (batch,), index of each clip's partner.
        weight: λ, (batch,), or (1,) for one λ in the batch.
    """
    weight = to_device(weight, values.device).reshape(-1, *[1] * (values.dim() - 1))
    partners = values[to_device(order, values.device)]
    return (values * weight).add_(partners.mul_(1 - weight))


def band_mask(bands: int, rng: EpochRng, half_width: tuple[int, int], probability: float, batch: int) -> Tensor:
    """Draw one frequency mask per clip, bool (batch, bands), true in masked bands.

    The centre c is uniform over the bands, the half-width w uniform over ``half_width``, both ends included. Masked are
    the 2w bands from c - w to c + w - 1, as far as they exist.
    """
    centre = rng.integers(torch.full((batch,), bands))
    half = half_width[0] + rng.integers(torch.full((batch,), half_width[1] - half_width[0] + 1))
    distance, half = torch.arange(bands) - centre.unsqueeze(1), half.unsqueeze(1)
    near = (distance >= -half) & (distance < half)
    return near & rng.chance(probability, batch).unsqueeze(1)


def time_slice(lengths: Tensor, rng: EpochRng, part: tuple[float, float], probability: float) -> tuple[Tensor, Tensor]:
    """Draw the segment of each clip to keep.

    Args:
        lengths: int64 (batch,), lengths of the clips, frames.
        rng: random numbers.
        part: shortest and longest part of a clip to keep, as a fraction; uniform between these.
        probability: probability that a clip is sliced; others are kept whole.

    Returns:
        first frame and number of frames of each segment, int64 (batch,); at least one frame.
    """
    part_kept = (rng.uniform(*part, len(lengths)) * lengths).ceil().long().clamp(min=1)
    kept = torch.where(rng.chance(probability, len(lengths)), torch.minimum(part_kept, lengths), lengths)
    return rng.integers(lengths - kept + 1), kept
