"""Weights on disk, as safetensors with metadata."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tagasc.utils.errors import UserError
from tagasc.utils.files import atomic_file


def parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(value.numel() for value in network.parameters() if value.requires_grad)


def save_weights(path: Path, state: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write weights and metadata as safetensors, atomically."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with atomic_file(path) as temporary:
        save_file(tensors, temporary, metadata={"about": json.dumps(metadata)})


def read_weights(path: Path, made_by: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights and their metadata.

    Args:
        path: the file.
        made_by: stage that writes it, for the error.

    Raises:
        UserError: the file is missing, or not written by ``save_weights``.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads(file.metadata()["about"])
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run {made_by} to create it") from None
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not a complete model file ({error}); run {made_by} with --force") from None
