"""What the machine lacks when a program fails: space, memory, permission, file descriptors, locks.

A run that fails for want of these says nothing about its settings, so a sweep ends at once.
"""

import errno

_SPACE = "free some space and run the same command again"
_MEMORY = "the memory is full; free some, raise its limit, or choose smaller settings or a lower --nj"
_GPU_MEMORY = "the GPU's memory is full; choose a smaller batch, or free the GPU"
_LOCKS = "the file system does not support locks (flock); mount it with them, or move the recipe to another one"
_SYSTEM = {
    errno.ENOSPC: f"the disk is full; {_SPACE}",
    errno.EDQUOT: f"the disk quota is used up; {_SPACE}",
    errno.EFBIG: f"the file may not grow so large; raise the limit (ulimit -f), or {_SPACE}",
    errno.ENOMEM: _MEMORY,
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n), or lower --nj",
    errno.ENFILE: "the whole machine has too many files open; close some programs",
    errno.EAGAIN: "the limit of processes is reached; raise it (ulimit -u), or lower --nj",
    errno.EIO: "the disk cannot read or write it; check the disk",
    errno.EACCES: "no permission; check who owns it",
    errno.EROFS: "the file system is read-only; write to another folder",
    errno.ENOENT: "no such file or folder; check the path",
    errno.ENOTDIR: "a file is where a folder is needed; check the path",
    errno.EISDIR: "a folder is where a file is needed; check the path",
    errno.EEXIST: "something else has this name, perhaps a link that leads nowhere; move it away",
    errno.ENOLCK: _LOCKS,
    errno.ENOSYS: _LOCKS,
    errno.EOPNOTSUPP: _LOCKS,
}
_PHRASES = {
    "failed to map segment": _MEMORY,  # the dynamic linker, while torch is imported
    "cannot allocate memory": _MEMORY,
    "can't allocate memory": _MEMORY,  # torch on the CPU
    "can't start new thread": _SYSTEM[errno.EAGAIN],
    "too many open files": _SYSTEM[errno.EMFILE],
    "cuda error: out of memory": _GPU_MEMORY,
    "cublas_status_alloc_failed": _GPU_MEMORY,
    "no kernel image": "this torch has no code for this GPU; install one that has (TAGASC_PYTHON), or use --ngpu 0",
}


def describe_limit(error: BaseException) -> str | None:
    """Say in one line what the machine lacks and what to do; None if the error has another cause.

    Args:
        error: what a program raised. Libraries report exhausted memory by many types.
    """
    if isinstance(error, OSError) and error.errno in _SYSTEM:
        return f"{error.filename}: {_SYSTEM[error.errno]}" if error.filename else _SYSTEM[error.errno]
    if isinstance(error, MemoryError):
        return _MEMORY
    if type(error).__name__ == "OutOfMemoryError":  # torch's; not every program imports torch
        return _GPU_MEMORY
    if isinstance(error, OSError | RuntimeError | ImportError):
        text = str(error).lower()
        if message := next((message for phrase, message in _PHRASES.items() if phrase in text), None):
            return message
        if "cuda error" in text:  # after which a process can no longer use the GPU
            first = str(error).strip().splitlines()[0]
            return f"the GPU failed ({first}); run the same command again, with --compile never if it fails again"
    return None
