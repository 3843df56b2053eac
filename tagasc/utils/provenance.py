"""Provenance records: configuration, input hashes, versions, commit and command of a result.

Two records describe the same result if step, configuration and input hashes agree. Time, machine and versions are
information for the reader; they do not make a result outdated.
"""

import logging
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from tagasc.utils.cli import to_json
from tagasc.utils.errors import UserError
from tagasc.utils.files import digest, parse_json, write_json
from tagasc.utils.log import log

NAME = "provenance.json"
_PACKAGES = ("torch", "torchaudio", "torchvision", "lhotse", "scikit-learn", "numpy", "soundfile")


def record(step: str, config: dict[str, Any], inputs: dict[str, Path | str]) -> dict[str, Any]:
    """Return the provenance record of a new result.

    Args:
        step: name of the program.
        config: every setting that the result depends on.
        inputs: files that the result depends on, by name; strings are taken as hashes.
    """
    hashes = {name: digest(item) if isinstance(item, Path) else item for name, item in sorted(inputs.items())}
    return {
        "step": step,
        "config": to_json(config),
        "inputs": hashes,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": _versions(),
        "machine": {"system": platform.platform(), "processors": os.cpu_count()},
    }


def is_current(
    title: str, old: dict[str, Any] | None, new: dict[str, Any], force: bool = False, level: int = logging.INFO
) -> bool:
    """Return, and log, whether a result is up to date.

    Args:
        title: name of the result in the log.
        old: record of the result; None if there is no result.
        new: record of the result as it would be made now.
        force: make the result again in any case.
        level: level at which an up-to-date result is logged.
    """
    if old is None or force:
        return False
    why = difference(old, new)
    if why is None:
        log.log(level, "%s: up to date", title)
    else:
        log.info("%s: outdated (%s), made again", title, why)
    return why is None


def difference(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """Describe in a few words how ``old`` differs from ``new``; None if they describe the same result."""
    if old.get("step") != new["step"]:
        return f"made by {old.get('step')}, not {new['step']}"
    for kind in ("config", "inputs"):
        before, after = flat(old.get(kind, {})), flat(new[kind])
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                if kind == "inputs":
                    return f"its input {key} has changed since"
                return f"{key} was {before.get(key)!r} and is {after.get(key)!r}"
    return None


def read(folder: Path) -> dict[str, Any] | None:
    """Read the record in a result's folder; None if it is missing or, with a warning, damaged."""
    path = folder / NAME
    try:
        record = parse_json(path.read_bytes())
        if isinstance(record, dict):
            return record
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        pass
    log.warning("%s is damaged", path)
    return None


def read_whole(folder: Path) -> dict[str, Any] | None:
    """Read the record in a result's folder; None if any file of the result is missing, damaged or not listed in it."""
    record = read(folder)
    for name in _outputs(record) or {"checksums of its files": ""}:
        if record is not None and not _is_whole(folder, name, record):
            log.warning("%s: %s missing or damaged", folder, name)
            return None
    return record


def require_whole(path: Path, made_by: str) -> None:
    """Compare a file of a result with the record in its folder, if that lists the file.

    Raises:
        UserError: it has changed since it was made; the message names the stage that makes it.
    """
    record = read(path.parent)
    if path.exists() and path.name in _outputs(record) and not _is_whole(path.parent, path.name, record):
        raise UserError(f"{path} is damaged (it differs from its checksum); run {made_by} again")


def require_present(folder: Path, made_by: str) -> None:
    """Check that every file that the record in a result's folder lists is there.

    Raises:
        UserError: one was removed since; the message names the stage that makes it.
    """
    for name in _outputs(read(folder)):
        if not (folder / name).exists():
            raise UserError(f"{folder / name} is missing; run {made_by} again")


def _outputs(record: dict[str, Any] | None) -> dict[str, str]:
    outputs = (record or {}).get("outputs")
    return outputs if isinstance(outputs, dict) else {}


def _is_whole(folder: Path, name: str, record: dict[str, Any]) -> bool:
    try:
        return digest(folder / name) == _outputs(record).get(name)
    except (FileNotFoundError, UserError):
        return False


def write(folder: Path, record: dict[str, Any], outputs: Sequence[Path] = ()) -> None:
    """Write a record into a result's folder, with checksums of the files that the result consists of."""
    listed = {str(path.relative_to(folder)): digest(path) for path in outputs}
    write_json(folder / NAME, record | {"outputs": listed} if listed else record)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    if not isinstance(value, dict):
        return {prefix: value}
    parts = [flat(item, f"{prefix}.{key}" if prefix else str(key)) for key, item in value.items()]
    return {key: item for part in parts for key, item in part.items()}


@cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


@cache
def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + (" with changes" if changed else "")
