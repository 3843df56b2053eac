"""Devices: choice, numeric precision, copies to a device, memory, and whether to compile."""

import gc
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from tagasc.utils.errors import UserError
from tagasc.utils.log import log

Compile = Literal["auto", "always", "never"]
Precision = Literal["auto", "float32", "bfloat16"]
_precision: Precision = "auto"  # of this process, from choose_device


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy ``values`` to a device; unlike ``Tensor.to``, do not synchronise with a GPU."""
    if device.type != "cuda" or values.is_cuda:
        return values.to(device)
    return page_locked(values).to(device, non_blocking=True)


def page_locked(values: Tensor) -> Tensor:
    """Copy ``values`` to pinned memory; where the system refuses it, return them: their copy to a GPU then waits."""
    try:
        return values.pin_memory()
    except RuntimeError as error:
        _warn_once(f"memory cannot be pinned, so copies to the GPU wait: {one_line(error)}")
        return values


def choose_device(name: str, deterministic: bool = False, precision: Precision = "auto") -> torch.device:
    """Return a device, and set for the whole process in which precision networks compute.

    What is float32 is never TF32, which rounds to 11 bits. torch's default allows TF32 in convolutions, and some
    containers allow it everywhere.

    Args:
        name: auto, cpu, cuda or cuda:N; auto is the GPU if there is one, else the CPU.
        deterministic: whether results repeat bit for bit on a GPU; slower.
        precision: precision of networks; see ``precision_on``.

    Raises:
        UserError: the name is invalid, or there is no such GPU, or it has no bfloat16.
    """
    global _precision
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UserError(f"--device {name} must be one of auto, cpu, cuda, cuda:N")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        if (why := _why_no_gpu()) is not None:
            raise UserError(
                f"--device {name}: this machine has no usable GPU; use --device cpu (run.sh: --ngpu 0){why}"
            )
        allow_tf32(False)
        torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch.use_deterministic_algorithms needs it
    if deterministic != torch.are_deterministic_algorithms_enabled():  # a call imports the compiler: 2 s
        torch.use_deterministic_algorithms(deterministic)
    device = torch.device(name)
    if device.index is not None:
        torch.cuda.set_device(device)  # streams and graphs belong to the current device
    _precision = precision
    if device.type == "cuda" and not _has_bfloat16():
        if precision == "bfloat16":
            raise UserError("--precision bfloat16: this GPU has no bfloat16; use --precision float32")
        _warn_once("this GPU has no bfloat16; networks compute in float32")
    return device


def precision_on(device: torch.device) -> Literal["float32", "bfloat16"]:
    """Return the precision of networks on a device, as given to ``choose_device``.

    bfloat16 is that of convolutions and matrix products within ``autocast``; everything else is float32. ``auto`` is
    bfloat16 on a GPU that has it, else float32.
    """
    if _precision != "auto":
        return _precision
    return "bfloat16" if device.type == "cuda" and _has_bfloat16() else "float32"


@contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """Let networks compute in another precision within the block."""
    global _precision
    before, _precision = _precision, precision
    try:
        yield
    finally:
        _precision = before


def autocast(device: torch.device) -> torch.autocast:
    """Return a context in which a network computes in its precision; its cache is off, as graph capture requires."""
    kind = "cuda" if device.type == "cuda" else "cpu"  # meta tensors, on which operations are counted, have none
    enabled = precision_on(device) == "bfloat16"
    return torch.autocast(kind, torch.bfloat16, enabled=enabled, cache_enabled=False)


def allow_tf32(allowed: bool) -> None:
    """Allow or forbid TF32 in matrix products and convolutions in float32 on a GPU.

    This is torch's older setting. Its compiler reads both this and the newer ``fp32_precision``, and fails if a
    process sets both.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def release_memory() -> None:
    """Return unused GPU memory to the system; that of a CUDA graph stays reserved until this."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def out_of_memory(error: BaseException | None) -> bool:
    """Return whether a GPU's full memory caused an error; a capture that fails for it raises another error."""
    while error is not None:
        text = str(error).lower()
        if isinstance(error, torch.OutOfMemoryError) or any(phrase in text for phrase in _MEMORY_FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


_MEMORY_FULL = ("cuda error: out of memory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed")


def should_compile(mode: Compile, device: torch.device) -> bool:
    """Return whether to use torch.compile; ``auto``: on a GPU, if a trial compilation works."""
    if mode != "auto" or device.type != "cuda":
        return mode == "always"
    try:
        torch.compile(torch.neg)(torch.zeros(1, device=device))
    except Exception as error:  # the compiler raises many types
        log.warning(
            "torch.compile needs a C compiler and Python's headers (Debian: gcc, python3-dev) and does not work here;"
            " training is slower: %s",
            one_line(error),
        )
        return False
    return True


def one_line(error: BaseException) -> str:
    """Return the first 200 characters of an error's text on one line, or its type if it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _why_no_gpu() -> str | None:
    """Return None if there is a usable GPU; else torch's reason in parentheses, for example an old driver."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return None
    return f" ({' '.join(str(caught[-1].message).split())[:200]})" if caught else ""


@cache
def _has_bfloat16() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


@cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)
