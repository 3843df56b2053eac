"""Worker processes, and the peak memory for the log."""

import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tagasc.utils.log import log


class _ThisProcess(Executor):
    """Stands in for a pool where processes cannot share anything: computes each call at once, in this process."""

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(self, fn: Callable, *iterables: Iterable, **_: Any) -> Iterator:
        return map(fn, *iterables)


def workers(jobs: int) -> Executor:
    """Return a pool of ``jobs`` forked processes that end with this process, even if it is killed.

    Without a usable /dev/shm there are none: a warning says so, and this process does the work.
    """
    try:
        return ProcessPoolExecutor(jobs, mp_context=get_context("fork"), initializer=_begin, initargs=(os.getpid(),))
    except OSError as error:
        why = f"{error.strerror or error}; make /dev/shm writable and large enough, or give --nj 1"
        log.warning("warning: processes cannot share memory in /dev/shm, so only one works: %s", why)
        return _ThisProcess()


@contextmanager
def mapping(jobs: int) -> Iterator[Callable]:
    """Yield a ``map`` over ``jobs`` processes, or over this one alone; an error cancels all calls."""
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
    """Exit once the parent has died; an orphan would wait forever and hold the recipe's lock."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def peak_memory() -> str:
    """Describe the peak memory of this process, of its largest worker, and on the GPU, for the log.

    Peak resident memory includes memory-mapped pages, so current anonymous memory is reported as well.
    """
    own, worker = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    anonymous = int(re.search(r"RssAnon:\s*(\d+)", Path("/proc/self/status").read_text())[1])
    text = f"{own / 1e6:.1f} GB of memory (now {anonymous / 1e6:.1f} GB without mapped files)"  # all counted in kB
    if worker:
        text += f", {worker / 1e6:.1f} GB in a worker"
    torch = sys.modules.get("torch")  # not imported for this alone
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        text += f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB on the GPU"
    return text
