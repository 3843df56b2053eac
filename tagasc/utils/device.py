"""Devices: choice, numeric precision, copies to a device, and whether to compile."""

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
    """Copy ``values`` to a device; unlike ``Tensor.to``, do not synchronise with a GPU."""
    if device.type != "cuda" or values.is_cuda:
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def choose_device(name: str, deterministic: bool = False) -> torch.device:
    """Return a device, and set the precision of matrix products on a GPU.

    Args:
        name: auto, cpu, cuda or cuda:N; auto is the GPU if there is one, else the CPU.
        deterministic: whether results repeat bit for bit on a GPU; slower.

    Raises:
        UserError: the name is invalid, or there is no such GPU.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UserError(f"--device {name} must be one of auto, cpu, cuda, cuda:N")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise UserError(f"--device {name}: this machine has no usable GPU; use --device cpu (run.sh: --ngpu 0)")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch.use_deterministic_algorithms needs it
    if deterministic != torch.are_deterministic_algorithms_enabled():  # a call imports the compiler: 2 s
        torch.use_deterministic_algorithms(deterministic)
    device = torch.device(name)
    if device.index is not None:
        torch.cuda.set_device(device)  # streams and graphs belong to the current device
    return device


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
            " ".join(str(error).split())[:200],
        )
        return False
    return True


def autocast(device: torch.device) -> torch.autocast:
    """Return a context of bfloat16 on a GPU, float32 on the CPU; its cache is off, as graph capture requires."""
    gpu = device.type == "cuda"
    return torch.autocast("cuda" if gpu else "cpu", torch.bfloat16, enabled=gpu, cache_enabled=False)


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute in float32 on a GPU too: TF32 rounds to 11 bits, too few for waveforms and spectrograms."""
    backends = torch.backends.cuda.matmul, torch.backends.cudnn  # matrix products, convolutions
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed
