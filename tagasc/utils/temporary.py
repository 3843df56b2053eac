"""Temporary files: names that no other process uses, flushing to disk, and removal of what dead processes left.

A name is ``.tmp.<host>.<process>.<random>.<name>``, so two computers that share a folder use different ones.
"""

import glob
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

_HOST = re.sub(r"[^\w-]", "-", os.uname().nodename)[:24]
_NAME = re.compile(r"\.(?:tmp\.(?P<host>[\w-]*)\.)?(?P<process>\d+)\.")  # without host: earlier versions
_MANY = 100  # files
_OTHER_HOST = 2 * 24 * 3600  # age in seconds at which another computer's temporary file counts as left behind


def temporary_path(path: Path) -> Path:
    """Return a new hidden path beside ``path``; it keeps the suffix, by which some writers choose their format."""
    return path.with_name(f".tmp.{_HOST}.{os.getpid()}.{secrets.token_hex(4)}.{path.name}")


def to_disk(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk; a power failure loses what was only in memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def folder_to_disk(folder: Path) -> None:
    """Flush everything in a folder; of many files, whole disks at once, which is faster than one by one."""
    paths = [*folder.rglob("*"), folder]
    if len(paths) > _MANY:
        os.sync()
        return
    for path in paths:
        to_disk(path)


def clear_beside(path: Path) -> None:
    """Delete what dead processes left of earlier attempts at ``path``."""
    for left in path.parent.glob(f".tmp.*.{glob.escape(path.name)}"):
        match = _NAME.match(left.name)
        if match and _is_left(left, match["host"], int(match["process"])):
            _delete(left)


def clear_leftovers(folders: Iterable[Path]) -> list[Path]:
    """Delete temporary files and folders of processes that no longer run; return their paths.

    Whoever calls this holds the recipe's lock. Whether a process of another computer runs cannot be seen from here, so
    its files are deleted once they are two days old.
    """
    cleared = []
    for folder in folders:
        for parent, folders_in, files in os.walk(folder):
            for name in [*folders_in, *files]:
                path = Path(parent, name)
                if (match := _NAME.match(name)) and _is_left(path, match["host"], int(match["process"])):
                    _delete(path)
                    cleared.append(path)
            folders_in[:] = [name for name in folders_in if not _NAME.match(name)]
    return cleared


def _delete(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _is_left(path: Path, host: str | None, process: int) -> bool:
    if host not in (None, _HOST):
        return time.time() - path.lstat().st_mtime > _OTHER_HOST
    return not Path("/proc", str(process)).exists()
