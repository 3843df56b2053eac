#!/usr/bin/env python3
"""CochlScene → Lhotse manifests.

About 76,000 ten-second clips (44.1 kHz, mono, 53.9 GB) of 13 scenes, recorded by 831 participants with their own
devices. No table in the corpus lists its files, and these numbers were not checked against it. A clip is
``{Train,Val,Test}/<scene>/<scene>_user<participant>_<submission>_<segment>.wav``.

- Source: https://zenodo.org/records/7080122
- Licence: see the record.
- Citation: Jeong, Park: "CochlScene: acquisition of acoustic scene data using crowdsourcing", APSIPA ASC 2022.

Splits: ``train``, ``validation`` and ``test``, the corpus's own, which share no participant. The location of a clip is
its participant; ``submission`` and ``segment`` are further fields of a supervision.
"""

from pathlib import Path
from typing import Any

from local.folders import rows_of
from local.manifests import PARTIAL, AudioFormat, ClipEntry, Manifests, check_unique, load, state_of, write
from tagasc.utils import cli, provenance
from tagasc.utils.errors import UserError
from tagasc.utils.log import log
from tagasc.utils.tables import Row

NAME = "cochlscene"
SCENES = (
    "Bus", "Cafe", "Car", "CrowdedIndoor", "Elevator", "Kitchen", "Park", "ResidentialArea", "Restaurant", "Restroom",
    "Street", "Subway", "SubwayStation",
)  # fmt: skip
PATTERN = (
    r"(?P<split>Train|Val|Test)/(?P<scene>[^/]+)/(?P=scene)_(?P<location>user[0-9]+)_(?P<submission>[0-9]+)"
    r"_(?P<segment>[0-9]+)\.wav"
)
_REMEDY = (
    "download it again; if all clips are so, set scene_rate or scene_seconds in recipe.sh (--sampling-rate, --seconds)"
)


def prepare_cochlscene(corpus_dir: Path | str, output_dir: Path | str, num_jobs: int = 1, **options: Any) -> Manifests:
    """Prepare manifests of CochlScene.

    Args:
        corpus_dir: folder of the unpacked corpus, with Train, Val and Test.
        output_dir: folder for the manifests.
        num_jobs: number of processes.
        options: further options of ``main``, by name.

    Returns:
        Recordings and supervisions by split.
    """
    main(Path(corpus_dir), Path(output_dir), nj=num_jobs, **options)
    return load(Path(output_dir), NAME)


def main(
    corpus: Path,
    out: Path,
    sampling_rate: int = 44100,
    seconds: float = 10.0,
    allow_partial: bool = False,
    nj: int = 4,
    force: bool = False,
) -> None:
    """Write manifests of CochlScene.

    Args:
        corpus: folder of the unpacked corpus, with Train, Val and Test.
        out: folder for the manifests.
        sampling_rate: sampling rate of the clips, in Hz.
        seconds: duration of a clip, in seconds, within 10 %.
        allow_partial: accept a corpus that lacks scenes in a split.
        nj: number of processes.
        force: write up-to-date manifests again.
    """
    if not corpus.is_dir():
        raise UserError(f"{corpus} is not a folder; download the corpus (stage 0) or give its folder")
    corpus = corpus.resolve()
    splits: dict[str, list[ClipEntry]] = {"train": [], "validation": [], "test": []}
    for row in rows_of(corpus, PATTERN, remedy="move it away, or download it again"):
        splits[row["split"]].append(_entry(corpus, row))
    _check(corpus, splits, allow_partial)
    settings = {"sampling_rate": sampling_rate, "seconds": seconds, "allow_partial": allow_partial}
    record = provenance.record(NAME, settings, state_of([], sum(splits.values(), [])))
    if provenance.is_current(str(out), provenance.read_whole(out), record, force):
        return
    audio = AudioFormat(sampling_rate, 1, _REMEDY, (0.9 * seconds, 1.1 * seconds))
    write(out, NAME, splits, record, audio, nj, seconds)


def _entry(corpus: Path, row: Row) -> ClipEntry:
    path, fields = corpus / row["file"], ("location", "submission", "segment")
    if row["scene"] not in SCENES:
        raise UserError(f"{path} has the unknown scene {row['scene']!r}; move it away, or download it again")
    return ClipEntry(path.stem, path, (row["scene"],), {name: row[name] for name in fields})


def _check(corpus: Path, splits: dict[str, list[ClipEntry]], allow_partial: bool) -> None:
    """Check that every split has every scene, and that no participant is in two splits."""
    entries = sum(splits.values(), [])
    check_unique(entries, corpus)
    lacking = [
        f"{split} has no {scene}"
        for split, of_split in splits.items()
        for scene in SCENES
        if scene not in {entry.labels[0] for entry in of_split}
    ]
    if lacking and not allow_partial:
        raise UserError(f"{corpus}: {lacking[0]} ({len(lacking)} such gaps); {PARTIAL}")
    split_of: dict[str, str] = {}
    for split, of_split in splits.items():
        for entry in of_split:
            first = split_of.setdefault(entry.custom["location"], split)
            if first != split:
                raise UserError(
                    f"{corpus}: participant {entry.custom['location']} is in both {first} and {split}, with"
                    f" {entry.path.name}; download it again"
                )
    log.info("%s: %d clips of %d participants", NAME, len(entries), len(split_of))


if __name__ == "__main__":
    cli.run(main, positional=True)
