"""How much memory a program has taken."""

import re
import resource
import sys
from pathlib import Path


def peak() -> str:
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
