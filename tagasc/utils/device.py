"""Where to compute and how exactly: the device, its precision, copies to it, and whether to compile."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from tagasc.utils.errors import UserError
from tagasc.utils.log import log

Compile = Literal["auto", "always", "never"]


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """``values`` on a device; unlike with ``Tensor.to``, the CPU does not wait for what a GPU has yet to do before."""
    if device.type != "cuda" or values.is_cuda:
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def choose_device(name: str, deterministic: bool = False) -> torch.device:
    """``auto`` is the GPU if there is one, else the CPU; sets the precision of matrix products on the GPU.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UserError(f"--device {name} is none of auto, cpu, cuda, cuda:N")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise UserError(f"--device {name}: this machine has no usable GPU; use --device cpu (run.sh: --ngpu 0)")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by torch.use_deterministic_algorithms
    if deterministic != torch.are_deterministic_algorithms_enabled():  # to say it imports the compiler: two seconds
        torch.use_deterministic_algorithms(deterministic)
    device = torch.device(name)
    if device.index is not None:
        torch.cuda.set_device(device)  # streams and graphs are of the current device
    return device


def should_compile(asked: Compile, device: torch.device) -> bool:
    """Whether torch.compile makes the networks; ``auto``: on a GPU, if it works there, which is tried."""
    if asked != "auto" or device.type != "cuda":
        return asked == "always"
    try:
        torch.compile(torch.neg)(torch.zeros(1, device=device))
    except Exception as error:  # of many kinds; what it lacks, it lacks for the networks too
        log.warning(
            "torch.compile needs a C compiler and Python's headers (Debian: gcc, python3-dev) and does not work here,"
            " so that training is slower: %s",
            " ".join(str(error).split())[:200],
        )
        return False
    return True


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on the GPU, float32 on the CPU. Nothing is kept of a pass, so that a CUDA graph may record it."""
    gpu = device.type == "cuda"
    return torch.autocast("cuda" if gpu else "cpu", torch.bfloat16, enabled=gpu, cache_enabled=False)


@contextmanager
def full_precision() -> Iterator[None]:
    """In float32 on a GPU too: TF32, which training allows, rounds to 11 bits, too few for a wave or a spectrogram."""
    backends = torch.backends.cuda.matmul, torch.backends.cudnn  # of matrix products, of convolutions
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed
