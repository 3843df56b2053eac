"""The back-end support vector machine, which classifies codes (section 2.1)."""

from dataclasses import dataclass
from itertools import product
from math import inf
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils import gen_batches

from tagasc.backend.codes import Codes
from tagasc.utils.errors import SettingError, UserError

_BATCH = 256  # clips per call of a thread


@dataclass(frozen=True)
class SvmConfig:
    """Candidate SVMs; the one with the highest validation accuracy is selected.

    Args:
        kernels: kernels to try (section 2.1).
        costs: values of C to try; of equal candidates the earlier one wins.
    """

    kernels: tuple[str, ...] = ("rbf", "sigmoid")
    costs: tuple[float, ...] = (1.0, 0.1, 10.0)

    def __post_init__(self) -> None:
        if not self.kernels or not set(self.kernels) <= {"rbf", "sigmoid", "linear", "poly"}:
            raise SettingError("kernels must be one or more of rbf, sigmoid, linear, poly")
        if not self.costs or not all(0 < cost < inf for cost in self.costs):
            raise SettingError("costs must be positive")


@dataclass(frozen=True)
class FittedSvm:
    """An SVM fitted on the training codes.

    Attributes:
        classifier: SVM, in a pipeline if the codes are standardised.
        settings: kernel, C and validation accuracy.
        tried: settings of every candidate, in order.
    """

    classifier: SVC | Pipeline
    settings: dict[str, Any]
    tried: list[dict[str, Any]]


def select_svm(
    config: SvmConfig, train: Codes, validation: Codes, standardise: bool = False, jobs: int = 1
) -> FittedSvm:
    """Fit an SVM on the training codes for each kernel and cost, and keep the best on validation.

    Args:
        config: candidates.
        train: training codes, for the SVMs and the standardisation.
        validation: validation codes, for the selection.
        standardise: scale each dimension of the codes to mean 0 and deviation 1; not in the paper, but the code of
            *codecat* mixes scales.
        jobs: threads, one SVM each.

    Raises:
        UserError: training and validation codes differ in length.
    """
    if train.codes.shape[1] != validation.codes.shape[1]:
        raise UserError("training and validation codes differ in length; run stage 6 (codes) again")
    settings = list(product(config.costs, config.kernels))

    def fitted(kernel: str, cost: float) -> tuple[SVC | Pipeline, float]:
        classifier = fit_svm(train, kernel, cost, standardise)
        return classifier, accuracy(classifier, validation)

    # libsvm releases Python's lock, so threads suffice. Each SVM computes its own kernel values: a matrix shared by all
    # C takes 0.5 GB for 7800 clips, and saves little where the codes are short or separate the training clips.
    results = Parallel(jobs, prefer="threads")(delayed(fitted)(kernel, cost) for cost, kernel in settings)
    classifiers, accuracies = zip(*results, strict=True)
    tried = [
        {"kernel": kernel, "C": cost, "validation_accuracy": value}
        for (cost, kernel), value in zip(settings, accuracies, strict=True)
    ]
    best = int(np.argmax(accuracies))
    return FittedSvm(classifiers[best], tried[best], tried)


def fit_svm(train: Codes, kernel: str, cost: float, standardise: bool) -> SVC | Pipeline:
    """Fit one SVM on the training codes."""
    svm = SVC(kernel=kernel, C=cost, gamma="scale")
    return (make_pipeline(StandardScaler(), svm) if standardise else svm).fit(train.codes, train.scenes)


def accuracy(classifier: SVC | Pipeline, clips: Codes) -> float:
    """Compute the accuracy on some clips, 0..1."""
    return float((classifier.predict(clips.codes) == clips.scenes).mean())


def predict(classifier: SVC | Pipeline, clips: Codes, jobs: int = 1) -> np.ndarray:
    """Predict the scene of each clip, str (clips,); ``jobs`` threads share the clips."""
    parts = gen_batches(len(clips.codes), _BATCH)
    predictions = Parallel(jobs, prefer="threads")(delayed(classifier.predict)(clips.codes[part]) for part in parts)
    return np.concatenate(predictions)
