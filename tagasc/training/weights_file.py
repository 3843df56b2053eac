"""Weights files: safetensors with metadata as JSON, and a checksum over both. It does not import torch.

The format has no checksum of its own, so a changed weight would be used without a word.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from tagasc.utils.errors import UserError
from tagasc.utils.files import parse_json, with_checksum

ABOUT = "about"  # the only key of the format's own metadata, which it writes in random order
_TENSORS = "tensors_sha256"
_LENGTH = 8  # bytes of the header's length, which begin the file


def describe(content: bytes, metadata: dict[str, Any]) -> dict[str, str]:
    """Return what to write as metadata of a safetensors file: as JSON, with checksums.

    Args:
        content: the file without metadata.
        metadata: metadata of the network.
    """
    return {ABOUT: json.dumps(with_checksum(metadata | {_TENSORS: _checksum(*_parts(content))}))}


def read_whole(path: Path, made_by: str) -> tuple[bytes, dict[str, Any]]:
    """Read a weights file and compare its checksums; files of earlier versions have none.

    Args:
        path: the file.
        made_by: stage that writes it, for the error.

    Returns:
        content of the file, its metadata.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        content = path.read_bytes()
        header, tensors = _parts(content)
        about = header.get("__metadata__", {}).get(ABOUT)
        metadata = parse_json(about) if isinstance(about, str) else None
        if not isinstance(metadata, dict):
            raise ValueError("it was not written by this program")
        if metadata.pop(_TENSORS, "") not in ("", _checksum(header, tensors)):
            raise ValueError("it differs from its checksum")
        return content, metadata
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run {made_by} to create it") from None
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); run {made_by} again") from None


def is_whole(path: Path) -> bool:
    """Return whether a weights file exists and agrees with its checksum."""
    try:
        read_whole(path, "")
    except UserError:
        return False
    return True


def _checksum(header: dict[str, Any], tensors: memoryview) -> str:
    named = {name: value for name, value in header.items() if name != "__metadata__"}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode() + tensors).hexdigest()


def _parts(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """Split a file into its header and the bytes of its tensors."""
    end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    header = parse_json(content[_LENGTH:end])
    if not isinstance(header, dict):
        raise ValueError("it has no header")
    return header, memoryview(content)[end:]
