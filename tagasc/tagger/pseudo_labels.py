"""Soft pseudo-labels of the noisy clips, from the curated heads of stage 1 (Akiyama & Sato [13])."""

from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np

from tagasc.errors import SettingError


@dataclass(frozen=True)
class PseudoLabels:
    """How the noisy clips' soft targets are made.

    Args:
        models: the fold's own snapshots, or those of all folds. The latter have trained on the fold's held-out clips,
            so that stage 2's validation on these leaks.
        sharpness: power that the probabilities are raised to before they are divided by their sum.
    """

    models: Literal["own", "all"] = "own"
    sharpness: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.sharpness < inf:
            raise SettingError("sharpness must be positive")


def sharpened(probabilities: np.ndarray, sharpness: float) -> np.ndarray:
    """Raise (clips, classes) to a power and divide by the sum over the classes: float32, each row sums to 1."""
    probabilities = np.maximum(probabilities.astype(np.float64), 1e-30)  # of a class no model has ever heard
    raised = (probabilities / probabilities.max(axis=1, keepdims=True)) ** sharpness
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
