#!/usr/bin/env python3
"""Stage 3, program 4 of 4: score the audio tagger, and list its weights (``scores.json``, ``tagger.json``)."""

import shutil
from dataclasses import dataclass

import numpy as np

from tagasc.tagger.experiment import (
    SCORES,
    STAGE,
    TAGGER,
    TaggerExperiment,
    TaggerOptions,
    predictions_file,
    predictions_folder,
)
from tagasc.tagger.inference import load_tagger_network, write_tagger
from tagasc.tagger.lwlrap import lwlrap
from tagasc.tagger.scoring import FoldWeights, lwlrap_by_usage, out_of_fold, tag_test, tagger_weights
from tagasc.tagger.tags import TagVectors
from tagasc.training.weights import parameters
from tagasc.utils import cli, provenance
from tagasc.utils.files import digest, read_json, write_json, write_npz
from tagasc.utils.log import log
from tagasc.utils.sweep import sweep


@dataclass(frozen=True)
class Options(TaggerOptions):
    """Score the audio tagger on held-out and test clips, and list the weights files that it consists of."""


def main(options: Options) -> None:
    """Score the tagger."""
    experiment = TaggerExperiment(options)
    sweep(["score"], lambda _: score(experiment), experiment.folder / "log")


def score(experiment: TaggerExperiment) -> bool:
    """Write scores and ``tagger.json``, and log the scores; return False if they are up to date."""
    folder = experiment.folder
    models = {stage: tagger_weights(experiment, stage) for stage in range(1, experiment.stages + 1)}
    paths = [path for by_fold in models.values() for some in by_fold.values() for path in some]
    record = experiment.scores_record({str(path.relative_to(folder)): digest(path) for path in paths})
    current = provenance.is_current("scores", provenance.read_whole(folder), record, experiment.options.force)
    if not current:
        write(experiment, models)
        paths = [path for some in models[experiment.stages].values() for path in some]
        write_tagger(folder, paths, experiment.options.inference)
        provenance.write(folder, record, [folder / TAGGER, folder / SCORES, *predictions_folder(folder).iterdir()])
    for stage, values in read_json(folder / SCORES, STAGE)["lwlrap"].items():
        shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items() if value is not None)
        log.info("tagger, %s: lwlrap %s", stage, shown)
    return not current


def write(experiment: TaggerExperiment, models: dict[int, FoldWeights]) -> None:
    """Write predictions and scores of every stage."""
    folder, options = experiment.folder, experiment.options
    (folder / TAGGER).unlink(missing_ok=True)
    shutil.rmtree(predictions_folder(folder), ignore_errors=True)  # also those of removed stages and splits
    values = {f"stage {stage}": score_stage(experiment, stage, some) for stage, some in models.items()}
    paths = [path for some in models[experiment.stages].values() for path in some]
    metadata = {"parameters": parameters(load_tagger_network(paths[0])[0]), "networks": len(paths)}
    metadata |= {"pads": len(options.inference.pads), "joint_pass": options.training.joint_pass}
    write_json(folder / SCORES, {"lwlrap": values, **metadata})


def score_stage(experiment: TaggerExperiment, stage: int, models: FoldWeights) -> dict[str, float | None]:
    """Write a stage's tags of held-out and test clips; return its lwlrap on them."""
    options = experiment.options
    tags, truth = out_of_fold(experiment, models)
    _write_predictions(experiment, stage, "out_of_fold", tags, truth)
    optimistic = ["leaks"] if stage == 2 and options.pseudo_labels.models == "all" else []
    optimistic += ["chosen on these"] if options.inference.models == "best" else []
    name = "out-of-fold" + (f" ({', '.join(optimistic)})" if optimistic else "")
    scores: dict[str, float | None] = {name: lwlrap(truth, tags.values)}
    if experiment.test is not None:
        tags, truth = tag_test(experiment, models)
        _write_predictions(experiment, stage, "test", tags, truth)
        scores |= lwlrap_by_usage(truth, tags.values, [clip.usage for clip in experiment.test.packed.clips])
    return scores


def _write_predictions(
    experiment: TaggerExperiment, stage: int, clips: str, tags: TagVectors, truth: np.ndarray
) -> None:
    arrays = {"ids": np.array(tags.ids), "classes": np.array(tags.classes), "values": tags.values}
    path = predictions_file(experiment.folder, stage, clips)
    write_npz(path, {"step": "score_tagger"}, **arrays, truth=truth.astype(bool))


if __name__ == "__main__":
    cli.run(main)
