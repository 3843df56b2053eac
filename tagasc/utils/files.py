"""Atomic files and folders, flushed to disk under a temporary name and then renamed; JSON and .npz; digests.

What is written here carries a checksum, which reading compares: JSON as its key ``checksum``, .npz in its own format.
"""

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
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from numpy.lib.npyio import NpzFile

from tagasc.utils import temporary as temporaries
from tagasc.utils.errors import UserError

CHECKSUM = "checksum"
_NPZ_DAMAGE = (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)  # and OSError without errno


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success it is renamed to ``path``, on failure it is deleted.

    It keeps the suffix of ``path``, since some writers choose their format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporaries.temporary_path(path)
    try:
        yield temporary
        temporaries.to_disk(temporary)
        os.replace(temporary, path)
        temporaries.to_disk(path.parent)
    except OSError as error:
        if error.filename is None or str(error.filename) == str(temporary):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write bytes, atomically.

    Libraries that write files of their own report a full disk by errors of their own, or not at all. Let them write
    into memory and pass that on: the operating system's error is then raised here.
    """
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


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
    temporaries.clear_beside(path)
    temporary = temporaries.temporary_path(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        replace_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(source: Path, target: Path) -> None:
    """Rename the folder ``source`` to ``target``; an old ``target`` is moved aside first and then deleted."""
    temporaries.folder_to_disk(source)
    aside = temporaries.temporary_path(target)
    if target.exists():
        os.replace(target, aside)
    os.replace(source, target)
    temporaries.to_disk(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; a mapping gets a checksum, which ``read_json`` compares."""
    value = with_checksum(value) if isinstance(value, dict) else value
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def with_checksum(value: dict[str, Any]) -> dict[str, Any]:
    """Copy a mapping with the checksum that ``parse_json`` compares and removes."""
    value = {name: item for name, item in value.items() if name != CHECKSUM}
    return value | {CHECKSUM: _json_checksum(value)}


def read_json(path: Path, made_by: str) -> Any:
    """Read JSON, without its checksum.

    Args:
        path: the file.
        made_by: stage that writes it, for the error.

    Raises:
        UserError: the file is missing, not JSON, or differs from its checksum.
    """
    try:
        return parse_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run {made_by} to create it") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); run {made_by} again") from None


def parse_json(content: str | bytes) -> Any:
    """Return the value of JSON text, without its checksum.

    Raises:
        ValueError: it is not UTF-8, not JSON or nested too deep, or differs from its checksum.
    """
    try:
        value = json.loads(content.decode() if isinstance(content, bytes) else content)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if isinstance(value, dict) and CHECKSUM in value and value.pop(CHECKSUM) != _json_checksum(value):
        raise ValueError("it differs from its checksum")
    return value


def _json_checksum(value: dict[str, Any]) -> str:
    """Return the checksum of a mapping's content, which does not depend on order and layout."""
    return f"crc32 {zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"


def format_bytes(count: int) -> str:
    """Format a number of bytes with its unit, such as 1.5 GB."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def digest(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes; for ``.npz``, of its arrays without the provenance record.

    Raises:
        UserError: the ``.npz`` is damaged.
    """
    if path.suffix != ".npz":
        return digest_bytes(path)
    sha256 = hashlib.sha256()
    with _open_npz(path, "the stage that makes it") as arrays:
        for name in sorted(set(arrays.files) - {"provenance"}):
            value = np.ascontiguousarray(_array(arrays, name))
            sha256.update(f"{name} {value.dtype} {value.shape}".encode())
            sha256.update(value.tobytes())
    return sha256.hexdigest()


def digest_bytes(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes, of whatever kind it is."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def read_npz(path: Path, names: tuple[str, ...], made_by: str, optional: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Read the named arrays, and those ``optional`` ones that are there, without pickle.

    Raises:
        UserError: the file is missing, damaged or not ``.npz``, or lacks an array.
    """
    with _open_npz(path, made_by) as file:
        lacking = [name for name in names if name not in file.files]
        if lacking:
            raise UserError(f"{path} lacks the array {lacking[0]}; it should hold {', '.join(names)}")
        return {name: _array(file, name) for name in (*names, *(name for name in optional if name in file.files))}


def read_record(path: Path) -> dict[str, Any] | None:
    """Read the provenance record of an ``.npz``; None if the file or the record is missing, or any array is damaged."""
    try:
        with _open_npz(path, "") as file:
            if file.zip.testzip() is not None:
                return None
            record = parse_json(str(_array(file, "provenance")))
    except (UserError, KeyError, ValueError):
        return None
    return record if isinstance(record, dict) else None


@contextmanager
def _open_npz(path: Path, made_by: str) -> Iterator[NpzFile]:
    """Open an ``.npz``; raise UserError if it is missing, or if opening or reading it shows damage."""
    try:
        with NpzFile(path, allow_pickle=False) as file:  # np.load takes other formats too
            yield file
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run {made_by} to create it") from None
    except (OSError, *_NPZ_DAMAGE) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f"{path} is damaged or not an .npz file ({error}); run {made_by} again") from None
