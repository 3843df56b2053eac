#!/usr/bin/env python3
"""Stage 2: decode every clip of a corpus once into packed audio (``tagasc/packed.py`` says what that is)."""

import gzip
import hashlib
import os
import shutil
from math import inf
from pathlib import Path

from tagasc.audio.pack import SampleFormat, Source, pack
from tagasc.audio.packed import packed_splits
from tagasc.utils import cli, provenance
from tagasc.utils.errors import UserError
from tagasc.utils.log import log


def main(
    manifests: Path,
    out: Path,
    seconds: float | None = None,
    sample_format: SampleFormat = "int16",
    nj: int = 1,
    force: bool = False,
) -> None:
    """Pack the clips of every ``<corpus>_cuts_<split>.jsonl.gz`` into ``<out>/<corpus>_<split>``.

    Packed splits of the same corpus without such a file are removed.

    Args:
        manifests: folder of Lhotse manifests (stage 1).
        out: folder for the packed audio.
        seconds: length that clips are cut or padded to; not given, each keeps its own.
        sample_format: type of the stored samples; int16 rounds, float32 keeps 24-bit audio exact at twice the size.
        nj: number of processes.
        force: pack again even what is there.
    """
    if nj < 1 or (seconds is not None and not 0 < seconds < inf):
        raise UserError("--nj and --seconds must be positive")
    cuts = sorted(manifests.glob("*_cuts_*.jsonl.gz"))
    if not cuts:
        raise UserError(f"{manifests} holds no *_cuts_*.jsonl.gz; run stage 1 (manifests)")
    named = [path.name.removesuffix(".jsonl.gz").rsplit("_cuts_", 1) for path in cuts]
    for path, (_, split) in zip(cuts, named, strict=True):
        if "_" in split or not split:
            raise UserError(f"{path}: the split {split!r} must have a name without _; name it otherwise in stage 1")
    for corpus in {corpus for corpus, _ in named}:
        _remove_dropped(out, corpus, {split for name, split in named if name == corpus})
    for path, (corpus, split) in zip(cuts, named, strict=True):
        _pack(path, out / f"{corpus}_{split}", seconds, sample_format, nj, force)


def _remove_dropped(out: Path, corpus: str, splits: set[str]) -> None:
    """Remove packed splits without a manifest: their clips may be in another split now, and stages 4 to 8 take all."""
    for split, folder in packed_splits(out, corpus).items():
        if split not in splits:
            log.warning("%s: removed, since its manifest is gone", folder.name)
            folder.unlink() if folder.is_symlink() else shutil.rmtree(folder)


def _pack(path: Path, folder: Path, seconds: float | None, sample_format: SampleFormat, nj: int, force: bool) -> None:
    content = hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
    record = provenance.record("pack_audio", {"seconds": seconds, "sample_format": sample_format}, {path.name: content})
    if provenance.is_current(folder.name, provenance.read(folder), record, force):
        return
    if force:
        shutil.rmtree(folder.with_name(f".partial.{folder.name}"), ignore_errors=True)
    sources = _sources(path, seconds)
    if not sources:
        raise UserError(f"{path} lists no clips; run stage 1 (manifests) on a corpus that has some")
    size = sum(s.frames * s.channels for s in sources) * (2 if sample_format == "int16" else 4)
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if size > free and not folder.with_name(f".partial.{folder.name}").exists():
        raise UserError(f"{folder} needs {size / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; free some space")
    pack(sources, folder, record, sample_format, nj)


def _sources(path: Path, seconds: float | None) -> list[Source]:
    from lhotse import CutSet  # here, since it takes long to import

    sources = []
    for cut in CutSet.from_file(path):
        recording, supervision = cut.recording, cut.supervisions[0]
        if len(recording.sources) != 1 or recording.sources[0].type != "file":
            raise UserError(f"{path}: {recording.id} is not one audio file; give manifests of plain files")
        custom = supervision.custom or {}
        frames = cut.num_samples if seconds is None else round(seconds * cut.sampling_rate)
        if frames < 1:
            raise UserError(f"{path}: {recording.id} would hold no sample; give more --seconds")
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


if __name__ == "__main__":
    cli.run(main)
