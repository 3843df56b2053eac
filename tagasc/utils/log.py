"""Log lines with time and stage, and progress bars on a terminal.

``run.sh`` redirects a step's standard error to its log file and passes the terminal as file descriptor
``TAGASC_CONSOLE_FD``. Without it, both are standard error. Steps that run in parallel (``TAGASC_SHARED_CONSOLE``) draw
no bars, which would overwrite each other.
"""

import fcntl
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")

log = logging.getLogger("tagasc")


def printable(text: str) -> str:
    """Write control characters, which may command a terminal, as escape sequences; line ends and tabs stay."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: ascii(found[0])[1:-1], text)


class _Console(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(item) if isinstance(item, str) else item for item in objects), **options)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _terminal() -> TextIO | None:
    """Open the terminal that run.sh passes; None if it is not open, as when a run left its number."""
    try:
        descriptor = int(os.environ.get("TAGASC_CONSOLE_FD", ""))
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            return None
        return open(descriptor, "w", encoding="utf-8", closefd=False)
    except (ValueError, OverflowError, OSError):
        return None


def _make_console() -> Console:
    file = _terminal()
    return _Console(file=file, stderr=file is None, highlight=False, markup=False, soft_wrap=True)


console = _make_console()


class _ConsoleHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        console.print(self.format(record))


def start_logging() -> None:
    """Send log lines to standard error and, if that is not the terminal, to the console as well."""
    stage = os.environ.get("TAGASC_STAGE", "")
    layout = _Formatter(f"%(asctime)s {stage + ': ' if stage else ''}%(message)s", "%Y-%m-%d %H:%M:%S")
    handlers: list[logging.Handler] = [_ConsoleHandler()]
    if not console.stderr:
        # The log file gets every line; run.sh shows errors on the terminal, with the command that resumes.
        handlers[0].addFilter(lambda record: logging.DEBUG < record.levelno < logging.ERROR)
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(layout)
    log.handlers = handlers
    log.setLevel(logging.DEBUG if len(handlers) > 1 else logging.INFO)
    log.propagate = False


def progress(items: Iterable[Item], title: str, total: int | None = None) -> Iterator[Item]:
    """Iterate with a progress bar that disappears at the end; without a terminal, or on a shared one, just iterate."""
    if not console.is_terminal or "TAGASC_SHARED_CONSOLE" in os.environ:
        yield from items
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield from bar.track(items, total=total, description=title)
