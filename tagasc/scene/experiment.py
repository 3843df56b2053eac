"""An experiment's folder: its runs, and which system is best on validation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tagasc.training.result import HISTORY
from tagasc.utils.errors import UserError
from tagasc.utils.files import read_json


def best_on_validation(experiment: Path, names: Sequence[str]) -> str | None:
    """The trained system with the highest validation accuracy of its networks, mean over seeds; test plays no part.

    Among equals the earlier one in ``names`` wins; None if none of them has been trained.
    """
    found = {}
    for name in names:
        histories = sorted((experiment / "scene" / name).glob(f"seed*/{HISTORY}"))
        kept = [read_json(path, "stage 5 (scenes)") for path in histories]
        if kept:
            found[name] = np.mean([one["epochs"][one["best_epoch"] - 1]["validation_accuracy"] for one in kept])
    return max(found, key=found.__getitem__) if found else None


def runs(experiment: Path, kind: str, systems: Sequence[str], seeds: str) -> list[tuple[str, int, Path]]:
    """Every system with every seed, and the folder ``<experiment>/<kind>/<system>/seed<k>`` of its result.

    Raises:
        UserError: ``seeds`` are not whole numbers separated by spaces.
    """
    try:
        numbers = list(dict.fromkeys(int(seed) for seed in seeds.split()))
    except ValueError:
        raise UserError(f'--seeds {seeds!r} must be whole numbers, as in "1 2 3"') from None
    if not numbers or min(numbers) < 0:
        raise UserError(f'--seeds {seeds!r} must be one or more numbers from 0 on, as in "1 2 3"')
    return [(name, seed, experiment / kind / name / f"seed{seed}") for name in systems for seed in numbers]
