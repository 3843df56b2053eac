"""Which of the trained networks make up the tagger, and their tags of clips that they were not trained on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tagasc.tagger.clips import TaggedClips
from tagasc.tagger.config import Inference, TaggerTraining
from tagasc.tagger.inference import Ensemble, load_ensemble
from tagasc.tagger.lwlrap import lwlrap
from tagasc.tagger.tags import TagVectors
from tagasc.tagger.training import folds_of

Models = Mapping[int, Sequence[Path]]


def best_model(histories: Mapping[int, dict[str, Any]]) -> int:
    """The fold whose best snapshot has the highest lwlrap on the fold's own held-out clips, the first among equals.

    The folds' figures are of different clips, so the choice is as good as the folds are alike.
    """
    score = lambda fold: histories[fold]["epochs"][histories[fold]["best_epoch"] - 1]["score"]
    return max(histories, key=score)


def out_of_fold(
    models: Models, clips: TaggedClips, training: TaggerTraining, inference: Inference, device: torch.device
) -> tuple[TagVectors, np.ndarray]:
    """Tags of each fold's held-out curated clips by that fold's own networks, and the truth, (clips, classes)."""
    parts = []
    for fold, paths in models.items():
        _, held_out = folds_of(clips, training)[fold]
        parts.append((held_out, load_ensemble(paths, inference.pads, device).tags(clips, held_out, training.batch)))
    which = torch.cat([held_out for held_out, _ in parts])
    ids = [clips.packed.ids[number] for number in which.tolist()]
    return TagVectors(ids, clips.classes, np.concatenate([values for _, values in parts])), clips.truth[which].numpy()


def full_ensemble(models: Models, inference: Inference, device: torch.device) -> Ensemble:
    """Every network together."""
    return load_ensemble([path for paths in models.values() for path in paths], inference.pads, device)


def lwlrap_by_usage(truth: np.ndarray, values: np.ndarray, usage: Sequence[str]) -> dict[str, float | None]:
    """lwlrap on all test clips, and on the public and the private ones; None where there are no labels."""
    usage = np.asarray(usage)
    found = {"test": lwlrap(truth, values)}
    for name in ("Public", "Private"):
        found[f"test {name}"] = lwlrap(truth[usage == name], values[usage == name])
    return {name: None if np.isnan(value) else value for name, value in found.items()}
