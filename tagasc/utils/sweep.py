"""Runs many trainings unattended: shared between processes, continuing after failures, summarised at the end."""

import fcntl
import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tagasc.utils.errors import PartialFailure, UserError
from tagasc.utils.files import delete_own
from tagasc.utils.limits import describe_limit
from tagasc.utils.log import log

_DONE, _FAILED = "# done in run", "# failed in run"


def sweep(names: Sequence[str], work: Callable[[int], bool], logs: Path) -> None:
    """Do every run once; several processes with the same list share it.

    A process locks the log of its run, ``<logs>/<name>.log``; the lock ends with the process. At the end it waits for
    the runs that others hold, and does those that were left undone. So each process knows what became of every run.

    A run that fails, by bad input or by a bug, is reported after the others are done, by the process in which it
    failed. The log notes how the run ended, so that no other process tries it again. A full disk,
    exhausted memory or an interruption ends the sweep.

    Args:
        names: names of the runs.
        work: function that does the run with a given number; it returns False if there was nothing to do.
        logs: folder of the runs' logs.

    Raises:
        UserError: the only run, or every run, failed.
        PartialFailure: some runs failed.
    """
    began, worked, held, failures = time.monotonic(), 0, [], []
    for number, name in enumerate(names):
        with _lock_log(logs / f"{name}.log", wait=False) as own_log:
            if own_log is None:
                log.info("run %d of %d, %s: in another process", number + 1, len(names), name)
                held.append(number)
                continue
            remaining = _remaining(time.monotonic() - began, worked, len(names) - number)
            log.info("run %d of %d: %s%s", number + 1, len(names), name, remaining)
            worked += _attempt(name, lambda number=number: work(number), own_log, failures, len(names) == 1)
    for number in held:
        with _lock_log(logs / f"{names[number]}.log", wait=True) as own_log:
            _attempt(names[number], lambda number=number: work(number), own_log, failures, len(names) == 1)
    if error := _summary(failures, len(names)):
        raise error


@dataclass(frozen=True)
class _Failure:
    """A failed run: its name, its log, its error, and whether it failed in this process."""

    name: str
    log: Path
    error: Exception
    own: bool = True


def _attempt(name: str, work: Callable[[], bool], own_log: TextIO, failures: list[_Failure], alone: bool) -> bool:
    """Do a run, unless another process of this start of run.sh has done or tried it; return whether there was work."""
    path = Path(own_log.name)
    noted, message = _noted(path)
    if noted == _FAILED:
        failures.append(_Failure(name, path, UserError(message), own=False))
    if noted:
        return False
    try:
        worked = work()
    except Exception as error:
        if isinstance(error, OSError | BrokenProcessPool) or describe_limit(error):
            raise
        if not isinstance(error, UserError):
            if alone:
                raise
            traceback.print_exc(file=own_log)
        log.warning("%s failed: %s", name, _message(error))
        own_log.write(f"{_FAILED} {_this_start()}: {_message(error)}\n")
        # Drop references to the run's frames, which would keep its network and data in memory.
        error.__cause__ = error.__context__ = None
        failures.append(_Failure(name, path, error.with_traceback(None)))
        return False
    own_log.write(f"{_DONE} {_this_start()}: \n")
    return worked


def _noted(path: Path) -> tuple[str, str]:
    """Return what a log notes of this start of run.sh: ``_DONE`` or ``_FAILED``, and a message; empty if nothing."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        for mark in (_DONE, _FAILED):
            if line.startswith(f"{mark} {_this_start()}: "):
                return mark, line.removeprefix(f"{mark} {_this_start()}: ")
    return "", ""


def _this_start() -> str:
    return os.environ.get("TAGASC_RUN") or f"process {os.getpid()} {time.monotonic_ns()}"


def clear_once(folders: Sequence[Path], logs: Path, patterns: Sequence[str]) -> None:
    """Delete results that are to be made again, each once among the processes of one ``run.sh``.

    Args:
        folders: folders of the results.
        logs: folder of the runs' logs.
        patterns: names of what the program writes into these folders.

    Raises:
        UserError: a folder holds something else; see ``tagasc.utils.files.require_own``.
    """
    this_start = _this_start()
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / ".forced").open("a+", encoding="utf-8") as journal:
        _flock(journal, fcntl.LOCK_EX)
        journal.seek(0)
        last_start, *cleared = journal.read().splitlines() or [""]
        cleared = set(cleared) if last_start == this_start else set()
        for folder in folders:
            if str(folder) not in cleared:
                delete_own(folder, *patterns)
        journal.truncate(0)
        journal.write("\n".join([this_start, *sorted(cleared | {str(folder) for folder in folders})]))


@contextmanager
def _lock_log(path: Path, wait: bool) -> Iterator[TextIO | None]:
    """Lock a log file and copy log lines to it; without ``wait``, yield None if another process holds the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        try:
            _flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
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


def _flock(file: TextIO, operation: int) -> None:
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        error.filename = file.name
        raise


def _remaining(seconds: float, worked: int, runs: int) -> str:
    """Return the time left in words; an upper bound, since some of the runs may be done already."""
    if worked == 0:
        return ""
    minutes = seconds / worked * runs / 60
    shown = f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.0f} min"
    return f" (at most {shown} left)"


def _summary(failures: Sequence[_Failure], runs: int) -> UserError | None:
    """Return what a sweep ends with; None if no run failed, or if other processes report those that did."""
    own = [failure for failure in failures if failure.own]
    if not own:
        return None
    if runs == 1:
        return own[0].error
    kind = UserError if len(failures) == runs else PartialFailure
    if len(failures) == 1:
        return kind(f"1 of {runs} runs failed: {own[0].name}: {_message(own[0].error)}; its log: {own[0].log}")
    listed = ", ".join(f"{failed.name} ({failed.log})" for failed in failures)
    return kind(f"{len(failures)} of {runs} runs failed, see their logs: {listed}")


def _message(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
