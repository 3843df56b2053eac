"""A bundle's folder: whether it is whole, and what its ``bundle.json`` says.

Each file's SHA-256 is in ``bundle.json``, which has a checksum of its own. That finds damage and careless changes.
It is no signature: whoever changes a file on purpose can write a new hash.
"""

from pathlib import Path
from typing import Any

from tagasc.bundle.schema import FORMAT, NAME, problem
from tagasc.utils.errors import UserError
from tagasc.utils.files import digest_bytes, read_json

_AGAIN = "export it again (stage 9), or fetch it again"
MODEL, HEAD, TAGGER, TRAINING = "model.onnx", "head.onnx", "tagger.onnx", "training.npz"


def read_bundle(folder: Path, check: bool = True) -> dict[str, Any]:
    """Read ``bundle.json``, and with ``check`` compare every file with its hash.

    Raises:
        UserError: the folder holds no bundle, or one of another format, or a file is missing or was changed.
    """
    path = folder / NAME
    if not path.exists():
        raise UserError(f"{folder} holds no {NAME}, so it is no bundle; give the folder that stage 9 wrote")
    about = read_json(path, "stage 9 (bundle)")
    if isinstance(about, dict) and about.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {about.get('format')!r}, this program reads {FORMAT}; use the bundle's own"
            " predict.py, or another version of tagasc"
        )
    if why := problem(about):
        raise UserError(f"{path} is not a bundle's description: {why}; {_AGAIN}")
    for name, expected in about["files"].items():
        file = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{path} lists {name}, which is outside the bundle; {_AGAIN}")
        if not file.is_file():
            raise UserError(f"{file} is missing from the bundle; {_AGAIN}")
        if check and digest_bytes(file) != expected:
            raise UserError(f"{file} was changed since the bundle was made; {_AGAIN}")
    return about
