"""Speed of the SVMs: their choice on validation, and the scoring of an epoch, on synthetic codes."""

from collections.abc import Iterator

import numpy as np
import torch

from tagasc.backend.codes import Codes
from tagasc.backend.paper_protocol import LabelledCodes, score_epoch
from tagasc.backend.svm import SvmConfig, select_svm
from tagasc.benchmark.measure import Speed, measure

CHOSEN = "SVM chosen, ours"
SCORED = "an epoch scored as the paper does"
_SCENES = 10
_DISTANCE = 2.3  # scene centre to origin, in deviations of a scene's clips: an SVM recognises about 70 % of the clips


def measure_backend(train: int, test: int, values: int, jobs: int, seconds: float) -> Iterator[Speed]:
    """Measure the SVMs on ten overlapping scenes, where most training clips become support vectors.

    Better codes take less time. Speeds are in training clips a second.

    Args:
        train: number of training clips; a sixth as many are validation clips.
        test: number of test clips.
        values: values per code.
        jobs: threads that choose the SVM.
        seconds: duration of each measurement, seconds.
    """
    random = np.random.default_rng(0)
    centres = random.normal(size=(_SCENES, values)) * _DISTANCE / values**0.5
    fitted, validation, tests = (_codes(random, centres, clips) for clips in (train, -(-train // 6), test))
    labelled = {"train": LabelledCodes(fitted.codes, fitted.scenes), "test": LabelledCodes(tests.codes, tests.scenes)}
    cpu = torch.device("cpu")
    choose = lambda: select_svm(SvmConfig(), fitted, validation, jobs=jobs)
    yield measure(f"{CHOSEN}, {jobs} thread(s)", choose, train, cpu, seconds)
    yield measure(f"{SCORED}, one process", lambda: score_epoch(labelled), train, cpu, seconds)


def _codes(random: np.random.Generator, centres: np.ndarray, clips: int) -> Codes:
    """Draw codes of clips, ordered by scene as in a corpus sorted by clip id."""
    scenes = np.sort(np.arange(clips) % len(centres))
    codes = (centres[scenes] + random.normal(size=(clips, centres.shape[1]))).astype(np.float32)
    names = scenes.astype(str)
    return Codes(names, codes, names, names, names)
