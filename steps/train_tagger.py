#!/usr/bin/env python3
"""Stage 3, program 1 of 4: train stage 1 of the audio tagger, fold by fold (``fold<k>/stage1``)."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tagasc.tagger.experiment import TaggerExperiment, TaggerOptions, fold_folder, stage_folder
from tagasc.tagger.training import TaggerTrainer, fit_fold, fold_setup
from tagasc.training.result import check_result_folder
from tagasc.utils import cli
from tagasc.utils.log import log, start_logging

_PART_REMOVED = (
    "--part was removed; for stage1 run steps/train_tagger.py, for pseudo_labels steps/make_pseudo_labels.py,"
    " for stage2 steps/train_tagger_semi.py, for score steps/score_tagger.py"
)


@dataclass(frozen=True)
class Options(TaggerOptions):
    """Train stage 1 of the audio tagger on curated and noisy clips; several processes share the folds.

    --force also removes pseudo-labels and stage 2 of these folds.
    """


def main(options: Options) -> None:
    """Train stage 1 on every fold."""
    experiment = TaggerExperiment(options)
    if not options.noisy:
        log.info("noisy head skipped: no noisy clips (--noisy false)")
    if options.force:
        experiment.clear([fold_folder(experiment.folder, fold) for fold in experiment.folds])
    experiment.for_each_fold("stage1", lambda fold: train(experiment, fold))


def train(experiment: TaggerExperiment, fold: int) -> bool:
    """Train stage 1 on one fold; return False if it is already trained."""
    record = experiment.training_record("train_tagger", fold)
    folder, snapshots = stage_folder(experiment.folder, fold, 1), experiment.snapshot_files(fold, 1)
    if not check_result_folder(folder, record, force=False, weights=snapshots):
        return False
    fit_fold(TaggerTrainer(fold_setup(experiment, fold, 1)))
    return True


def refuse_part(arguments: Sequence[str]) -> None:
    """Exit with an error if the removed option --part is given."""
    if any(argument.partition("=")[0] == "--part" for argument in arguments):
        start_logging()
        log.error("error: %s", _PART_REMOVED)
        sys.exit(2)


if __name__ == "__main__":
    refuse_part(sys.argv[1:])
    cli.run(main)
