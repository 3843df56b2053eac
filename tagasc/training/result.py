"""A training's folder: the names of its files, and whether it holds a result."""

import shutil
from pathlib import Path
from typing import Any

from tagasc.utils import provenance
from tagasc.utils.errors import UserError
from tagasc.utils.log import log

WEIGHTS = "model.safetensors"
HISTORY = "history.json"
CHECKPOINT = "checkpoint.pt"
TEST_BY_EPOCH = "test_by_epoch.json"


def check_result_folder(folder: Path, record: dict[str, Any], force: bool) -> bool:
    """Look at what lies in a result's folder.

    Returns:
        Whether training is still to be done (from the start or from a checkpoint).

    Raises:
        UserError: the folder holds a training of another configuration or of other inputs, and not ``force``.
    """
    if force:
        shutil.rmtree(folder, ignore_errors=True)
    old, trained = provenance.read(folder), (folder / WEIGHTS).exists()
    if not trained and not (folder / CHECKPOINT).exists():
        shutil.rmtree(folder, ignore_errors=True)  # at most a record of a training that never finished an epoch
        provenance.write(folder, record)
        return True
    why = "no record of what it was made from" if old is None else provenance.difference(old, record)
    if why is not None:
        raise UserError(f"{folder} holds another training ({why}); --force trains it anew, or move it away to keep it")
    if trained:
        log.info("%s: already trained", short_name(folder))
        return False
    return True


def short_name(folder: Path) -> str:
    """A result's folder as the log names it: its last two parts."""
    return "/".join(folder.parts[-2:])
