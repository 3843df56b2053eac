"""Files that are whole or absent: everything is written beside its place and renamed into it."""

import hashlib
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from tagasc.errors import UserError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; on success it becomes ``path``, on failure it vanishes.

    The yielded name keeps the suffix of ``path``, since some writers choose their format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; on success it becomes ``path`` (replacing an old one), on failure it vanishes."""
    beside = path.with_name(f".partial.{path.name}")  # a fixed name, so that what a killed run left is cleared here
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        put_folder(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def put_folder(source: Path, target: Path) -> None:
    """Rename the folder ``source`` to ``target``; an old ``target`` is removed only after it has been moved aside."""
    aside = target.with_name(f".{os.getpid()}.old.{target.name}")
    if target.exists():
        os.replace(target, aside)
    os.replace(source, target)
    shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path, made_by: str) -> Any:
    """Read JSON; ``made_by`` names the stage or program that writes the file, for the error.

    Raises:
        UserError: the file is absent or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {made_by} makes it") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON ({error}); delete it and let {made_by} make it again") from None


def digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal; of an ``.npz`` that of its arrays, without the record in it."""
    if path.suffix != ".npz":
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    whole = hashlib.sha256()
    try:
        with NpzFile(path) as arrays:  # np.load takes other formats too
            for name in sorted(set(arrays.files) - {"made_from"}):
                value = np.ascontiguousarray(arrays[name])
                whole.update(f"{name} {value.dtype} {value.shape}".encode())
                whole.update(value.tobytes())
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error):
        return "not readable"
    return whole.hexdigest()
