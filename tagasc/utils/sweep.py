"""Runs many trainings unattended: shared between processes, continuing after failures, summarised at the end."""

import fcntl
import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tagasc.utils.errors import PartialFailure, UserError
from tagasc.utils.files import delete_own
from tagasc.utils.log import log


def sweep(names: Sequence[str], work: Callable[[int], bool], logs: Path) -> None:
    """Do every run once; several processes with the same list share it.

    A process locks the log of its run, ``<logs>/<name>.log``; the lock ends with the process. A run that fails, by bad
    input or by a bug, is reported after the others are done. A full disk or an interruption ends the sweep.

    Args:
        names: names of the runs.
        work: function that does the run with a given number; it returns False if there was nothing to do.
        logs: folder of the runs' logs.

    Raises:
        UserError: the only run, or every run, failed.
        PartialFailure: some runs failed.
    """
    failures: list[tuple[str, Path, Exception]] = []
    began, worked = time.monotonic(), 0
    for number, name in enumerate(names):
        with _lock_log(logs / f"{name}.log") as own_log:
            if own_log is None:
                log.info("run %d of %d, %s: skipped, running in another process", number + 1, len(names), name)
                continue
            remaining = _remaining(time.monotonic() - began, worked, len(names) - number)
            log.info("run %d of %d: %s%s", number + 1, len(names), name, remaining)
            try:
                worked += work(number)
            except (OSError, BrokenProcessPool):
                raise
            except Exception as error:  # the other runs can continue
                if len(names) == 1 and not isinstance(error, UserError):
                    raise
                log.warning("%s failed: %s", name, _message(error))
                if not isinstance(error, UserError):
                    traceback.print_exc(file=own_log)
                # Drop references to the run's frames, which would keep its network and data in memory.
                error.__cause__ = error.__context__ = None
                failures.append((name, logs / f"{name}.log", error.with_traceback(None)))
    if failures:
        raise _summary(failures, len(names))


def clear_once(folders: Sequence[Path], logs: Path, patterns: Sequence[str]) -> None:
    """Delete results that are to be made again, each once among the processes of one ``run.sh``.

    Args:
        folders: folders of the results.
        logs: folder of the runs' logs.
        patterns: names of what the program writes into these folders.

    Raises:
        UserError: a folder holds something else; see ``tagasc.utils.files.require_own``.
    """
    this_start = os.environ.get("TAGASC_RUN", f"process {os.getpid()}")
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / ".forced").open("a+", encoding="utf-8") as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        journal.seek(0)
        last_start, *cleared = journal.read().splitlines() or [""]
        cleared = set(cleared) if last_start == this_start else set()
        for folder in folders:
            if str(folder) not in cleared:
                delete_own(folder, *patterns)
        journal.truncate(0)
        journal.write("\n".join([this_start, *sorted(cleared | {str(folder) for folder in folders})]))


@contextmanager
def _lock_log(path: Path) -> Iterator[TextIO | None]:
    """Lock a log file and copy log lines to it; yield None if another process holds the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(handler)
        try:
            yield file
        finally:
            log.removeHandler(handler)


def _remaining(seconds: float, worked: int, runs: int) -> str:
    """Return the time left in words; an upper bound, since some of the runs may be done already."""
    if worked == 0:
        return ""
    minutes = seconds / worked * runs / 60
    shown = f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.0f} min"
    return f" (at most {shown} left)"


def _summary(failures: list[tuple[str, Path, Exception]], runs: int) -> UserError:
    if runs == 1:
        return failures[0][2]
    if len(failures) == 1:
        (name, path, error), *_ = failures
        return PartialFailure(f"1 of {runs} runs failed: {name}: {_message(error)}; its log: {path}")
    kind = UserError if len(failures) == runs else PartialFailure
    listed = ", ".join(f"{name} ({path})" for name, path, _ in failures)
    return kind(f"{len(failures)} of {runs} runs failed, see their logs: {listed}")


def _message(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
