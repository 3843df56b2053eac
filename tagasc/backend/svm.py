"""The support vector machine that names the scene of a code (paper, section 2.1)."""

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

_BATCH = 256  # that a thread predicts at a time


@dataclass(frozen=True)
class SvmConfig:
    """What the SVM is chosen from, by accuracy on the validation clips.

    Args:
        kernels: kernels to try (paper, section 2.1).
        costs: values of C to try; among equals the earlier one wins.
    """

    kernels: tuple[str, ...] = ("rbf", "sigmoid")
    costs: tuple[float, ...] = (1.0, 0.1, 10.0)

    def __post_init__(self) -> None:
        if not self.kernels or not set(self.kernels) <= {"rbf", "sigmoid", "linear", "poly"}:
            raise SettingError("kernels must be out of rbf, sigmoid, linear, poly")
        if not self.costs or not all(0 < cost < inf for cost in self.costs):
            raise SettingError("costs must be positive")


@dataclass(frozen=True)
class FittedSvm:
    """An SVM fitted on the training codes.

    Attributes:
        machine: the SVM, behind a standardisation where there is one.
        settings: its kernel, C and validation accuracy.
        tried: the same of everything that was tried, in order.
    """

    classifier: SVC | Pipeline
    settings: dict[str, Any]
    tried: list[dict[str, Any]]


def select_svm(
    config: SvmConfig, train: Codes, validation: Codes, standardise: bool = False, jobs: int = 1
) -> FittedSvm:
    """Fit an SVM on the training codes for each kernel and cost; keep the best on validation.

    Args:
        config: what to choose from.
        train: what the machines, and the standardisation, are fitted on.
        validation: what they are chosen by.
        standardise: bring each value of the codes to mean 0 and deviation 1 first; the paper does not, though
            [code ; T] mixes scales.
        jobs: machines to fit at a time.

    Raises:
        UserError: the two sets' codes differ in length.
    """
    if train.codes.shape[1] != validation.codes.shape[1]:
        raise UserError("training and validation codes differ in length; extract both again (stage 6)")
    settings = list(product(config.costs, config.kernels))

    def fitted(kernel: str, cost: float) -> tuple[SVC | Pipeline, float]:
        classifier = fit_svm(train, kernel, cost, standardise)
        return classifier, accuracy(classifier, validation)

    # libsvm works outside Python's lock, so threads do. Each machine computes its own kernel values: a matrix for all C
    # takes 0.5 GB for 7800 clips, and saves little where the codes are short or tell the training clips apart.
    results = Parallel(jobs, prefer="threads")(delayed(fitted)(kernel, cost) for cost, kernel in settings)
    classifiers, accuracies = zip(*results, strict=True)
    tried = [
        {"kernel": kernel, "C": cost, "validation_accuracy": value}
        for (cost, kernel), value in zip(settings, accuracies, strict=True)
    ]
    best = int(np.argmax(accuracies))
    return FittedSvm(classifiers[best], tried[best], tried)


def fit_svm(train: Codes, kernel: str, cost: float, standardise: bool) -> SVC | Pipeline:
    """One machine, fitted on the training codes."""
    svm = SVC(kernel=kernel, C=cost, gamma="scale")
    return (make_pipeline(StandardScaler(), svm) if standardise else svm).fit(train.codes, train.scenes)


def accuracy(classifier: SVC | Pipeline, clips: Codes) -> float:
    """Share of clips whose scene the machine names."""
    return float((classifier.predict(clips.codes) == clips.scenes).mean())


def predict(classifier: SVC | Pipeline, clips: Codes, jobs: int = 1) -> np.ndarray:
    """The scene that the machine names for each clip, str (clips,); ``jobs`` threads share the clips."""
    parts = gen_batches(len(clips.codes), _BATCH)
    predictions = Parallel(jobs, prefer="threads")(delayed(classifier.predict)(clips.codes[part]) for part in parts)
    return np.concatenate(predictions)
