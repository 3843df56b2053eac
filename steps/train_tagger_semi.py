#!/usr/bin/env python3
"""Stage 3, program 3 of 4: train stage 2 of the audio tagger, fold by fold (``fold<k>/stage2``)."""

from dataclasses import dataclass

import torch

from tagasc.tagger.experiment import STAGE, TaggerExperiment, TaggerOptions, pseudo_labels_file, require, stage_folder
from tagasc.tagger.semi import SemiTrainer
from tagasc.tagger.tags import TagVectors
from tagasc.tagger.training import fit_fold, fold_setup
from tagasc.training.result import check_result_folder
from tagasc.training.weights import read_weights
from tagasc.utils import cli


@dataclass(frozen=True)
class Options(TaggerOptions):
    """Train stage 2, the semi-supervised stage of the audio tagger; several processes share the folds.

    --force trains stage 2 again, and keeps stage 1 and the pseudo-labels.
    """


def main(options: Options) -> None:
    """Train stage 2 on every fold."""
    experiment = TaggerExperiment(options)
    if not experiment.has_semi("stage 2"):
        return
    if options.force:
        experiment.clear([stage_folder(experiment.folder, fold, 2) for fold in experiment.folds])
    experiment.for_each_fold("stage2", lambda fold: train(experiment, fold))


def train(experiment: TaggerExperiment, fold: int) -> bool:
    """Train stage 2 on one fold; return False if it is already trained."""
    start = require(experiment.snapshot_files(fold, 1)[-1], "train_tagger.py")
    labels = require(pseudo_labels_file(experiment.folder, fold), "make_pseudo_labels.py")
    pseudo_labels = TagVectors.read(labels, STAGE)  # first: it says what to do if they are damaged
    record = experiment.training_record("train_tagger_semi", fold, stage1=start, pseudo_labels=labels)
    folder, snapshots = stage_folder(experiment.folder, fold, 2), experiment.snapshot_files(fold, 2)
    if not check_result_folder(folder, record, force=False, weights=snapshots):
        return False
    targets = torch.from_numpy(pseudo_labels.of(experiment.noisy.packed.ids))
    weights, _ = read_weights(start, STAGE)
    fit_fold(SemiTrainer(fold_setup(experiment, fold, 2), experiment.options.semi, targets, weights))
    return True


if __name__ == "__main__":
    cli.run(main)
