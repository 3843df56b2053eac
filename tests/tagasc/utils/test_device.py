"""The choice of a device and of its precision, with stand-ins for a GPU."""

import warnings

import pytest
import torch

from tagasc.utils import device as module
from tagasc.utils.device import (
    allow_tf32,
    autocast,
    choose_device,
    computing_in,
    out_of_memory,
    precision_on,
)
from tagasc.utils.errors import UserError
from tagasc.utils.limits import describe_limit
from tagasc.utils.log import log
from tests.helpers import CPU

CUDA = torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch):
    """A GPU with bfloat16, in a container that allows TF32 everywhere."""
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags], torch.backends.cudnn.benchmark, module._precision
    allow_tf32(True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module, "_has_bfloat16", lambda: True)
    yield monkeypatch
    for flag, allowed in zip(flags, before[0], strict=True):
        flag.allow_tf32 = allowed
    torch.backends.cudnn.benchmark, module._precision = before[1:]


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_what_is_float32_is_never_tf32(gpu, precision):
    """Both of torch's settings agree: the compiler reads both, and fails if they were set apart."""
    choose_device("cuda", precision=precision)
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    assert (matmul.allow_tf32, convolution.allow_tf32) == (False, False)
    assert matmul.fp32_precision == "ieee"
    assert "tf32" not in (convolution.fp32_precision, convolution.conv.fp32_precision)


@pytest.mark.parametrize(
    ("precision", "on_gpu", "on_cpu"),
    [("auto", "bfloat16", "float32"), ("float32", "float32", "float32"), ("bfloat16", "bfloat16", "bfloat16")],
)
def test_the_precision_of_networks_is_that_of_the_device(gpu, precision, on_gpu, on_cpu):
    choose_device("cuda", precision=precision)
    assert (precision_on(CUDA), precision_on(CPU)) == (on_gpu, on_cpu)
    with autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == getattr(torch, on_cpu)
    with computing_in("float32"):
        assert precision_on(CUDA) == "float32"
    assert precision_on(CUDA) == on_gpu


def test_a_gpu_without_bfloat16_computes_in_float32(gpu):
    said = []
    gpu.setattr(log, "warning", lambda form, *values: said.append(form % values))
    gpu.setattr(module, "_has_bfloat16", lambda: False)
    choose_device("cuda")
    assert precision_on(CUDA) == "float32"
    assert said == ["this GPU has no bfloat16; networks compute in float32"]
    with pytest.raises(UserError, match="no bfloat16; use --precision float32"):
        choose_device("cuda", precision="bfloat16")


def test_an_unusable_gpu_is_an_error_with_torchs_reason(monkeypatch):
    def old_driver():
        text = "CUDA initialization: The NVIDIA driver on your system is too\nold (found version 11040)."
        warnings.warn(text, stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", old_driver)
    with pytest.raises(UserError, match=r"no usable GPU; use --device cpu .*driver on your system is too old \(found"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("error", "full", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True, "the GPU's memory is full"),
        (RuntimeError("CUDA error: out of memory"), True, "the GPU's memory is full"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling x"), True, "the GPU's memory is full"),
        (RuntimeError("CUDA error: no kernel image is available for execution"), False, "no code for this GPU"),
        (RuntimeError("CUDA error: device-side assert triggered\nmore"), False, "device-side assert triggered\\); run"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False, None),
    ],
)
def test_errors_of_a_gpu_are_told_apart(error, full, said):
    assert out_of_memory(error) is full
    if said is None:
        assert describe_limit(error) is None
    else:
        with pytest.raises(UserError, match=said):
            raise UserError(describe_limit(error))
