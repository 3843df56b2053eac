"""Which files a command means: files, folders, patterns, lists, and standard input."""

import glob
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj

import soundfile

from tagasc.utils.errors import UserError

STDIN = "-"
_KNOWN = {f".{name.lower()}" for name in soundfile.available_formats()} | {".aif", ".aifc", ".oga", ".opus", ".wave"}
_NOT_SOUND = {".raw", ".mat4", ".mat5"}


def expand(arguments: Sequence[str], lists: Sequence[str]) -> list[str]:
    """Return the files in the order given, each once; of a folder, those with the suffix of a sound file, sorted.

    Args:
        arguments: files, folders, patterns with ``*``, or ``-`` for standard input.
        lists: files with a path a line, relative to where they are typed; ``-`` is standard input.

    Raises:
        UserError: a folder or pattern holds no recordings, or no argument is given.
    """
    found: list[str] = []
    for argument in [*arguments, *(line for name in lists for line in _lines(name))]:
        path = Path(argument)
        if argument == STDIN or path.is_file():
            found.append(argument)
        elif path.is_dir():
            inside = sorted(str(child) for child in path.rglob("*") if child.is_file() and _is_sound(child))
            if not inside:
                raise UserError(f"{argument} holds no sound files; give another folder, or files by name")
            found += inside
        elif glob.has_magic(argument):
            matching = sorted(name for name in glob.glob(argument, recursive=True) if Path(name).is_file())
            if not matching:
                raise UserError(f"no file matches {argument}; check the pattern")
            found += matching
        else:
            found.append(argument)  # missing: named among the files that failed
    if not found:
        raise UserError("no recordings are given; give files, folders, patterns, --list FILE, or -")
    return list(dict.fromkeys(found))


@contextmanager
def on_disk(name: str) -> Iterator[str]:
    """Yield the path of a recording; standard input is copied to a temporary file."""
    if name != STDIN:
        yield name
        return
    with tempfile.NamedTemporaryFile(prefix="stdin-") as file:
        copyfileobj(sys.stdin.buffer, file)
        file.flush()
        yield file.name


def _is_sound(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in _KNOWN - _NOT_SOUND and not path.name.startswith(".")


def _lines(name: str) -> list[str]:
    try:
        text = sys.stdin.read() if name == STDIN else Path(name).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"--list {name} does not exist; give a file with a path a line") from None
    except UnicodeDecodeError:
        raise UserError(f"--list {name} is not UTF-8 text; give a file with a path a line") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
