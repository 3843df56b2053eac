"""Many runs that a lab can leave alone: shared among processes, going on past failures, and told of."""

import fcntl
import logging
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tagasc.utils.errors import PartialFailure, UserError
from tagasc.utils.log import log


def sweep(names: Sequence[str], work: Callable[[int], bool], logs: Path) -> None:
    """Do every run once; processes that are given the same list share it.

    A run is claimed by a lock on its log, ``<logs>/<name>.log``, so one that dies leaves no trace of a claim. A run
    that fails, whether by bad input or by an error of the program, is told of at the end, after the others are done;
    what concerns all of them (a full disk, an interruption) ends the sweep.

    Args:
        names: of the runs.
        work: does the run of that number; returns False if there was nothing to do.
        logs: folder of the runs' logs.

    Raises:
        UserError: the only run failed, or all did.
        SomeFailed: some did.
    """
    failures: list[tuple[str, Path, Exception]] = []
    began, worked = time.monotonic(), 0
    for number, name in enumerate(names):
        with _lock_log(logs / f"{name}.log") as own_log:
            if own_log is None:
                log.info("run %d of %d, %s: another process is at it", number + 1, len(names), name)
                continue
            left = _left(time.monotonic() - began, worked, len(names) - number)
            log.info("run %d of %d: %s%s", number + 1, len(names), name, left)
            try:
                worked += work(number)
            except (OSError, BrokenProcessPool):
                raise
            except Exception as error:  # whatever it is, the other runs can go on
                if len(names) == 1 and not isinstance(error, UserError):
                    raise
                log.warning("%s failed: %s", name, _message(error))
                if not isinstance(error, UserError):
                    traceback.print_exc(file=own_log)
                # Without what leads to the run's frames, which would keep its network and its data in memory.
                error.__cause__ = error.__context__ = None
                failures.append((name, logs / f"{name}.log", error.with_traceback(None)))
    if failures:
        raise _summary(failures, len(names))


def clear_once(folders: Sequence[Path], logs: Path) -> None:
    """Remove results that are to be made anew; each only once by all the processes that one ``run.sh`` starts."""
    started = os.environ.get("TAGASC_RUN", f"process {os.getpid()}")
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / ".forced").open("a+", encoding="utf-8") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        mark.seek(0)
        by, *cleared = mark.read().splitlines() or [""]
        cleared = set(cleared) if by == started else set()
        for folder in folders:
            if str(folder) not in cleared:
                shutil.rmtree(folder, ignore_errors=True)
        mark.truncate(0)
        mark.write("\n".join([started, *sorted(cleared | {str(folder) for folder in folders})]))


@contextmanager
def _lock_log(path: Path) -> Iterator[TextIO | None]:
    """Hold the lock on a log and write to it what is logged; None if another process holds it."""
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


def _left(seconds: float, worked: int, runs: int) -> str:
    """At most this long, if no further run is done already."""
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
    named = ", ".join(f"{name} ({path})" for name, path, _ in failures)
    return kind(f"{len(failures)} of {runs} runs failed, see their logs: {named}")


def _message(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
