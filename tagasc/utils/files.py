"""Atomic files and folders, written under a temporary name and then renamed; JSON, YAML and .npz; digests."""

import hashlib
import json
import math
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from numpy.lib.npyio import NpzFile

from tagasc.utils.errors import UserError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success it is renamed to ``path``, on failure it is deleted.

    It keeps the suffix of ``path``, since some writers choose their format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


_OWN = (".*", "made_from.json", "paper.json")  # temporary files, and names of earlier versions


def require_own(folder: Path, *patterns: str) -> None:
    """Make sure that a folder to be replaced or deleted holds only what its program writes.

    Args:
        folder: the folder, which need not exist.
        patterns: names of what the program writes into it, as for ``fnmatch``; hidden files are temporary.

    Raises:
        UserError: the folder is a file, or holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, and a folder is needed there; choose another place, or move the file")
    for child in sorted(folder.iterdir()) if folder.exists() else ():
        if not any(fnmatch(child.name, pattern) for pattern in (*_OWN, *patterns)):
            raise UserError(
                f"{folder} holds {child.name}, which this program did not write and would delete; move it away, or"
                " choose another folder"
            )


def delete_own(folder: Path, *patterns: str) -> None:
    """Delete a folder; raise UserError if it holds anything that does not match ``patterns`` (``require_own``)."""
    require_own(folder, *patterns)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def atomic_folder(path: Path, *patterns: str) -> Iterator[Path]:
    """Yield an empty temporary folder; on success it replaces ``path``, on failure it is deleted.

    Args:
        path: the folder to write.
        patterns: names of what the program writes into it; see ``require_own``.

    Raises:
        UserError: ``path`` exists and holds something else.
    """
    require_own(path, *patterns)
    temporary = path.with_name(f".partial.{path.name}")  # a fixed name, so that leftovers of a killed run are deleted
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        replace_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(source: Path, target: Path) -> None:
    """Rename the folder ``source`` to ``target``; an old ``target`` is moved aside first and then deleted."""
    aside = target.with_name(f".{os.getpid()}.old.{target.name}")
    if target.exists():
        os.replace(target, aside)
    os.replace(source, target)
    shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path, made_by: str) -> Any:
    """Read JSON.

    Args:
        path: the file.
        made_by: stage that writes it, for the error.

    Raises:
        UserError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run {made_by} to create it") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON ({error}); delete it and run {made_by} again") from None


def read_yaml(path: Path, remedy: str) -> Any:
    """Read YAML without duplicate keys.

    Args:
        path: the file.
        remedy: what to do if it is missing, for the error.

    Raises:
        UserError: the file is missing, not YAML, or has a duplicate key.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {remedy}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that rejects duplicate keys."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        for number, (key, _) in enumerate(node.value):
            if key.value in [earlier.value for earlier, _ in node.value[:number]]:
                raise yaml.MarkedYAMLError(problem=f"duplicate key {key.value!r}", problem_mark=key.start_mark)
        return node


def format_bytes(count: int) -> str:
    """Format a number of bytes with its unit, such as 1.5 GB."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def digest(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes; for ``.npz``, of its arrays without the provenance record."""
    if path.suffix != ".npz":
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    sha256 = hashlib.sha256()
    try:
        with NpzFile(path, allow_pickle=False) as arrays:  # np.load takes other formats too
            for name in sorted(set(arrays.files) - {"provenance"}):
                value = np.ascontiguousarray(_array(arrays, name))
                sha256.update(f"{name} {value.dtype} {value.shape}".encode())
                sha256.update(value.tobytes())
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error):
        return "not readable"
    return sha256.hexdigest()


def _array(file: NpzFile, name: str) -> np.ndarray:
    """Return an array of an ``.npz``, whose header must not promise more than the file holds.

    Raises:
        KeyError: the file has no such array.
        ValueError: the array is damaged.
    """
    member = next((name + end for end in ("", ".npy") if name + end in file.zip.namelist()), None)
    if member is None:
        raise KeyError(name)
    size = file.zip.getinfo(member).file_size
    with file.zip.open(member) as stream:
        read_header = read_array_header_1_0 if read_magic(stream) == (1, 0) else read_array_header_2_0
        shape, _, dtype = read_header(stream)
        if stream.tell() + math.prod(shape) * dtype.itemsize != size:
            raise ValueError(f"{name}: its header says {shape}, which does not fit its size")
    return file[name]


def write_npz(path: Path, record: dict[str, Any], **arrays: np.ndarray) -> None:
    """Write arrays and their provenance record, atomically."""
    with atomic_file(path) as temporary:
        np.savez(temporary, provenance=np.array(json.dumps(record)), **arrays)


def read_npz(path: Path, names: tuple[str, ...], made_by: str) -> dict[str, np.ndarray]:
    """Read the named arrays, without pickle.

    Raises:
        UserError: the file is missing, not ``.npz``, or lacks an array.
    """
    try:
        with NpzFile(path, allow_pickle=False) as file:  # np.load takes other formats too
            return {name: _array(file, name) for name in names}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run {made_by} to create it") from None
    except KeyError as error:
        raise UserError(f"{path} lacks the array {error.args[0]}; it should hold {', '.join(names)}") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not a readable .npz file ({error}); run {made_by} again") from None


def read_record(path: Path) -> dict[str, Any] | None:
    """Read the provenance record of an ``.npz``; None if the file or the record is missing."""
    try:
        with NpzFile(path, allow_pickle=False) as file:
            record = json.loads(str(_array(file, "provenance")))
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return record if isinstance(record, dict) else None
