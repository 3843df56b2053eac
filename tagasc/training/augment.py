"""Augmentations, on the device. Every random draw comes from a generator that the caller seeds."""

import numpy as np
import torch
from torch import Tensor

from tagasc.utils.device import to_device


class EpochRng:
    """Random numbers of one epoch: they depend on the seed and the epoch alone, so a resumed run draws the same.

    Draws are made on the CPU, whatever the device, so that every machine sees the same ones.
    """

    def __init__(self, seed: int, epoch: int) -> None:
        self._numpy = np.random.default_rng([seed, epoch])
        torch.manual_seed(int(self._numpy.integers(2**62)))  # dropout

    def permutation(self, count: int) -> Tensor:
        """A shuffle of 0..count-1, int64."""
        return torch.from_numpy(self._numpy.permutation(count))

    def integers(self, below: Tensor) -> Tensor:
        """For each entry a whole number in 0..entry-1, int64 of the same shape; entries are at least 1."""
        return torch.from_numpy(self._numpy.integers(0, below.numpy()))

    def uniform(self, low: float, high: float, count: int) -> Tensor:
        """float32 (count,)."""
        return torch.from_numpy(self._numpy.uniform(low, high, count)).float()

    def beta(self, alpha: float, count: int) -> Tensor:
        """Draws from Beta(alpha, alpha), float32 (count,)."""
        return torch.from_numpy(self._numpy.beta(alpha, alpha, count)).float()

    def chance(self, probability: float, count: int) -> Tensor:
        """bool (count,), each true with the given probability."""
        return self.uniform(0, 1, count) < probability


def mix(values: Tensor, order: Tensor, weight: Tensor) -> Tensor:
    """Mixup: weight · values + (1 - weight) · values in another order.

    Args:
        values: (batch, …).
        order: int64 (batch,), which clip each is mixed with.
        weight: λ, (batch,), or (1,) for one λ for all.
    """
    weight = to_device(weight, values.device).reshape(-1, *[1] * (values.dim() - 1))
    return values * weight + values[to_device(order, values.device)] * (1 - weight)


def band_mask(bands: int, rng: EpochRng, half_width: tuple[int, int], probability: float, batch: int) -> Tensor:
    """One frequency mask a clip: bool (batch, bands), true where the band is silenced.

    The centre is uniform over the bands, the half-width uniform over ``half_width``, both ends included.
    """
    centre = rng.integers(torch.full((batch,), bands))
    half = half_width[0] + rng.integers(torch.full((batch,), half_width[1] - half_width[0] + 1))
    near = (torch.arange(bands) - centre.unsqueeze(1)).abs() < half.unsqueeze(1)
    return near & rng.chance(probability, batch).unsqueeze(1)


def time_slice(frames: int, rng: EpochRng, part: tuple[float, float], probability: float, batch: int) -> Tensor:
    """Which frames of each crop are kept: bool (batch, frames), one stretch of a random length at a random place.

    Args:
        frames: length of the crops.
        rng: random numbers.
        part: share of the crop that is kept, uniform between these.
        probability: how often a crop is sliced; the others are kept whole.
        batch: number of crops.
    """
    length = (rng.uniform(*part, batch) * frames).round().long().clamp(1, frames)
    length = torch.where(rng.chance(probability, batch), length, frames)
    start = rng.integers(frames - length + 1).unsqueeze(1)
    place = torch.arange(frames)
    return (place >= start) & (place < start + length.unsqueeze(1))
