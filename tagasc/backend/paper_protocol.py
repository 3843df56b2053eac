"""The paper's protocol: after every epoch, fit an SVM on new codes and score it on the test clips.

The released code of [21] keeps the epoch and kernel that are best *on the test clips*, which inflates the accuracy. It
is reproduced for comparison only. CPU processes fit the SVMs during the training. Their codes are queued on disk, in
the run's ``epochs/``, where an interrupted run finds them; the queue holds the codes of one training at most.

``gamma='scale'`` is 1 / (n · variance of the codes). In scikit-learn 0.20.0 to 0.20.2 it was 1 / (n · deviation), and
which version the authors ran is unknown. Both are the same if the deviation of the codes, given with each score, is 1.
"""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tagasc.backend.codes import deviation_of
from tagasc.training.result import TEST_BY_EPOCH, WEIGHTS
from tagasc.utils import provenance
from tagasc.utils.errors import UserError
from tagasc.utils.files import read_json, read_npz, write_json, write_npz
from tagasc.utils.log import log
from tagasc.utils.processes import workers

KERNELS = ("rbf", "sigmoid")
COST = 1.0


@dataclass(frozen=True)
class LabelledCodes:
    """Codes, float32 (clips, code size), and scenes, int64 (clips,)."""

    codes: np.ndarray
    scenes: np.ndarray


AddEpoch = Callable[[int, Callable[[], dict[str, LabelledCodes]]], None]


class EpochScorer:
    """A pool of processes that score the epochs of one training after another."""

    def __init__(self, jobs: int) -> None:
        """Fork ``jobs`` processes; 0 scores nothing. Call it before torch starts threads: a fork loses them."""
        self._pool = workers(jobs) if jobs else None
        if self._pool:
            self._pool.submit(int).result()

    @contextmanager
    def score(self, folder: Path, epochs: int, record: dict[str, Any]) -> Iterator[AddEpoch]:
        """Score the epochs of one training within the block, and write ``test_by_epoch.json`` at its end.

        If an epoch was trained without this, the file is not written, and a warning is logged.

        Args:
            folder: folder of the run; it is trained already, or is trained in the block.
            epochs: number of epochs.
            record: record from ``provenance.record``, with every input of the scores but the network.

        Yields:
            function that adds an epoch; see ``_EpochQueue.add``.

        Raises:
            UserError: no SVM can be fitted on the codes of an epoch.
        """
        if self._pool is None:
            yield lambda epoch, codes: None
            return
        queue = _EpochQueue(folder, self._pool, record)
        try:
            yield queue.add
            queue.wait()
        except Exception:
            queue.stop()
            raise
        if (folder / WEIGHTS).exists():
            queue.gather(epochs)

    def __enter__(self) -> "EpochScorer":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(wait=kind is None, cancel_futures=True)


class _EpochQueue:
    """Epochs of one training: queued codes, ``epochs/<epoch>.npz``, and their scores, ``epochs/<epoch>.json``."""

    def __init__(self, run: Path, pool: Executor, record: dict[str, Any]) -> None:
        """Resume the queue of an interrupted run, unless its record differs."""
        self._run, self._pool, self._record = run, pool, record
        self._folder = run / "epochs"
        old = provenance.read(self._folder)
        if old is not None and provenance.difference(old, record) is not None:
            shutil.rmtree(self._folder)
        self._waiting = {int(path.stem): pool.submit(_score, path) for path in self._files("npz")}

    def add(self, epoch: int, codes: Callable[[], dict[str, LabelledCodes]]) -> None:
        """Queue the codes of an epoch, unless it is queued or scored already.

        Args:
            epoch: number of the epoch.
            codes: function that computes the codes of ``train``, ``test`` and, if there are any, ``unused``.
        """
        path = self._folder / f"{epoch:03}.npz"
        if epoch in self._waiting or path.with_suffix(".json").exists():
            return
        if provenance.read(self._folder) is None:
            provenance.write(self._folder, self._record)
        arrays = {f"{split}_{kind}": value for split, part in codes().items() for kind, value in vars(part).items()}
        write_npz(path, {}, **arrays)
        self._waiting[epoch] = self._pool.submit(_score, path)

    def wait(self) -> None:
        """Wait until every epoch in the queue is scored."""
        for epoch, future in self._waiting.items():
            try:
                future.result()
            except ValueError as error:
                raise UserError(f"{self._run}: no SVM could be fitted on the codes of epoch {epoch}: {error}") from None

    def stop(self) -> None:
        """Leave the queue to a later run; return once no epoch is being scored."""
        for future in self._waiting.values():
            future.cancel()
        wait(self._waiting.values())

    def gather(self, epochs: int) -> None:
        """Write ``test_by_epoch.json`` of a finished training, and remove the queue."""
        rows = [row for path in self._files("json") for row in read_json(path, "stage 5 (scenes)")]
        known = {row["epoch"] for row in rows}
        if len(known) == epochs:
            write_json(
                self._run / TEST_BY_EPOCH, {**self._record["config"], "epochs": rows, "provenance": self._record}
            )
        elif reason := self._missing(len(known), epochs):
            log.warning("%s: no scores by the paper's protocol (%s); --force trains it again", self._run, reason)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _missing(self, known: int, epochs: int) -> str | None:
        if known or not (self._run / TEST_BY_EPOCH).exists():
            return f"{epochs - known} of {epochs} epochs were trained without it"
        old = read_json(self._run / TEST_BY_EPOCH, "stage 5 (scenes)").get("provenance", {})
        return provenance.difference(old, self._record)

    def _files(self, kind: str) -> list[Path]:
        return sorted(self._folder.glob(f"[0-9]*.{kind}"))


def score_epoch(codes: dict[str, LabelledCodes]) -> list[dict[str, Any]]:
    """Fit an SVM with each kernel on ``train``; return its accuracies on ``test`` and ``test+unused``.

    Ties of the SVM's votes go to the class that sorts first. This order is ours; see ``SceneClips``.
    """
    from sklearn.svm import SVC  # here, because the import is slow

    rows = []
    for kernel in KERNELS:
        svm = SVC(kernel=kernel, C=COST, gamma="scale").fit(codes["train"].codes, codes["train"].scenes)
        correct = {part: svm.predict(test.codes) == test.scenes for part, test in codes.items() if part != "train"}
        row = {"kernel": kernel, "code_deviation": deviation_of(codes["train"].codes)}
        row["test"] = float(correct["test"].mean())
        if "unused" in correct:
            row["test+unused"] = float(np.concatenate([correct["test"], correct["unused"]]).mean())
        rows.append(row)
    return rows


def _score(path: Path) -> None:
    """Score the codes of one epoch, write the accuracies, and remove the codes."""
    if not path.exists():
        return  # a process that briefly outlived its killed run has just scored it
    with np.load(path, allow_pickle=False) as file:
        parts = [part for part in ("train", "test", "unused") if f"{part}_codes" in file.files]
    names = tuple(f"{part}_{kind}" for part in parts for kind in ("codes", "scenes"))
    arrays = read_npz(path, names, "stage 5 (scenes)")
    rows = score_epoch({part: LabelledCodes(arrays[f"{part}_codes"], arrays[f"{part}_scenes"]) for part in parts})
    write_json(path.with_suffix(".json"), [{"epoch": int(path.stem)} | row for row in rows])
    path.unlink(missing_ok=True)
