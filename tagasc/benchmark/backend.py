"""How fast SVMs are chosen, used, and fitted after an epoch, on codes made up for it."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from sklearn.svm import SVC

from tagasc.backend.codes import Codes
from tagasc.backend.paper_protocol import LabelledCodes, score_epoch
from tagasc.backend.svm import SvmConfig, accuracy, predict, select_svm
from tagasc.benchmark.measure import Speed, measure

CHOSEN = "SVM chosen, ours"
SCORED = "an epoch scored as the paper does"
_SCENES = 10
_DISTANCE = 2.3  # of a scene's centre from the middle, in deviations of its clips: about 0.7 of them are told right
_CPU = torch.device("cpu")


def measure_backend(train: int, test: int, values: int, jobs: int, seconds: float) -> Iterator[Speed]:
    """Measure the SVMs on ten overlapping scenes, which make most training clips support vectors.

    Better codes take less time. Speeds are in training clips a second, those of prediction in predicted ones.

    Args:
        train: training clips; a sixth as many are validation clips.
        test: test clips.
        values: length of a code.
        jobs: threads, where there are several.
        seconds: for each measurement.
    """
    random, config = np.random.default_rng(0), SvmConfig()
    centres = random.normal(size=(_SCENES, values)) * _DISTANCE / values**0.5
    fitted, validation, tests = (_codes(random, centres, clips) for clips in (train, -(-train // 6), test))
    several = [1, jobs] if jobs > 1 else [1]

    def plain() -> list[float]:
        machines = (SVC(kernel=kernel, C=cost) for kernel, cost in product(config.kernels, config.costs))
        return [accuracy(svm.fit(fitted.codes, fitted.scenes), validation) for svm in machines]

    yield measure("SVM chosen, plain SVC for each kernel and C in turn", plain, train, _CPU, seconds)
    for threads in several:
        choose = lambda threads=threads: select_svm(config, fitted, validation, jobs=threads)
        yield measure(f"{CHOSEN}, {_threads(threads)}", choose, train, _CPU, seconds)
    machine = SVC().fit(fitted.codes, fitted.scenes)
    for threads in several:
        use = lambda threads=threads: predict(machine, tests, threads)
        yield measure(f"test clips predicted, rbf, {_threads(threads)}", use, test, _CPU, seconds)
    parts = {"train": LabelledCodes(fitted.codes, fitted.scenes), "test": LabelledCodes(tests.codes, tests.scenes)}
    yield measure(f"{SCORED}, one process", lambda: score_epoch(parts), train, _CPU, seconds)


def _codes(random: np.random.Generator, centres: np.ndarray, clips: int) -> Codes:
    """Codes of clips in the order of their scenes, as the ids of a corpus have them."""
    scenes = np.sort(np.arange(clips) % len(centres))
    codes = (centres[scenes] + random.normal(size=(clips, centres.shape[1]))).astype(np.float32)
    names = scenes.astype(str)
    return Codes(names, codes, names, names, names)


def _threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"
