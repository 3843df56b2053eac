"""Lhotse cut manifests of stage 1: their names, and the clips that they list."""

import os
from pathlib import Path

from tagasc.audio.pack import Source
from tagasc.utils.errors import UserError

_SUFFIX = ".jsonl.gz"


def cut_manifests(folder: Path) -> dict[tuple[str, str], Path]:
    """Return the files ``<corpus>_cuts_<split>.jsonl.gz`` of ``folder``, in alphabetical order, by (corpus, split).

    Raises:
        UserError: a split has no name, or one with ``_``, which separates corpus and split in packed folders' names.
    """
    manifests = {}
    for path in sorted(folder.glob(f"*_cuts_*{_SUFFIX}")):
        corpus, split = path.name.removesuffix(_SUFFIX).rsplit("_cuts_", 1)
        if "_" in split or not split:
            raise UserError(f"{path}: the split {split!r} must have a name without _; rename it in stage 1")
        manifests[corpus, split] = path
    return manifests


def read_sources(path: Path) -> list[Source]:
    """Read the clips of a cut manifest.

    A clip gets the length in the supervision's custom field ``seconds``; without that field it keeps its own length.

    Raises:
        UserError: a recording is not a single file, or a clip would hold no sample.
    """
    from lhotse import CutSet  # here, since it takes long to import

    sources = []
    for cut in CutSet.from_file(path):
        recording, supervision = cut.recording, cut.supervisions[0]
        if len(recording.sources) != 1 or recording.sources[0].type != "file":
            raise UserError(f"{path}: {recording.id} is not one audio file; give manifests of plain files")
        custom = supervision.custom or {}
        seconds = custom.get("seconds")
        frames = cut.num_samples if seconds is None else round(seconds * cut.sampling_rate)
        if frames < 1:
            raise UserError(
                f"{path}: {recording.id} would hold no sample in {seconds} s; run stage 1 with more --seconds"
            )
        sources.append(
            Source(
                supervision.id,
                os.fspath(recording.sources[0].source),
                round(cut.start * cut.sampling_rate),
                cut.num_samples,
                frames,
                recording.num_channels,
                cut.sampling_rate,
                tuple(custom.get("labels", ())),
                custom.get("location", ""),
                custom.get("usage", ""),
            )
        )
    return sources
