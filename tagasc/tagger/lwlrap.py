"""lwlrap, the measure of a tagger."""

import numpy as np
from sklearn.metrics import label_ranking_average_precision_score


def lwlrap(truth: np.ndarray, scores: np.ndarray) -> float:
    """Compute label-weighted label-ranking average precision, the measure of DCASE 2019 task 2.

    Every label, not every clip, has the same weight. Clips without labels are left out. Of equal scores each has the
    last rank, as in scikit-learn. The released code of [13] ranks them in the order of the classes, which usually gives
    a higher value; a mean over networks has no equal scores.

    Args:
        truth: (clips, classes), nonzero where the class is present.
        scores: (clips, classes), higher is more likely.

    Returns:
        lwlrap in 0..1; nan if no clip has a label.
    """
    truth = np.asarray(truth) > 0
    labels = truth.sum(axis=1)
    if not labels.any():
        return float("nan")
    labelled = labels > 0
    return float(
        label_ranking_average_precision_score(truth[labelled], scores[labelled], sample_weight=labels[labelled])
    )


def label_precisions(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Compute the precision at each label's rank, (clips, classes); nan where the class is absent.

    The mean over all labels is ``lwlrap``.
    """
    truth = np.asarray(truth) > 0
    precision = np.full(truth.shape, np.nan)
    for clip in np.flatnonzero(truth.any(axis=1)):
        at_least = scores[clip][None, :] >= scores[clip][truth[clip]][:, None]
        precision[clip, truth[clip]] = (at_least & truth[clip]).sum(axis=1) / at_least.sum(axis=1)
    return precision


def lwlrap_by_class(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Compute the mean precision at each class's labels, (classes,); nan where a class has no label.

    The mean over classes, weighted by their numbers of labels, is ``lwlrap``.
    """
    total, count = np.nansum(label_precisions(truth, scores), axis=0), (np.asarray(truth) > 0).sum(axis=0)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
