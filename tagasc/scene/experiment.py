"""Layout of an experiment's folder, its runs, and the best system on validation. It does not import torch.

A run is one system with one seed. Its results are in::

    <experiment>/scene/<system>/seed<k>/   network, curves, accuracy on test by epoch (stage 5)
    <experiment>/codes/<system>/seed<k>/   codes, one file per split (stage 6)
    <experiment>/svm/<system>/seed<k>/     classifiers, predictions, scores (stage 7)

Networks trained again on all training clips are in ``<experiment>/paper`` (scored by the paper's protocol) and in
``<experiment>/final`` (for the number of epochs chosen on validation), with the same layout. The logs of the runs are
in ``<experiment>/log/<stage>/``. No other module spells out these paths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagasc.training.result import HISTORY, TEST_BY_EPOCH, WEIGHTS, find_history
from tagasc.utils.errors import UserError

PAPER_FIT, FINAL_FIT = "paper", "final"
FITS = ("", PAPER_FIT, FINAL_FIT)


@dataclass(frozen=True)
class RunPaths:
    """Folders and files of one run.

    Args:
        experiment: folder of the experiment.
        system: name of the system, with its control if it has one.
        seed: random seed of the network.
    """

    experiment: Path
    system: str
    seed: int

    @property
    def name(self) -> str:
        """Name of the run in the logs of a sweep."""
        return f"{self.system}.seed{self.seed}"

    @property
    def title(self) -> str:
        """Name of the run in messages."""
        return f"{self.system} seed {self.seed}"

    @property
    def network(self) -> Path:
        """Folder of the network."""
        return self._folder("scene")

    @property
    def weights(self) -> Path:
        """Weights of the network; they exist once training has ended."""
        return self.network / WEIGHTS

    @property
    def history(self) -> Path:
        """Learning curves of the network."""
        return self.network / HISTORY

    @property
    def test_by_epoch(self) -> Path:
        """Accuracies on test after every epoch (the paper's protocol)."""
        return self.network / TEST_BY_EPOCH

    @property
    def codes(self) -> Path:
        """Folder of the codes."""
        return self._folder("codes")

    def codes_of(self, split: str) -> Path:
        """Return the file with the codes of one split."""
        return self.codes / f"{split}.npz"

    @property
    def svm(self) -> Path:
        """Folder of the classifiers."""
        return self._folder("svm")

    @property
    def scores(self) -> Path:
        """Accuracies of the classifiers; the file exists once they are scored."""
        return self.svm / "scores.json"

    @property
    def predictions(self) -> Path:
        """Predicted scene of each test clip, by classifier."""
        return self.svm / "predictions.csv"

    def of_fit(self, fit: str) -> "RunPaths":
        """Return the same system and seed in one of ``FITS``."""
        return RunPaths(self.experiment / fit, self.system, self.seed)

    def _folder(self, kind: str) -> Path:
        return self.experiment / kind / self.system / f"seed{self.seed}"


def runs(experiment: Path, systems: Sequence[str], seeds: str) -> list[RunPaths]:
    """Combine every system with every seed.

    Raises:
        UserError: ``seeds`` are not whole numbers separated by spaces.
    """
    return [RunPaths(experiment, name, seed) for name in systems for seed in parse_seeds(seeds)]


def parse_seeds(seeds: str) -> list[int]:
    """Read seeds separated by spaces, without duplicates.

    Raises:
        UserError: a seed is not a whole number, or is negative.
    """
    try:
        numbers = list(dict.fromkeys(int(seed) for seed in seeds.split()))
    except ValueError:
        raise UserError(f'--seeds {seeds!r} must be whole numbers, as in "1 2 3"') from None
    if not numbers or min(numbers) < 0:
        raise UserError(f'--seeds {seeds!r} must be one or more numbers, 0 or more, as in "1 2 3"')
    return numbers


def log_folder(experiment: Path, stage: str) -> Path:
    """Return the folder of one stage's logs."""
    return experiment / "log" / stage


def started_runs(experiment: Path) -> list[RunPaths]:
    """Find every run whose training was started, sorted by system and seed."""
    return _runs_with(experiment, "scene")


def scored_runs(experiment: Path) -> list[RunPaths]:
    """Find every scored run, sorted by system and seed."""
    return [run for run in _runs_with(experiment, "svm") if run.scores.exists()]


def best_on_validation(experiment: Path, names: Sequence[str]) -> str | None:
    """Return the trained system with the highest validation accuracy (softmax), averaged over seeds.

    The test clips play no part. Of equal systems the earlier one in ``names`` wins; None if none is trained.
    """
    accuracy = {}
    for name in names:
        runs_of = [run.network for run in started_runs(experiment) if run.system == name]
        kept = list(filter(None, (find_history(folder) for folder in runs_of)))
        if kept:
            accuracy[name] = np.mean([run["epochs"][run["best_epoch"] - 1]["validation_accuracy"] for run in kept])
    return max(accuracy, key=accuracy.__getitem__) if accuracy else None


def _runs_with(experiment: Path, kind: str) -> list[RunPaths]:
    folders = [path for path in experiment.glob(f"{kind}/*/seed*") if path.name.removeprefix("seed").isdecimal()]
    runs = [RunPaths(experiment, path.parent.name, int(path.name.removeprefix("seed"))) for path in folders]
    return sorted(runs, key=lambda run: (run.system, run.seed))
