#!/usr/bin/env python3
"""TAU Urban Acoustic Scenes 2019, development set → Lhotse manifests.

14,400 ten-second clips (48 kHz, stereo, 24 bit, 35.6 GB) of ten scenes in ten cities, recorded with one device.
Fold 1 has 9185 training clips and 4185 test clips at other locations. The other 1030 clips, all from Milan, are unused.
By their digits, some of the paper's figures presumably refer to the test clips, others to test and unused clips
together, so both are kept.

- Source: https://zenodo.org/records/2589280
- Licence: non-commercial, for experiments.
- Citation: Mesaros, Heittola, Virtanen: "A multi-device dataset for urban acoustic scene classification", DCASE 2018.

Splits: ``train`` and ``validation`` (held out from the fold's training clips by recording location), ``test``,
``unused``. Fields of a supervision: ``local/tau.py``.
"""

from pathlib import Path
from typing import Any

from local.manifests import Manifests, load
from local.published import TAU2019, by_split
from local.tau import Release, TauSet, prepare
from tagasc.utils import cli

SET = TauSet("tau2019", 2, (Release("only", by_split(TAU2019)),), unused_leaks=False)


def prepare_tau2019(corpus_dir: Path | str, output_dir: Path | str, num_jobs: int = 1, **options: Any) -> Manifests:
    """Prepare manifests of TAU Urban Acoustic Scenes 2019, development set.

    Args:
        corpus_dir: folder of the unpacked corpus, with meta.csv, audio and evaluation_setup.
        output_dir: folder for the manifests.
        num_jobs: number of processes.
        options: further options of ``main``, by name.

    Returns:
        Recordings and supervisions by split.
    """
    main(Path(corpus_dir), Path(output_dir), nj=num_jobs, **options)
    return load(Path(output_dir), SET.name)


def main(
    corpus: Path,
    out: Path,
    sampling_rate: int = 48000,
    seconds: float = 10.0,
    validation_share: float = 0.15,
    seed: int = 2019,
    allow_partial: bool = False,
    nj: int = 4,
    force: bool = False,
) -> None:
    """Write manifests of TAU Urban Acoustic Scenes 2019, development set.

    Args:
        corpus: folder of the unpacked corpus, with meta.csv, audio and evaluation_setup.
        out: folder for the manifests.
        sampling_rate: sampling rate of the clips, in Hz.
        seconds: duration of a clip, in seconds, within 10 %.
        validation_share: share of the training clips held out for validation.
        seed: seed of the validation split.
        allow_partial: accept a corpus with missing clips, or with clips that no table lists.
        nj: number of processes.
        force: write up-to-date manifests again.
    """
    prepare(SET, corpus, out, sampling_rate, seconds, validation_share, seed, allow_partial, nj, force)


if __name__ == "__main__":
    cli.run(main, positional=True)
