"""Worker processes for work on the CPU."""

import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path


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


def peak_memory() -> str:
    """The most that this process took, that each of its workers took, and that it took on the GPU, for the log.

    Memory-mapped files count as far as they were in memory, though the system takes that back when it needs it; so what
    the process holds without them, now, is told too.
    """
    most, workers = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    own = int(re.search(r"RssAnon:\s*(\d+)", Path("/proc/self/status").read_text())[1])
    said = f"{most / 1e6:.1f} GB of memory (now {own / 1e6:.1f} GB without mapped files)"  # all counted in kB
    if workers:
        said += f", {workers / 1e6:.1f} GB in a worker"
    torch = sys.modules.get("torch")  # most programs import it, but not for this
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        said += f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB of the GPU's"
    return said
