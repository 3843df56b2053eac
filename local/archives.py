"""Downloaded archives: join split ones, check what they hold, unpack them safely, and find the corpus in them.

Nothing is written outside the target folder. The corpus is unpacked into a temporary folder and renamed when complete.
"""

import shutil
import stat
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from tagasc.utils.errors import UserError
from tagasc.utils.files import atomic_file, format_bytes, replace_folder
from tagasc.utils.log import progress

_CHUNK = 1 << 20
_HIGHEST_RATIO = 100  # unpacked size over packed size; audio stays below 10
_LONGEST_NAME = 200  # bytes; file systems allow 255, and temporary names are longer
_LITTER = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")  # what desktops add to archives
_UNREADABLE = (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, struct.error, RuntimeError)


def join_split(archives: Path, names: Iterable[str]) -> list[Path]:
    """Return the archives to unpack, after joining split ones (.z01, .z02, … .zip).

    Args:
        archives: folder of the archives.
        names: files of the record.

    Raises:
        UserError: the program zip is missing or fails, or there is too little disk space.
    """
    names = set(names)
    zips = [archives / name for name in sorted(names) if name.endswith(".zip")]
    return [_join(path) if path.with_suffix(".z01").name in names else path for path in zips]


def _join(last: Path) -> Path:
    """Join a split archive with ``zip -s 0``; Python's zipfile reads neither the parts nor their concatenation."""
    joined = last.with_name(f"{last.stem}.joined.zip")
    if joined.exists():
        return joined
    if shutil.which("zip") is None:
        raise UserError(f"{last} is a split archive and the program zip is missing; install zip and try again")
    check_space(last.parent, sum(part.stat().st_size for part in last.parent.glob(f"{last.stem}.z*")))
    with atomic_file(joined) as temporary:
        command = ["zip", "-q", "-s", "0", str(last), "--out", str(temporary)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            reason = (result.stdout + result.stderr).strip().splitlines()[-1:] or ["no reason given"]
            raise UserError(f"{last} cannot be joined by zip ({reason[0]}); free disk space or download it again")
    return joined


def unpack(archives: Sequence[Path], staging: Path, corpus: Path, holds: Sequence[str]) -> None:
    """Unpack archives into a temporary folder, and rename the folder that holds the corpus.

    Members that are already unpacked are skipped. Files beside the corpus's folder, such as a licence, move into it.

    Args:
        archives: archives of one corpus.
        staging: temporary folder, kept if the unpacking is interrupted.
        corpus: folder of the corpus; must not exist.
        holds: names that the corpus's folder must hold.

    Raises:
        UserError: an archive is damaged or unsafe, the disk is full, or nothing in the archives holds ``holds``.
    """
    members = _distinct({path: _members(path) for path in archives})
    missing = [(path, member) for path, member in members if not _is_unpacked(staging, member)]
    staging.mkdir(parents=True, exist_ok=True)
    check_space(staging, sum(member.file_size for _, member in missing))
    for path in archives:
        with zipfile.ZipFile(path) as archive:
            own = [member for source, member in missing if source == path]
            for member in progress(own, f"unpacking {path.name}", total=len(own)):
                _extract(archive, member, staging)
    inner = _corpus_folder(staging, holds)
    if inner != staging:
        for child in [*staging.iterdir()]:
            if child not in (inner, *inner.parents) and not (inner / child.name).exists():
                child.rename(inner / child.name)
    replace_folder(inner, corpus)
    shutil.rmtree(staging, ignore_errors=True)


def missing_from(folder: Path, holds: Sequence[str]) -> list[str]:
    """Return the names that a corpus's folder must hold and does not."""
    return [name for name in holds if not (folder / name).exists()]


def check_space(folder: Path, needed: int) -> None:
    """Raise UserError if the disk of ``folder`` has less than ``needed`` bytes."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"{folder} needs {format_bytes(needed)} more, {format_bytes(free)} are free; free disk space")


def _corpus_folder(staging: Path, holds: Sequence[str]) -> Path:
    """Find the outermost folder that holds what the corpus must hold."""
    candidates = [staging, *(path.parent for path in staging.rglob(holds[0]))]
    found = [folder for folder in candidates if not missing_from(folder, holds)]
    if not found:
        raise UserError(
            f"{staging}: the archives hold no folder with {' and '.join(holds)}; the record is not this corpus, or has"
            " another layout: check --record and --holds, or move the files yourself"
        )
    return min(found, key=lambda folder: (len(folder.parts), folder))


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, staging: Path) -> None:
    try:
        with (
            atomic_file(staging / member.filename) as temporary,
            archive.open(member) as source,
            temporary.open("wb") as sink,
        ):
            shutil.copyfileobj(source, sink, _CHUNK)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{archive.filename}: {member.filename!r} cannot be unpacked ({error}); delete the archive"
        ) from None


def _members(archive: Path) -> list[zipfile.ZipInfo]:
    """List the files in an archive, after checking their names, types and sizes.

    Raises:
        UserError: a member leads outside the target folder or is not a regular file, or the archive is empty or a bomb.
    """
    try:
        with zipfile.ZipFile(archive) as bundle:
            members = bundle.infolist()
    except _UNREADABLE as error:
        raise UserError(f"{archive} is not a readable archive ({error}); delete it and try again") from None
    for member in members:
        path = PurePosixPath(member.filename)
        kind = stat.S_IFMT(member.external_attr >> 16)
        outside = path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in "".join(path.parts[:1])
        if outside or not (path.parts or member.filename.endswith("/")):  # ./ is the target itself
            raise UserError(f"{archive} holds {member.filename!r}, outside the target folder; do not use it")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UserError(f"{archive} holds {member.filename!r}, which is not a regular file; do not use it")
        if max((len(part.encode("utf-8", "surrogatepass")) for part in path.parts), default=0) > _LONGEST_NAME:
            raise UserError(
                f"{archive} holds the name {member.filename[:40]!r}… of over {_LONGEST_NAME} bytes; do not use it"
            )
    unpacked = sum(member.file_size for member in members)
    if unpacked > _HIGHEST_RATIO * max(archive.stat().st_size, 1 << 16):
        raise UserError(
            f"{archive} would unpack to {format_bytes(unpacked)}, over {_HIGHEST_RATIO} times its size; do not use it"
        )
    files = [member for member in members if not member.is_dir() and not _is_litter(member)]
    if not files:
        raise UserError(f"{archive} holds no files; delete it and try again, or check --record")
    return files


def _is_litter(member: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(member.filename).parts
    return any(part in _LITTER for part in parts) or parts[-1].startswith("._")


def _distinct(archives: dict[Path, list[zipfile.ZipInfo]]) -> list[tuple[Path, zipfile.ZipInfo]]:
    """Return each file once, with its archive; the same file may be in several archives.

    Raises:
        UserError: two files of one name differ, or a name is that of a file and of a folder.
    """
    first: dict[PurePosixPath, tuple[Path, zipfile.ZipInfo]] = {}
    for archive, members in archives.items():
        for member in members:
            _, known = first.setdefault(PurePosixPath(member.filename), (archive, member))
            if (known.file_size, known.CRC) != (member.file_size, member.CRC):
                raise UserError(f"{archive}: a second, different {member.filename!r}; do not use it")
    folders = {folder for path in first for folder in path.parents}
    if clashes := sorted(folders & first.keys()):
        archive, member = first[clashes[0]]
        raise UserError(f"{archive}: {member.filename!r} is both a file and a folder; do not use it")
    return list(first.values())


def _is_unpacked(staging: Path, member: zipfile.ZipInfo) -> bool:
    path = staging / member.filename
    return path.is_file() and path.stat().st_size == member.file_size
