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
    """Number of trainable values."""
    return sum(value.numel() for value in network.parameters() if value.requires_grad)


def save_weights(path: Path, state: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write weights as safetensors, with ``metadata`` as metadata."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with atomic_file(path) as temporary:
        save_file(tensors, temporary, metadata={"about": json.dumps(metadata)})


def read_weights(path: Path, made_by: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights and what was stored about them.

    Raises:
        UserError: the file is absent or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads(file.metadata()["about"])
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {made_by} makes it") from None
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not a whole model file ({error}); make it again with {made_by} --force") from None
