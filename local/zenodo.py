#!/usr/bin/env python3
"""Download a Zenodo record, check it, and unpack it into a corpus's folder.

Every step resumes where it was interrupted. The record lists the files and their checksums. What was received of a file
is kept until more of it is there. A folder of the final name is always complete; ``local.archives`` unpacks it.
"""

import errno
import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException, HTTPResponse
from math import inf
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from local.archives import check_space, join_split, missing_from, unpack
from tagasc.utils import cli
from tagasc.utils.errors import UserError
from tagasc.utils.files import atomic_file, format_bytes
from tagasc.utils.log import log, progress

_CHUNK = 1 << 16
_LARGEST_RECORD = 1 << 24  # bytes
_LONGEST_NAME = 200  # bytes of a file's name
_LONGEST_PAUSE = 600.0  # seconds that a server may ask for
_HEADERS = {"User-Agent": "tagasc"}
_FINAL = (401, 404, 410)  # answers that another try does not change
_ANSWERS = {403: " (refused, often for a while only)", 429: " (too many requests)"}
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EROFS, errno.ENOENT)


@dataclass(frozen=True)
class RemoteFile:
    """One file of a record; its size is in bytes."""

    name: str
    size: int
    md5: str
    url: str


def main(
    folder: Path,
    record: int,
    name: str,
    holds: str,
    url: str = "https://zenodo.org",
    delete_archives: bool = False,
    tries: int = 5,
    timeout: float = 60.0,
    wait: float = 5.0,
) -> None:
    """Download a Zenodo record and unpack it into a folder, unless that exists.

    Args:
        folder: folder of the corpus; archives are kept beside it, in ``archives-<record>``.
        record: number of the record.
        name: name that a folder must have to be downloaded to; a folder that exists may have any.
        holds: files and folders that tell the corpus's folder, separated by blanks.
        url: address of Zenodo.
        delete_archives: delete the archives when the corpus is complete.
        tries: number of tries per file.
        timeout: seconds without data after which a connection counts as lost.
        wait: seconds before the second try, doubled before each further try.
    """
    if tries < 1 or not 0 < timeout < inf or not 0 <= wait < inf:
        raise UserError("--tries must be at least 1, --timeout positive, --wait not negative")
    held, archives = holds.split(), folder.parent / f"archives-{record}"
    if not held:
        raise UserError("--holds is empty; name what the corpus's folder holds")
    if folder.is_dir():
        lacking = missing_from(folder, held)
        log.info("%s exists, not downloaded%s", folder, f"; it has no {' and no '.join(lacking)}" if lacking else "")
    elif folder.exists() or folder.name != name:
        kind = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {kind}; give the corpus's folder, or a folder called {name} to download to")
    else:
        retry = partial(_retry, tries=tries, wait=wait)
        files = _record(f"{url}/api/records/{record}", retry, timeout)
        archives.mkdir(parents=True, exist_ok=True)
        check_space(archives, sum(_missing(archives, file) for file in files))
        for file in progress(files, "downloading", total=len(files)):
            _fetch(file, archives, retry, timeout)
        zips = join_split(archives, (file.name for file in files))
        unpack(zips, folder.parent / f".unpacking.{name}", folder, held)
        log.info("%s: complete", folder)
    if delete_archives:
        shutil.rmtree(archives, ignore_errors=True)


def _record(url: str, retry: Callable, timeout: float) -> list[RemoteFile]:
    """Read the list of files of a record."""

    def read() -> bytes:
        with urlopen(Request(url, headers=_HEADERS), timeout=timeout) as response:
            return response.read(_LARGEST_RECORD)

    _check_url(url)
    content = retry(read, url)
    try:
        files = [
            RemoteFile(file["key"], file["size"], file["checksum"].removeprefix("md5:"), file["links"]["self"])
            for file in json.loads(content)["files"]
        ]
        if any(not isinstance(file.size, int) or file.size < 0 for file in files):
            raise ValueError
        for file in files:
            _check_url(file.url)
            _check_name(file.name, url)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):  # JSONDecodeError is a ValueError
        raise UserError(f"{url} does not describe a Zenodo record; check --url, or try again later") from None
    if len({file.name for file in files}) < len(files):
        raise UserError(f"{url} lists two files of one name; check --record")
    return files


def _check_name(name: str, url: str) -> None:
    plain = name == PurePosixPath(name).name and name.isprintable() and "\\" not in name
    if not plain or not name or name.startswith(".") or len(name.encode()) > _LONGEST_NAME:
        raise UserError(f"{url} lists a file with the unsafe name {name[:_LONGEST_NAME]!r}; check --record")


def _check_url(url: str) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{url} is not a web address; check --url")


def _missing(archives: Path, file: RemoteFile) -> int:
    """Return the number of bytes still to download."""
    sizes = [path.stat().st_size for path in (archives / file.name, archives / f"{file.name}.part") if path.exists()]
    return max(file.size - max(sizes, default=0), 0)


def _fetch(file: RemoteFile, archives: Path, retry: Callable, timeout: float) -> None:
    """Download one file, resuming where it stopped, and check it; skip a file that was checked before."""
    target, part = archives / file.name, archives / f"{file.name}.part"
    if target.exists() and target.stat().st_size == file.size:
        log.info("%s: already downloaded", file.name)
        return
    for _ in range(2):
        retry(lambda: _download(file, part, timeout), file.url)
        with part.open("rb") as content:
            if hashlib.file_digest(content, "md5").hexdigest() == file.md5:
                part.rename(target)
                log.info("%s: downloaded and checked, %s", file.name, format_bytes(file.size))
                return
        part.unlink()
        log.warning("%s: wrong checksum", file.name)
    raise UserError(f"{file.url} has a wrong checksum after two downloads; try again later")


def _download(file: RemoteFile, part: Path, timeout: float) -> None:
    """Download the missing bytes of a partial file, or all if the server cannot resume.

    The part is kept until more of the file has arrived; an answer that cannot be the file never replaces it.

    Raises:
        OSError: the connection was lost, or the answer is not the file.
    """
    start = part.stat().st_size if part.exists() else 0
    if start > file.size:  # of an earlier version of the record
        part.unlink()
        start = 0
    if start == file.size and part.exists():
        return
    headers = _HEADERS | ({"Range": f"bytes={start}-"} if start else {})
    with urlopen(Request(file.url, headers=headers), timeout=timeout) as response:
        if start and response.status == 206:
            _check_answer(response, file, start)
            _receive(response, part, file.size - start)
        else:
            _check_answer(response, file, 0)
            if not start:
                _receive(response, part, file.size)
                return
            with atomic_file(part) as whole:
                _receive(response, whole, file.size)


def _check_answer(response: HTTPResponse, file: RemoteFile, start: int) -> None:
    """Raise URLError if the answer cannot be the bytes of the file from ``start`` on: a page, or another length."""
    kind, length = response.headers.get_content_type(), response.headers.get("Content-Length", "")
    span = response.headers.get("Content-Range", "") if response.status == 206 else ""
    if kind == "text/html" and not file.name.endswith((".html", ".htm")):
        raise URLError("the server sent a page in place of the file")
    if length.isdecimal() and int(length) != file.size - start:
        raise URLError(f"the server sent {length} bytes in place of the file's {file.size - start}")
    if span and not span.startswith(f"bytes {start}-"):
        raise URLError(f"the server sent another part of the file ({span})")


def _receive(response: HTTPResponse, target: Path, size: int) -> None:
    """Append ``size`` bytes of an answer to a file; raise URLError if the connection closes before."""
    left = size
    with target.open("ab") as sink:
        while left and (chunk := response.read(min(_CHUNK, left))):
            sink.write(chunk)
            left -= len(chunk)
    if left:
        raise URLError(f"received {size - left} of {size} bytes")


def _retry(action: Callable, url: str, tries: int, wait: float):
    """Call ``action``, again if the network fails or the server is busy, with doubling waits.

    Raises:
        UserError: every try failed, or the server does not have the address.
    """
    for attempt in range(1, tries + 1):
        pause = wait * 2 ** (attempt - 1)
        try:
            return action()
        except HTTPError as error:
            reason = f"the server answered {error.code}{_ANSWERS.get(error.code, '')}"
            if error.code in _FINAL:
                raise UserError(f"{url}: {reason}; check --record and --url") from None
            pause = max(pause, _pause_asked(error))
        except (OSError, HTTPException) as error:
            if getattr(error, "errno", None) in _DISK:
                raise
            reason = str(getattr(error, "reason", None) or error) or type(error).__name__
        if attempt < tries:
            log.warning("%s: %s; try %d of %d follows", url, reason, attempt + 1, tries)
            time.sleep(pause)
    raise UserError(
        f"{url}: {reason}, {tries} times; run the same command again later to resume, or download the corpus in a"
        " browser and give run.sh its folder"
    )


def _pause_asked(error: HTTPError) -> float:
    """Return the seconds that a busy server asks to wait, at most ``_LONGEST_PAUSE``; 0 if it does not say."""
    asked = error.headers.get("Retry-After", "") if error.headers else ""
    return min(float(asked), _LONGEST_PAUSE) if asked.isdecimal() else 0.0


if __name__ == "__main__":
    cli.run(main)
