"""The training loop: epochs, validation, checkpoints, and resuming to the same result.

It knows nothing of tags or scenes. A trainer provides network, optimiser, one epoch of training, and a validation
score; the loop keeps the weights of the best epoch. A result's folder holds

- ``provenance.json``: configuration, inputs, versions, command; written first;
- ``checkpoint.pt``: the state after the last finished epoch; deleted at the end;
- ``tensorboard/``: the curves during training;
- ``history.json``: the curves;
- ``model.safetensors``: the best weights, with a copy of curves and configuration; written last, so its presence means
  that training is complete.
"""

import io
import math
import pickle
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tagasc.training.result import CHECKPOINT, HISTORY, TRAINING, WEIGHTS, short_name, training_metadata
from tagasc.training.weights import parameters, save_weights
from tagasc.utils.errors import UserError
from tagasc.utils.files import write_bytes, write_json
from tagasc.utils.limits import describe_limit
from tagasc.utils.log import log

_DAMAGE = (RuntimeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)  # of a checkpoint


class Trainer(Protocol):
    """The interface between the loop and what it trains."""

    network: nn.Module
    optimizer: torch.optim.Optimizer

    def train(self, epoch: int) -> dict[str, float]:
        """Train one epoch (counted from 1); return values for the curves, including ``loss``."""
        ...

    def validate(self) -> dict[str, float]:
        """Return values for the curves; with ``score``, the highest one is kept, without it the last epoch."""
        ...


def fit(
    trainer: Trainer,
    folder: Path,
    epochs: int,
    metadata: dict[str, Any],
    after_epoch: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Train for ``epochs`` epochs, resuming from the checkpoint in ``folder`` if there is one.

    Args:
        trainer: freshly initialised trainer.
        folder: folder of the result.
        epochs: number of epochs.
        metadata: metadata saved with the weights, enough to rebuild the network.
        after_epoch: function called with each epoch's number before the epoch counts as finished.

    Raises:
        UserError: the loss is not finite, or the checkpoint is of another network.
    """
    from torch.utils.tensorboard import SummaryWriter  # slow to import

    history, best = _resume(trainer, folder)
    with SummaryWriter(str(folder / "tensorboard"), purge_step=len(history) + 1) as board:
        for epoch in range(len(history) + 1, epochs + 1):
            began = time.monotonic()
            row = {"epoch": epoch, **trainer.train(epoch)}
            if not math.isfinite(row["loss"]):
                raise UserError(
                    f"{folder}: the loss of epoch {epoch} is not finite; lower learning_rate or check the input"
                )
            row |= {**trainer.validate(), "seconds": round(time.monotonic() - began, 2)}
            history.append(row)
            if best is None or row.get("score", math.inf) > best["score"]:
                best = {"epoch": epoch, "score": row.get("score", -math.inf), "network": _copy(trainer.network)}
            for name, value in row.items():
                board.add_scalar(name, value, epoch)
            after_epoch(epoch)
            _save_checkpoint(trainer, folder, history, best)
            curves = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in ("epoch", "score"))
            log.info("%s: epoch %d of %d: %s", short_name(folder), epoch, epochs, curves)
    summary = {
        "parameters": parameters(trainer.network),
        "threads": torch.get_num_threads(),
        "best_epoch": best["epoch"],
    }
    curves = {**summary, "epochs": history}
    write_json(folder / HISTORY, curves)
    save_weights(folder / WEIGHTS, best["network"], metadata | {TRAINING: training_metadata(folder, curves)})
    (folder / CHECKPOINT).unlink(missing_ok=True)
    score = "" if math.isinf(best["score"]) else f", validation score {best['score']:.4f}"
    log.info("%s: kept epoch %d of %d%s", short_name(folder), best["epoch"], epochs, score)


def mean_of(losses: Iterable[Tensor]) -> float:
    """Return the mean of losses on the device; one read at the end, so that no step synchronises."""
    return float(torch.stack(list(losses)).mean())


def _resume(trainer: Trainer, folder: Path) -> tuple[list[dict], dict | None]:
    path = folder / CHECKPOINT
    if not path.exists():
        return [], None
    try:
        state = _read_checkpoint(path)
    except _DAMAGE as error:
        if describe_limit(error):
            raise
        log.warning("%s is damaged; training starts over", path)
        path.unlink()
        return [], None
    try:
        trainer.network.load_state_dict(state["network"])
        trainer.optimizer.load_state_dict(state["optimizer"])
        history, best, threads = state["history"], state["best"], state["threads"]
    except Exception as error:  # torch raises many types for a strange file
        if describe_limit(error):
            raise
        raise UserError(f"{path} is no checkpoint of this network; delete it and run the same command again") from None
    if threads != torch.get_num_threads():
        log.warning(
            "%s: resuming with %d instead of %d threads; sums may differ in the last bit",
            folder,
            torch.get_num_threads(),
            threads,
        )
    log.info("%s: resuming after epoch %d", short_name(folder), len(history))
    return history, best


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, whose checksums ``torch.load`` does not compare; raise one of ``_DAMAGE`` if it is damaged."""
    content = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(content) as file:
        if file.testzip() is not None:
            raise zipfile.BadZipFile
    content.seek(0)
    try:
        return torch.load(content, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(f"{path} holds more than weights; delete it and run the same command again") from None


def _save_checkpoint(trainer: Trainer, folder: Path, history: list[dict], best: dict) -> None:
    state = {"network": trainer.network.state_dict(), "optimizer": trainer.optimizer.state_dict()}
    content = io.BytesIO()
    torch.save({**state, "history": history, "best": best, "threads": torch.get_num_threads()}, content)
    write_bytes(folder / CHECKPOINT, content.getbuffer())


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
