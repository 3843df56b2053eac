#!/usr/bin/env python3
"""Download a Zenodo record, check it, join split archives, and unpack them safely.

Every step resumes where it was interrupted. The record lists the files and their checksums. The corpus is unpacked into
a temporary folder and renamed when complete, so a folder of the final name is always complete.
"""

import errno
import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from math import inf
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tagasc.utils import cli
from tagasc.utils.errors import UserError
from tagasc.utils.files import atomic_file, replace_folder
from tagasc.utils.log import log, progress

_CHUNK = 1 << 20
_HEADERS = {"User-Agent": "tagasc"}
_HIGHEST_RATIO = 100  # unpacked size over packed size; audio stays below 10
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EROFS, errno.ENOENT)


@dataclass(frozen=True)
class RemoteFile:
    """One file of a record; its size is in bytes."""

    name: str
    size: int
    md5: str
    url: str


def main(
    record: int,
    out: Path,
    name: str,
    url: str = "https://zenodo.org",
    delete_archives: bool = False,
    tries: int = 5,
    timeout: float = 60.0,
    wait: float = 5.0,
) -> None:
    """Download a Zenodo record and unpack it into ``<out>/<name>``.

    Args:
        record: number of the record.
        out: folder for the corpus; archives are kept in ``<out>/archives-<record>``.
        name: folder of the unpacked corpus.
        url: address of Zenodo.
        delete_archives: delete the archives when the corpus is complete.
        tries: number of tries per file.
        timeout: seconds without data after which a connection counts as lost.
        wait: seconds before the second try, doubled before each further try.
    """
    if tries < 1 or not 0 < timeout < inf or not 0 <= wait < inf:
        raise UserError("--tries must be at least 1, --timeout positive, --wait not negative")
    corpus, archives = out / name, out / f"archives-{record}"
    if corpus.exists():
        log.info("%s exists, not downloaded again", corpus)
    else:
        socket.setdefaulttimeout(timeout)  # resumable_download takes no timeout
        retry = partial(_retry, tries=tries, wait=wait)
        files = _record(f"{url}/api/records/{record}", retry)
        archives.mkdir(parents=True, exist_ok=True)
        _check_space(archives, sum(_missing(archives, file) for file in files))
        for file in progress(files, "downloading", total=len(files)):
            _fetch(file, archives, retry)
        _unpack(_joined(archives, files), out / f".unpacking.{name}", corpus)
        log.info("%s: complete", corpus)
    if delete_archives:
        shutil.rmtree(archives, ignore_errors=True)


def _record(url: str, retry: Callable) -> list[RemoteFile]:
    """Read the list of files of a record."""

    def read() -> bytes:
        with urlopen(Request(url, headers=_HEADERS)) as response:
            return response.read(_CHUNK * 16)

    _check_url(url)
    content = retry(read, url)
    try:
        files = [
            RemoteFile(file["key"], int(file["size"]), file["checksum"].removeprefix("md5:"), file["links"]["self"])
            for file in json.loads(content)["files"]
        ]
    except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{url} does not describe a Zenodo record; check --url, or try again later") from None
    for file in files:
        _check_url(file.url)
        if PurePosixPath(file.name).name != file.name or "\\" in file.name or file.name.startswith("."):
            raise UserError(f"{url} lists a file with the unsafe name {file.name!r}; check --record")
    return files


def _check_url(url: str) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{url} is not a web address; check --url")


def _missing(archives: Path, file: RemoteFile) -> int:
    """Return the number of bytes still to download."""
    sizes = [path.stat().st_size for path in (archives / file.name, archives / f"{file.name}.part") if path.exists()]
    return max(file.size - max(sizes, default=0), 0)


def _fetch(file: RemoteFile, archives: Path, retry: Callable) -> None:
    """Download one file, resuming where it stopped, and check it; skip a file that was checked before."""
    target, part = archives / file.name, archives / f"{file.name}.part"
    if target.exists() and target.stat().st_size == file.size:
        log.info("%s: already downloaded", file.name)
        return
    for _ in range(2):
        retry(lambda: _download(file, part), file.url)
        with part.open("rb") as content:
            if hashlib.file_digest(content, "md5").hexdigest() == file.md5:
                part.rename(target)
                log.info("%s: downloaded and checked, %.1f MB", file.name, file.size / 1e6)
                return
        part.unlink()
        log.warning("%s: wrong checksum", file.name)
    raise UserError(f"{file.url} has a wrong checksum after two downloads; try again later")


def _download(file: RemoteFile, part: Path) -> None:
    """Download the missing bytes of a partial file.

    ``resumable_download`` returns without an error if the connection closes early. If the server ignores the range, it
    appends the whole file. The size shows both.
    """
    os.environ["TQDM_DISABLE"] = "1"  # its progress bars would fill the log file
    from lhotse.utils import resumable_download  # here, because the import takes seconds

    resumable_download(file.url, part, completed_file_size=file.size, additional_headers=_HEADERS)
    size = part.stat().st_size
    if size > file.size:
        part.unlink()
    if size != file.size:
        raise URLError(f"received {size} of {file.size} bytes")


def _retry(action: Callable, url: str, tries: int, wait: float):
    """Call ``action``, again if the network fails, with doubling waits.

    Raises:
        UserError: every try failed, or the server refused the address.
    """
    for attempt in range(1, tries + 1):
        try:
            return action()
        except HTTPError as error:
            reason = f"the server answered {error.code}"
            if error.code in (401, 403, 404, 410):
                raise UserError(f"{url}: {reason}; check --record and --url") from None
        except (OSError, HTTPException) as error:
            if getattr(error, "errno", None) in _DISK:
                raise
            reason = str(getattr(error, "reason", None) or error) or type(error).__name__
        if attempt < tries:
            log.warning("%s: %s; try %d of %d follows", url, reason, attempt + 1, tries)
            time.sleep(wait * 2 ** (attempt - 1))
    raise UserError(f"{url}: {reason}, {tries} times; run the same command again later to resume")


def _joined(archives: Path, files: list[RemoteFile]) -> list[Path]:
    """Return the archives to unpack, after joining split ones (.z01, .z02, … .zip)."""
    names = {file.name for file in files}
    zips = [archives / name for name in sorted(names) if name.endswith(".zip")]
    return [_join(path) if path.with_suffix(".z01").name in names else path for path in zips]


def _join(last: Path) -> Path:
    """Join a split archive with ``zip -s 0``; Python's zipfile reads neither the parts nor their concatenation."""
    joined = last.with_name(f"{last.stem}.joined.zip")
    if joined.exists():
        return joined
    if shutil.which("zip") is None:
        raise UserError(f"{last} is a split archive and the program zip is missing; install zip and try again")
    _check_space(last.parent, sum(part.stat().st_size for part in last.parent.glob(f"{last.stem}.z*")))
    with atomic_file(joined) as temporary:
        command = ["zip", "-q", "-s", "0", str(last), "--out", str(temporary)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            reason = (result.stdout + result.stderr).strip().splitlines()[-1:] or ["no reason given"]
            raise UserError(f"{last} cannot be joined by zip ({reason[0]}); free disk space or download it again")
    return joined


def _unpack(archives: list[Path], staging: Path, corpus: Path) -> None:
    """Unpack archives into a temporary folder, then rename it; skip members that are already unpacked."""
    missing = {path: [member for member in _members(path) if not _is_unpacked(staging, member)] for path in archives}
    staging.mkdir(parents=True, exist_ok=True)
    _check_space(staging, sum(member.file_size for members in missing.values() for member in members))
    for path, members in missing.items():
        with zipfile.ZipFile(path) as archive:
            for member in progress(members, f"unpacking {path.name}", total=len(members)):
                try:
                    with (
                        atomic_file(staging / member.filename) as temporary,
                        archive.open(member) as source,
                        temporary.open("wb") as sink,
                    ):
                        shutil.copyfileobj(source, sink, _CHUNK)
                except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
                    raise UserError(
                        f"{path}: {member.filename} cannot be unpacked ({error}); delete the archive"
                    ) from None
    inner = staging / corpus.name
    if [path.name for path in staging.iterdir()] == [corpus.name]:  # the archives contain the folder itself
        replace_folder(inner, corpus)
        staging.rmdir()
    else:
        replace_folder(staging, corpus)


def _members(archive: Path) -> list[zipfile.ZipInfo]:
    """List the files in an archive, after checking their names, types and sizes.

    Raises:
        UserError: a member leads outside the target folder or is not a regular file, or the archive is a bomb.
    """
    try:
        with zipfile.ZipFile(archive) as bundle:
            members = bundle.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{archive} is not a readable archive ({error}); delete it and try again") from None
    for member in members:
        path = PurePosixPath(member.filename)
        kind = stat.S_IFMT(member.external_attr >> 16)
        outside = path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in "".join(path.parts[:1])
        if outside or not (path.parts or member.filename.endswith("/")):  # ./ is the target itself
            raise UserError(f"{archive} holds {member.filename!r}, outside the target folder; do not use it")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UserError(f"{archive} holds {member.filename!r}, which is not a regular file; do not use it")
    unpacked = sum(member.file_size for member in members)
    if unpacked > _HIGHEST_RATIO * max(archive.stat().st_size, 1 << 16):
        raise UserError(
            f"{archive} would unpack to {unpacked / 1e9:.1f} GB, over {_HIGHEST_RATIO} times its size; do not use it"
        )
    return [member for member in members if not member.is_dir()]


def _is_unpacked(staging: Path, member: zipfile.ZipInfo) -> bool:
    path = staging / member.filename
    return path.exists() and path.stat().st_size == member.file_size


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"{folder} needs {needed / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free; free disk space")


if __name__ == "__main__":
    cli.run(main)
