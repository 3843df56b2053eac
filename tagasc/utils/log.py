"""What a person sees while waiting: log lines with time and stage, and progress bars on a terminal.

``run.sh`` sends a step's standard error to its log file and hands over the terminal as the file descriptor
``TAGASC_CONSOLE_FD``; a step started by hand has both in one place. Steps that run side by side
(``TAGASC_SHARED_CONSOLE``) draw no bars, which would overwrite each other.
"""

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")

log = logging.getLogger("tagasc")


def _make_console() -> Console:
    descriptor = os.environ.get("TAGASC_CONSOLE_FD")
    file = open(int(descriptor), "w", encoding="utf-8", closefd=False) if descriptor else None  # noqa: SIM115
    return Console(file=file, stderr=file is None, highlight=False, markup=False, soft_wrap=True)


console = _make_console()


class _OnConsole(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        console.print(self.format(record))


def start_logging() -> None:
    """Send log lines to standard error and, where it is another place, to the console."""
    stage = os.environ.get("TAGASC_STAGE", "")
    layout = logging.Formatter(f"%(asctime)s {stage + ': ' if stage else ''}%(message)s", "%Y-%m-%d %H:%M:%S")
    handlers: list[logging.Handler] = [_OnConsole()]
    if not console.stderr:
        # The file is the whole record; errors reach the terminal through run.sh, with the way to go on.
        handlers[0].addFilter(lambda record: logging.DEBUG < record.levelno < logging.ERROR)
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(layout)
    log.handlers = handlers
    log.setLevel(logging.DEBUG if len(handlers) > 1 else logging.INFO)
    log.propagate = False


def progress(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Iterate with a progress bar that disappears when done; without a terminal of one's own, just iterate."""
    if not console.is_terminal or "TAGASC_SHARED_CONSOLE" in os.environ:
        yield from items
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield from bar.track(items, total=total, description=what)
