"""Worker processes for work on the CPU."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context


def workers(jobs: int) -> ProcessPoolExecutor:
    """A pool of ``jobs`` forked processes that end with this one, even if it is killed."""
    return ProcessPoolExecutor(jobs, mp_context=get_context("fork"), initializer=_begin, initargs=(os.getpid(),))


@contextmanager
def mapping(jobs: int) -> Iterator[Callable]:
    """A ``map`` that shares its calls among ``jobs`` processes, or makes them in this one; an error ends them all."""
    if jobs <= 1:
        yield map
        return
    with workers(jobs) as pool:
        try:
            yield pool.map
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """An orphan would wait for work for ever, and hold the recipe's lock."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
