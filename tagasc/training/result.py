"""The folder of a training: names of its files, whether it holds a result, its curves and its record.

The weights file also holds the curves and the part of the record that says what was trained on what. So
``history.json`` and ``provenance.json`` are made again from it in a moment if they are lost.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tagasc.training.weights_file import is_whole, read_whole
from tagasc.utils import provenance
from tagasc.utils.errors import UserError
from tagasc.utils.files import delete_own, read_json, write_json
from tagasc.utils.log import log

WEIGHTS = "model.safetensors"
HISTORY = "history.json"
CHECKPOINT = "checkpoint.pt"
TEST_BY_EPOCH = "test_by_epoch.json"
TRAINING_FILES = (provenance.NAME, WEIGHTS, HISTORY, CHECKPOINT, TEST_BY_EPOCH, "tensorboard", "epochs", "snapshot*")
TRAINING = "training"  # key of a weights file's metadata
_RECORDED = ("step", "config", "inputs")


def check_result_folder(folder: Path, record: dict[str, Any], force: bool, weights: Sequence[Path] = ()) -> bool:
    """Check what a result's folder holds, and prepare it for training.

    Args:
        folder: folder of the result.
        record: provenance record of the training.
        force: delete an existing training.
        weights: further weights files of the result; if one is missing or damaged, training starts over.

    Returns:
        Whether to train, from the start or from a checkpoint.

    Raises:
        UserError: the folder holds a training with another configuration or other inputs, or other files.
    """
    if force:
        delete_own(folder, *TRAINING_FILES)
    trained = (folder / WEIGHTS).exists()
    if not trained and not (folder / CHECKPOINT).exists():
        return _start_over(folder, record)  # at most the record of a training that finished no epoch
    old = read_training_record(folder)
    if old is None:
        raise UserError(
            f"{folder} holds a training, but no readable {provenance.NAME}; move the folder away, or delete it to train"
            " again"
        )
    if why := provenance.difference(old, record):
        raise UserError(f"{folder} holds another training ({why}); --force trains it again, or move it away to keep it")
    if not trained:
        return True
    for path in (folder / WEIGHTS, *weights):
        if not is_whole(path):
            log.warning("%s is %s; trained again", path, "damaged" if path.exists() else "missing")
            return _start_over(folder, record)
    _restore(folder)
    log.info("%s: already trained", short_name(folder))
    return False


def training_metadata(folder: Path, history: dict[str, Any]) -> dict[str, Any]:
    """Return what the weights file repeats of the folder's other files, but for times, which differ between runs."""
    epochs = [{name: value for name, value in row.items() if name != "seconds"} for row in history["epochs"]]
    record = provenance.read(folder) or {}
    return {
        "history": {"parameters": history["parameters"], "best_epoch": history["best_epoch"], "epochs": epochs},
        "record": {name: record[name] for name in _RECORDED if name in record},
    }


def read_training_record(folder: Path) -> dict[str, Any] | None:
    """Read the provenance record of a training; if it is lost, step, configuration and inputs from the weights file."""
    return provenance.read(folder) or _repeated(folder).get("record") or None


def find_history(folder: Path) -> dict[str, Any] | None:
    """Read the learning curves of a finished training; None, and a warning, if they are lost."""
    try:
        history = read_json(folder / HISTORY, "")
    except UserError:
        history = None
    if not _is_history(history):
        history = _repeated(folder).get("history")
    if history is None and ((folder / WEIGHTS).exists() or (folder / HISTORY).exists()):
        log.warning("%s has no readable learning curves; --force trains it again", folder)
    return history


def _is_history(value: Any) -> bool:
    try:
        return value["parameters"] > 0 and {"epoch", "loss"} <= value["epochs"][value["best_epoch"] - 1].keys()
    except (KeyError, IndexError, TypeError, AttributeError):
        return False


def require_history(folder: Path, made_by: str) -> dict[str, Any]:
    """Read the learning curves of a finished training; raise UserError if they are lost, or there is no training."""
    if (history := find_history(folder)) is not None:
        return history
    if (folder / WEIGHTS).exists():
        raise UserError(f"{folder} has no readable learning curves; delete it and run {made_by} again")
    raise UserError(f"{folder / HISTORY} does not exist; run {made_by} to create it")


def short_name(folder: Path) -> str:
    """Return the name of a result's folder in the log: its last two parts."""
    return "/".join(folder.parts[-2:])


def _start_over(folder: Path, record: dict[str, Any]) -> bool:
    delete_own(folder, *TRAINING_FILES)
    provenance.write(folder, record)
    return True


def _restore(folder: Path) -> None:
    """Make lost curves and a lost record again; remove the checkpoint of a run that was killed just before that."""
    (folder / CHECKPOINT).unlink(missing_ok=True)
    try:
        history = read_json(folder / HISTORY, "")
    except UserError:
        history = None
    if not _is_history(history) and (history := _repeated(folder).get("history")):
        log.warning("%s: missing or damaged, made again from the weights file", folder / HISTORY)
        write_json(folder / HISTORY, history)
    if provenance.read(folder) is None:
        log.warning("%s: missing or damaged, made again from the weights file", folder / provenance.NAME)
        provenance.write(folder, _repeated(folder)["record"])


def _repeated(folder: Path) -> dict[str, Any]:
    """Return what the weights file repeats of the folder's other files; empty if it is missing, damaged or older."""
    try:
        return read_whole(folder / WEIGHTS, "")[1].get(TRAINING, {})
    except UserError:
        return {}
