#!/usr/bin/env python3
"""Stage 3, program 2 of 4: compute soft labels of the noisy clips (``fold<k>/pseudo_labels.npz``)."""

from dataclasses import dataclass

import numpy as np
import torch

from tagasc.audio.packed import require_index
from tagasc.tagger.experiment import TaggerExperiment, TaggerOptions, pseudo_labels_file, require
from tagasc.tagger.inference import load_ensemble
from tagasc.tagger.semi import sharpen
from tagasc.utils import cli, provenance
from tagasc.utils.device import precision_on
from tagasc.utils.files import read_record, write_npz
from tagasc.utils.log import log

_NO_PADS = (0,)  # as in the released code of [13]


@dataclass(frozen=True)
class Options(TaggerOptions):
    """Compute soft labels of the noisy clips with stage 1 of the audio tagger; several processes share the folds."""


def main(options: Options) -> None:
    """Compute pseudo-labels for every fold."""
    experiment = TaggerExperiment(options)
    if experiment.has_semi("pseudo-labels"):
        experiment.for_each_fold("pseudo_labels", lambda fold: label(experiment, fold))


def label(experiment: TaggerExperiment, fold: int) -> bool:
    """Compute pseudo-labels for one fold; return False if they are up to date."""
    options = experiment.options
    sources = [fold] if options.pseudo_labels.models == "own" else experiment.folds
    paths = [path for source in sources for path in experiment.snapshot_files(source, 1)]
    inputs = {str(path.relative_to(experiment.folder)): require(path, "train_tagger.py") for path in paths}
    inputs["noisy"] = require_index(experiment.packed["noisy"])
    config = {"pseudo_labels": options.pseudo_labels, "precision": precision_on(experiment.device)}
    record = provenance.record("make_pseudo_labels", config, inputs)
    path, title = pseudo_labels_file(experiment.folder, fold), f"fold{fold}/pseudo_labels.npz"
    if provenance.is_current(title, read_record(path), record, options.force):
        return False
    clips, ensemble = experiment.noisy, load_ensemble(paths, _NO_PADS, experiment.device)
    mean = ensemble.tags(clips, torch.arange(len(clips)), options.training.batch)
    values = sharpen(mean, options.pseudo_labels.sharpness)
    write_npz(path, record, ids=np.array(clips.packed.ids), classes=np.array(ensemble.classes), values=values)
    log.info("%s: %d clips, mean over %d networks", title, len(values), len(paths))
    return True


if __name__ == "__main__":
    cli.run(main)
