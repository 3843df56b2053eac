"""The training loop: epochs, validation, checkpoints, and going on after an interruption with the same result.

It knows nothing of tags or scenes. What is trained brings a network, an optimiser, one epoch of training, and a
validation score; the loop keeps the best epoch's weights. A result's folder holds

- ``provenance.json``: configuration, inputs, versions, command, written first;
- ``checkpoint.pt``: the state after the last finished epoch, while training goes on;
- ``tensorboard/``: the curves, live;
- ``history.json`` and ``model.safetensors``: the curves and the best weights; the latter is written last, so its
  presence means that training has ended.
"""

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tagasc.training.result import CHECKPOINT, HISTORY, WEIGHTS, short_name
from tagasc.training.weights import parameters, save_weights
from tagasc.utils.errors import UserError
from tagasc.utils.files import atomic_file, write_json
from tagasc.utils.log import log


class Trainer(Protocol):
    """What the loop needs of the thing trained."""

    network: nn.Module
    optimizer: torch.optim.Optimizer

    def train(self, epoch: int) -> dict[str, float]:
        """Train one epoch (counted from 1); return figures for the curves, ``loss`` among them."""
        ...

    def validate(self) -> dict[str, float]:
        """Return figures for the curves; among them ``score``, the higher the better, or the last epoch is kept."""
        ...


def fit(
    trainer: Trainer,
    folder: Path,
    epochs: int,
    metadata: dict[str, Any],
    after_epoch: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Train ``trainer`` for ``epochs`` epochs, going on from ``folder``'s checkpoint if there is one.

    Args:
        trainer: what is trained, freshly initialised.
        folder: where the result goes.
        epochs: how many.
        metadata: what a reader of the weights needs to build the network again; stored with them.
        after_epoch: called with each epoch's number before it counts as finished.

    Raises:
        UserError: the loss is not finite, or the checkpoint is not readable.
    """
    from torch.utils.tensorboard import SummaryWriter  # here, since it takes long to import

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
            shown = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in ("epoch", "score"))
            log.info("%s: epoch %d of %d: %s", short_name(folder), epoch, epochs, shown)
    summary = {
        "parameters": parameters(trainer.network),
        "threads": torch.get_num_threads(),
        "best_epoch": best["epoch"],
    }
    write_json(folder / HISTORY, {**summary, "epochs": history})
    save_weights(folder / WEIGHTS, best["network"], metadata)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    score = "" if math.isinf(best["score"]) else f", validation score {best['score']:.4f}"
    log.info("%s: kept epoch %d of %d%s", short_name(folder), best["epoch"], epochs, score)


def mean_of(losses: Iterable[Tensor]) -> float:
    """Mean of losses kept on the device, read once, so that no step waits for the device."""
    return float(torch.stack(list(losses)).mean())


def _resume(trainer: Trainer, folder: Path) -> tuple[list[dict], dict | None]:
    path = folder / CHECKPOINT
    if not path.exists():
        return [], None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        trainer.network.load_state_dict(state["network"])
        trainer.optimizer.load_state_dict(state["optimizer"])
        history, best, threads = state["history"], state["best"], state["threads"]
    except Exception:  # torch raises many kinds for a damaged file
        raise UserError(
            f"{path} cannot be read as a checkpoint of this network; delete it or start over with --force"
        ) from None
    if threads != torch.get_num_threads():
        log.warning(
            "%s: %d threads before, %d now: sums may differ in the last bit", folder, threads, torch.get_num_threads()
        )
    log.info("%s: going on after epoch %d", short_name(folder), len(history))
    return history, best


def _save_checkpoint(trainer: Trainer, folder: Path, history: list[dict], best: dict) -> None:
    state = {"network": trainer.network.state_dict(), "optimizer": trainer.optimizer.state_dict()}
    with atomic_file(folder / CHECKPOINT) as temporary:
        torch.save({**state, "history": history, "best": best, "threads": torch.get_num_threads()}, temporary)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
