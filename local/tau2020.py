#!/usr/bin/env python3
"""TAU Urban Acoustic Scenes 2020 Mobile, development set → Lhotse manifests.

23,035 ten-second clips (44.1 kHz, mono, 24 bit, 27.4 GB) of ten scenes in ten cities, recorded with the devices a, b, c
and with the simulated devices s1 to s6. Fold 1 has 13,962 training clips, none of s4 to s6, and 2968 test clips of all
devices at other locations. An older release has 23,040 clips; five of them were withdrawn. Both are accepted.

The other 6105 clips repeat training segments on s4 to s6, or are from test locations. They are named ``unused`` and get
recordings and supervisions, but no cuts: no stage trains on them or scores them.

- Source: https://zenodo.org/records/3819968
- Licence: non-commercial, for experiments; it covers results too, such as weights trained on the clips.
- Citation: Heittola, Mesaros, Virtanen: "Acoustic scene classification in DCASE 2020 challenge: generalization across
  devices and low complexity solutions", DCASE 2020.

Splits: ``train`` and ``validation`` (held out from the fold's training clips by recording location, with all devices of
a location on one side), ``test``, ``unused``. Fields of a supervision: ``local/tau.py``.
"""

from pathlib import Path
from typing import Any

from local.manifests import Manifests, load
from local.published import TAU2020, TAU2020_OLDER, TAU2020_WITHDRAWN, by_split
from local.tau import Release, TauSet, prepare
from tagasc.utils import cli

OLDER = Release("older", by_split(TAU2020_OLDER), only=TAU2020_WITHDRAWN)
CURRENT = Release("current", by_split(TAU2020), withdrawn=TAU2020_WITHDRAWN)
SET = TauSet("tau2020", 1, (OLDER, CURRENT))


def prepare_tau2020(corpus_dir: Path | str, output_dir: Path | str, num_jobs: int = 1, **options: Any) -> Manifests:
    """Prepare manifests of TAU Urban Acoustic Scenes 2020 Mobile, development set.

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
    sampling_rate: int = 44100,
    seconds: float = 10.0,
    validation_share: float = 0.15,
    seed: int = 2020,
    allow_partial: bool = False,
    nj: int = 4,
    force: bool = False,
) -> None:
    """Write manifests of TAU Urban Acoustic Scenes 2020 Mobile, development set.

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
