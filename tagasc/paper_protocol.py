"""The paper's way of scoring: codes and SVM anew after every epoch, all of it on the test clips.

The released code of [21] refits the SVM after each epoch and keeps the best epoch and kernel *on the test clips*, which
inflates the figure. It is done here for comparison only, beside the training, by processes on the CPU. Codes wait for
them on disk, in the run's ``epochs/``, where a run that was cut finds them; at most one training's codes do.
"""

import shutil
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.svm import SVC

from tagasc.errors import UserError
from tagasc.files import read_json, write_json
from tagasc.processes import workers
from tagasc.tags import read_npz, write_npz
from tagasc.training import WEIGHTS

PAPER = "paper.json"
KERNELS = ("rbf", "sigmoid")
COST = 1.0
_QUEUE = "epochs"


@dataclass(frozen=True)
class Labelled:
    """Codes float32 (clips, code size) and scenes int64 (clips,) of some clips."""

    codes: np.ndarray
    scenes: np.ndarray


class EpochScoring:
    """Scores the epochs of one training after another.

    ``begin`` a training, ``add`` its epochs, ``begin`` the next or ``finish``; then its folder holds ``paper.json``.
    """

    def __init__(self, jobs: int) -> None:
        """Fork ``jobs`` processes, before the first tensor is computed: a fork copies no threads; 0: score nothing."""
        self._pool = workers(jobs) if jobs else None
        if self._pool:
            self._pool.submit(int).result()
        self._folder: Path | None = None
        self._waiting: dict[int, Future] = {}
        self._trained_on = ""

    def begin(self, folder: Path, trained_on: str) -> None:
        """Finish the training before; take up what a run that was cut has left in ``folder``."""
        self.finish()
        if self._pool:
            self._folder, self._trained_on = folder, trained_on
            for path in sorted((folder / _QUEUE).glob("[0-9]*.npz")):
                self._waiting[int(path.stem)] = self._pool.submit(_score, path)

    def add(self, epoch: int, codes: Callable[[], dict[str, Labelled]]) -> None:
        """Put an epoch's codes into the queue, unless it is known from before.

        Args:
            epoch: its number.
            codes: computes the codes of the training clips, ``train``, of ``test``, and of ``unused`` if there are any.
        """
        if self._pool is None:
            return
        path = self._folder / _QUEUE / f"{epoch:03}.npz"
        if epoch not in self._waiting and not path.with_suffix(".json").exists():
            arrays = {f"{part}_{kind}": value for part, of in codes().items() for kind, value in vars(of).items()}
            write_npz(path, {}, **arrays)
            self._waiting[epoch] = self._pool.submit(_score, path)

    def finish(self) -> None:
        """Wait for the training's last epochs and gather all of them into ``paper.json``."""
        folder, waiting, self._folder, self._waiting = self._folder, self._waiting, None, {}
        if folder is None:
            return
        for epoch, future in waiting.items():
            try:
                future.result()
            except ValueError as error:
                raise UserError(f"{folder}: no SVM could be fitted on the codes of epoch {epoch}: {error}") from None
        if not (folder / WEIGHTS).exists():
            return  # cut; what is scored waits for the training to go on
        found = sorted((folder / _QUEUE).glob("[0-9]*.json"))
        if found:
            rows = [row for path in found for row in read_json(path, "stage 5 (scenes)")]
            write_json(folder / PAPER, {"trained_on": self._trained_on, "C": COST, "epochs": rows})
        shutil.rmtree(folder / _QUEUE, ignore_errors=True)

    def __enter__(self) -> "EpochScoring":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.finish()
        if self._pool:
            self._pool.shutdown(wait=kind is None, cancel_futures=True)


def score_epoch(codes: dict[str, Labelled]) -> list[dict[str, Any]]:
    """Fit an SVM with each kernel on the clips of ``train``; its accuracies on ``test`` and ``test+unused``."""
    rows = []
    for kernel in KERNELS:
        svm = SVC(kernel=kernel, C=COST, gamma="scale").fit(codes["train"].codes, codes["train"].scenes)
        right = {part: svm.predict(of.codes) == of.scenes for part, of in codes.items() if part != "train"}
        row = {"kernel": kernel, "test": float(right["test"].mean())}
        if "unused" in right:
            row["test+unused"] = float(np.concatenate([right["test"], right["unused"]]).mean())
        rows.append(row)
    return rows


def _score(path: Path) -> None:
    """Score one epoch's codes, keep the accuracies, and remove the codes."""
    with np.load(path, allow_pickle=False) as file:
        parts = [part for part in ("train", "test", "unused") if f"{part}_codes" in file.files]
    names = tuple(f"{part}_{kind}" for part in parts for kind in ("codes", "scenes"))
    arrays = read_npz(path, names, "stage 5 (scenes)")
    rows = score_epoch({part: Labelled(arrays[f"{part}_codes"], arrays[f"{part}_scenes"]) for part in parts})
    write_json(path.with_suffix(".json"), [{"epoch": int(path.stem)} | row for row in rows])
    path.unlink()
