"""Choose the networks that the tagger consists of, and tag held-out and test clips with them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tagasc.tagger.clips import TaggedClips
from tagasc.tagger.experiment import STAGE, TaggerExperiment, require, stage_folder
from tagasc.tagger.inference import load_ensemble
from tagasc.tagger.lwlrap import lwlrap
from tagasc.tagger.tags import TagVectors
from tagasc.tagger.training import split_folds
from tagasc.training.result import WEIGHTS, require_history

FoldWeights = Mapping[int, Sequence[Path]]


def tagger_weights(experiment: TaggerExperiment, stage: int) -> FoldWeights:
    """Return the weights files that a stage's tagger consists of, by fold: all snapshots, or the best single network.

    Raises:
        UserError: a fold is not trained.
    """
    program = "train_tagger.py" if stage == 1 else "train_tagger_semi.py"
    best_weights = {fold: stage_folder(experiment.folder, fold, stage) / WEIGHTS for fold in experiment.folds}
    for path in best_weights.values():
        require(path, program)  # written last
    if experiment.options.inference.models == "mean":
        return {fold: experiment.snapshot_files(fold, stage) for fold in experiment.folds}
    histories = {fold: require_history(path.parent, STAGE) for fold, path in best_weights.items()}
    best = best_fold(histories)
    return {best: [best_weights[best]]}


def best_fold(histories: Mapping[int, dict[str, Any]]) -> int:
    """Return the fold whose best snapshot has the highest lwlrap on its held-out clips; the first of several.

    Folds are compared on different clips, so a fold with easy clips has an advantage.

    Args:
        histories: contents of ``history.json``, by fold.
    """
    score = lambda fold: histories[fold]["epochs"][histories[fold]["best_epoch"] - 1]["score"]
    return max(histories, key=score)


def out_of_fold(experiment: TaggerExperiment, models: FoldWeights) -> tuple[TagVectors, np.ndarray]:
    """Tag each fold's held-out curated clips with that fold's networks; also return their labels, (clips, classes)."""
    clips, training = experiment.curated, experiment.options.training
    held_out = {fold: split_folds(clips, training)[fold][1] for fold in models}
    values = [_tag(experiment, paths, clips, held_out[fold]) for fold, paths in models.items()]
    indices = torch.cat(list(held_out.values()))
    ids = [clips.packed.ids[number] for number in indices.tolist()]
    return TagVectors(ids, clips.classes, np.concatenate(values)), clips.truth[indices].numpy()


def tag_test(experiment: TaggerExperiment, models: FoldWeights) -> tuple[TagVectors, np.ndarray]:
    """Tag the test clips with all networks; also return their labels, (clips, classes)."""
    clips = experiment.test
    values = _tag(experiment, [path for paths in models.values() for path in paths], clips, torch.arange(len(clips)))
    return TagVectors(clips.packed.ids, clips.classes, values), clips.truth.numpy()


def _tag(experiment: TaggerExperiment, paths: Sequence[Path], clips: TaggedClips, indices: Tensor) -> np.ndarray:
    ensemble = load_ensemble(paths, experiment.options.inference.pads, experiment.device)
    return ensemble.tags(clips, indices, experiment.options.training.batch)


def lwlrap_by_usage(truth: np.ndarray, values: np.ndarray, usage: Sequence[str]) -> dict[str, float | None]:
    """Compute lwlrap on all test clips, and on the public and the private ones; None without labels."""
    usage = np.asarray(usage)
    scores = {"test": lwlrap(truth, values)}
    for name in ("Public", "Private"):
        scores[f"test {name}"] = lwlrap(truth[usage == name], values[usage == name])
    return {name: None if np.isnan(value) else value for name, value in scores.items()}
