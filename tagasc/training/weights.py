"""Weights on disk, as safetensors with metadata."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from tagasc.training.weights_file import describe, read_whole
from tagasc.utils.errors import UserError
from tagasc.utils.files import write_bytes


def parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(value.numel() for value in network.parameters() if value.requires_grad)


def save_weights(path: Path, state: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write weights and metadata as safetensors with a checksum, atomically."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    write_bytes(path, save(tensors, describe(save(tensors), metadata)))


def read_weights(path: Path, made_by: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights and their metadata.

    Args:
        path: the file.
        made_by: stage that writes it, for the error.

    Raises:
        UserError: the file is missing or damaged, or not written by ``save_weights``.
    """
    content, metadata = read_whole(path, made_by)
    try:
        return load(content), metadata
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); run {made_by} again") from None
