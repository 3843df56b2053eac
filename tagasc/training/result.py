"""The folder of a training: names of its files, and whether it holds a result."""

from pathlib import Path
from typing import Any

from tagasc.utils import provenance
from tagasc.utils.errors import UserError
from tagasc.utils.files import delete_own
from tagasc.utils.log import log

WEIGHTS = "model.safetensors"
HISTORY = "history.json"
CHECKPOINT = "checkpoint.pt"
TEST_BY_EPOCH = "test_by_epoch.json"
TRAINING_FILES = (provenance.NAME, WEIGHTS, HISTORY, CHECKPOINT, TEST_BY_EPOCH, "tensorboard", "epochs", "snapshot*")


def check_result_folder(folder: Path, record: dict[str, Any], force: bool) -> bool:
    """Check what a result's folder holds, and prepare it for training.

    Args:
        folder: folder of the result.
        record: provenance record of the training.
        force: delete an existing training.

    Returns:
        Whether to train, from the start or from a checkpoint.

    Raises:
        UserError: the folder holds a training with another configuration or other inputs, or other files.
    """
    if force:
        delete_own(folder, *TRAINING_FILES)
    old, trained = provenance.read(folder), (folder / WEIGHTS).exists()
    if not trained and not (folder / CHECKPOINT).exists():
        delete_own(folder, *TRAINING_FILES)  # at most the record of a training that finished no epoch
        provenance.write(folder, record)
        return True
    why = "no provenance record" if old is None else provenance.difference(old, record)
    if why is not None:
        raise UserError(f"{folder} holds another training ({why}); --force trains it again, or move it away to keep it")
    if trained:
        log.info("%s: already trained", short_name(folder))
        return False
    return True


def short_name(folder: Path) -> str:
    """Return the name of a result's folder in the log: its last two parts."""
    return "/".join(folder.parts[-2:])
