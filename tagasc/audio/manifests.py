"""Lhotse cut manifests of stage 1: their names, their state, and the clips that they list."""

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tagasc.audio.pack import Source
from tagasc.utils.errors import UserError

_SUFFIX = ".jsonl.gz"
_DAMAGE = (gzip.BadGzipFile, EOFError, zlib.error, RuntimeError, ValueError, LookupError, TypeError, AttributeError,
           AssertionError)  # what gzip, json and lhotse raise  # fmt: skip


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


def state_of(manifest: Path) -> str:
    """Return a hash of a cut manifest, in which only the names of audio files count, not their folders.

    So packed audio stays up to date where a corpus is moved. ``content``, which stage 1 writes, tells files apart.

    Raises:
        UserError: the manifest is damaged.
    """
    with _undamaged(manifest):
        cuts = [json.loads(line) for line in gzip.decompress(manifest.read_bytes()).splitlines()]
        for source in (source for cut in cuts for part in _parts(cut) for source in part["recording"]["sources"]):
            source["source"] = os.path.basename(source["source"])
        return hashlib.sha256(json.dumps(cuts, sort_keys=True).encode()).hexdigest()


def clip_fields(manifest: Path) -> dict[str, dict[str, Any]]:
    """Return the fields of each clip's supervision by clip id, and its audio file as the field ``source``.

    Raises:
        UserError: the manifest is missing or damaged.
    """
    if not manifest.exists():
        raise UserError(f"{manifest} does not exist; run stage 1 (manifests) to create it")
    fields = {}
    with _undamaged(manifest), gzip.open(manifest, "rt", encoding="utf-8") as lines:
        for cut in map(json.loads, lines):
            parts = _parts(cut)
            supervision = parts[0]["supervisions"][0]
            clip = supervision["id"] if parts == [cut] else cut["id"]
            fields[clip] = {**supervision["custom"], "source": parts[0]["recording"]["sources"][0]["source"]}
    return fields


def _parts(cut: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cuts of the files of which a clip consists: itself, or the tracks that are appended to each other."""
    return [track["cut"] for track in cut["tracks"]] if "tracks" in cut else [cut]


def read_sources(path: Path) -> list[Source]:
    """Read the clips of a cut manifest.

    A clip gets the length in the supervision's custom field ``seconds``; without that field it keeps its own length.

    Raises:
        UserError: the manifest is damaged, a recording is not a single file, or a clip would hold no sample.
    """
    from lhotse import CutSet  # here, since it takes long to import

    with _undamaged(path):
        return [_source(path, cut) for cut in CutSet.from_file(path)]


def _source(path: Path, cut: Any) -> Source:
    parts = [track.cut for track in cut.tracks] if hasattr(cut, "tracks") else [cut]
    recordings, supervision = [part.recording for part in parts], parts[0].supervisions[0]
    for recording in recordings:
        if len(recording.sources) != 1 or recording.sources[0].type != "file":
            raise UserError(f"{path}: {recording.id} is not one audio file; give manifests of plain files")
    custom = supervision.custom or {}
    seconds, samples = custom.get("seconds"), [part.num_samples for part in parts]
    frames = sum(samples) if seconds is None else round(seconds * cut.sampling_rate)
    if frames < 1:
        raise UserError(
            f"{path}: {recordings[0].id} would hold no sample in {seconds} s; run stage 1 with more --scene-seconds"
        )
    first = round(parts[0].start * cut.sampling_rate)
    if first < 0 or min(samples) < 1 or recordings[0].num_channels < 1 or any(part.start for part in parts[1:]):
        raise ValueError(f"{recordings[0].id} starts at {first}, with {samples} samples")
    files = [os.fspath(recording.sources[0].source) for recording in recordings]
    return Source(
        supervision.id if len(parts) == 1 else cut.id,
        files[0],
        first,
        sum(samples),
        frames,
        recordings[0].num_channels,
        cut.sampling_rate,
        tuple(custom.get("labels", ())),
        custom.get("location", ""),
        custom.get("usage", ""),
        custom.get("joined", ""),
        tuple(zip(files[1:], samples[1:], strict=True)),
    )


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    """Turn what reading a damaged manifest raises into a UserError."""
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} is damaged ({reason}); run stage 1 (manifests) again") from None
