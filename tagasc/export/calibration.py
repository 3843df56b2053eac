"""Probabilities from the SVM's decisions, calibrated on validation codes."""

from copy import deepcopy
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.svm import SVC

from tagasc.backend.codes import Codes
from tagasc.export.svm import pair_matrices

METHOD = (
    "softmax of slope × (mean decision of the SVM for a scene against the others); the slope maximises the likelihood"
    " of the validation clips, which also chose epoch, kernel and C, so the probabilities are slightly too sure"
)


def calibrate(svm: SVC, validation: Codes) -> dict[str, Any]:
    """Fit the slope of the probabilities on validation codes.

    Returns:
        method, slope, number of clips, and the mean negative log likelihood with this slope and by chance.
    """
    pairs, scenes = pair_decisions(svm, validation.codes), len(svm.classes_)
    for_first, for_second = pair_matrices(scenes)
    mean = pairs @ (for_first - for_second) / (scenes - 1)
    truth = np.searchsorted(svm.classes_, validation.scenes)

    def loss(log_slope: float) -> float:
        return -float(log_softmax(np.exp(log_slope) * mean, axis=1)[np.arange(len(truth)), truth].mean())

    found = minimize_scalar(loss, bounds=(-5.0, 5.0), method="bounded")
    return {
        "method": METHOD,
        "slope": float(np.exp(found.x)),
        "clips": len(truth),
        "loss": float(found.fun),
        "loss_by_chance": float(np.log(scenes)),
    }


def pair_decisions(svm: SVC, codes: np.ndarray) -> np.ndarray:
    """Return scikit-learn's decision for each pair of scenes, positive for the first, (clips, pairs)."""
    by_pair = deepcopy(svm)
    by_pair.decision_function_shape = "ovo"
    values = by_pair.decision_function(codes)
    return -values[:, None] if len(svm.classes_) == 2 else values
