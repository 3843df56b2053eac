#!/usr/bin/env python3
"""Stage 2: decode every clip of a corpus once into packed audio (``tagasc/audio/packed.py`` describes the format)."""

import shutil
from pathlib import Path
from typing import Any

from tagasc.audio.manifests import cut_manifests, read_sources, state_of
from tagasc.audio.pack import SampleFormat, pack
from tagasc.audio.packed import PACKED_FILES, PackedAudio, packed_splits
from tagasc.utils import cli, provenance
from tagasc.utils.errors import UserError
from tagasc.utils.files import delete_own, format_bytes
from tagasc.utils.log import log


def main(
    manifests: Path,
    out: Path,
    sample_format: SampleFormat = "int16",
    nj: int = 1,
    shard_gb: float = 50.0,
    check: bool = False,
    force: bool = False,
) -> None:
    """Pack the clips of every ``<corpus>_cuts_<split>.jsonl.gz`` into ``<out>/<corpus>_<split>``.

    Packed splits of these corpora without such a file are removed.

    Args:
        manifests: folder of Lhotse manifests (stage 1), which also set the length of a clip.
        out: folder of the packed audio.
        sample_format: type of the stored samples; int16 rounds, float32 keeps 24-bit audio exact at twice the size.
        nj: number of processes.
        shard_gb: size above which a split's samples are divided among several files, in GB.
        check: pack nothing, but compare all packed audio of these corpora with its checksums.
        force: pack again even if up to date.
    """
    if nj < 1:
        raise UserError("--nj must be positive")
    if not shard_gb > 0:
        raise UserError("--shard-gb must be positive")
    files = cut_manifests(manifests)
    provenance.require_present(manifests, "stage 1 (manifests)")  # the split of a lost file is not one that was dropped
    if not files:
        raise UserError(f"{manifests} holds no *_cuts_*.jsonl.gz; run stage 1 (manifests)")
    if check:
        for corpus, split in files:
            packed = PackedAudio(out / f"{corpus}_{split}")
            packed.compare_all()
            log.info("%s: %d clips agree with their checksums", packed.folder.name, len(packed))
        return
    for corpus in {corpus for corpus, _ in files}:
        _remove_dropped(out, corpus, {split for name, split in files if name == corpus})
    for (corpus, split), path in files.items():
        _pack(path, out / f"{corpus}_{split}", sample_format, nj, shard_gb, force)


def _remove_dropped(out: Path, corpus: str, splits: set[str]) -> None:
    """Remove packed splits without a manifest; stages 4 to 8 use every split, and clips may have moved to another."""
    for split, folder in packed_splits(out, corpus).items():
        if split not in splits:
            log.warning("%s: removed, since its manifest is gone", folder.name)
            folder.unlink() if folder.is_symlink() else delete_own(folder, *PACKED_FILES)


def _pack(path: Path, folder: Path, sample_format: SampleFormat, nj: int, shard_gb: float, force: bool) -> None:
    record = provenance.record("pack_audio", {"sample_format": sample_format}, {path.name: state_of(path)})
    if provenance.is_current(folder.name, _read_whole(folder), record, force):
        return
    if force:
        shutil.rmtree(folder.with_name(f".partial.{folder.name}"), ignore_errors=True)
    sources = read_sources(path)
    if not sources:
        raise UserError(f"{path} lists no clips; run stage 1 (manifests) on a corpus with clips")
    size = sum(s.frames * s.channels for s in sources) * (2 if sample_format == "int16" else 4)
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if size > free and not folder.with_name(f".partial.{folder.name}").exists():
        raise UserError(f"{folder} needs {format_bytes(size)}, but {format_bytes(free)} are free; free some space")
    pack(sources, folder, record, sample_format, nj, shard_gb)


def _read_whole(folder: Path) -> dict[str, Any] | None:
    """Read the record of a packed folder; None if index and samples do not fit, of which stage 2 reads no clip."""
    record = provenance.read(folder)
    if record is None:
        return None
    try:
        PackedAudio(folder)
    except UserError as error:
        log.warning("%s", error)
        return None
    return record


if __name__ == "__main__":
    cli.run(main)
