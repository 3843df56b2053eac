"""The training loop: epochs, validation, checkpoints, and going on after an interruption with the same result.

It knows nothing of tags or scenes. What is trained brings a network, an optimiser, one epoch of training, and a
validation score; the loop keeps the best epoch's weights. A result's folder holds

- ``made_from.json``: configuration, inputs, versions, command, written first;
- ``checkpoint.pt``: the state after the last finished epoch, while training goes on;
- ``tensorboard/``: the curves, live;
- ``history.json`` and ``model.safetensors``: the curves and the best weights; the latter is written last, so its
  presence means that training has ended.
"""

import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tagasc import provenance
from tagasc.console import log
from tagasc.errors import UserError
from tagasc.files import whole_file, write_json

WEIGHTS = "model.safetensors"
HISTORY = "history.json"
CHECKPOINT = "checkpoint.pt"
Compiled = Literal["auto", "always", "never"]


class Trainable(Protocol):
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
    it: Trainable,
    folder: Path,
    epochs: int,
    about: dict[str, Any],
    after_epoch: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Train ``it`` for ``epochs`` epochs, going on from ``folder``'s checkpoint if there is one.

    Args:
        it: what is trained, freshly initialised.
        folder: where the result goes.
        epochs: how many.
        about: what a reader of the weights needs to build the network again; stored with them.
        after_epoch: called with each epoch's number before it counts as finished.

    Raises:
        UserError: the loss is not finite, or the checkpoint is not readable.
    """
    from torch.utils.tensorboard import SummaryWriter  # here, since it takes long to import

    history, best = _resume(it, folder)
    with SummaryWriter(str(folder / "tensorboard"), purge_step=len(history) + 1) as board:
        for epoch in range(len(history) + 1, epochs + 1):
            began = time.monotonic()
            row = {"epoch": epoch, **it.train(epoch)}
            if not math.isfinite(row["loss"]):
                raise UserError(
                    f"{folder}: the loss of epoch {epoch} is not finite; lower learning_rate or check the input"
                )
            row |= {**it.validate(), "seconds": round(time.monotonic() - began, 2)}
            history.append(row)
            if best is None or row.get("score", math.inf) > best["score"]:
                best = {"epoch": epoch, "score": row.get("score", -math.inf), "network": _copy(it.network)}
            for name, value in row.items():
                board.add_scalar(name, value, epoch)
            after_epoch(epoch)
            _save_checkpoint(it, folder, history, best)
            shown = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in ("epoch", "score"))
            log.info("%s: epoch %d of %d: %s", _short(folder), epoch, epochs, shown)
    summary = {"parameters": parameters(it.network), "threads": torch.get_num_threads(), "best_epoch": best["epoch"]}
    write_json(folder / HISTORY, {**summary, "epochs": history})
    save_weights(folder / WEIGHTS, best["network"], about)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    score = "" if math.isinf(best["score"]) else f", validation score {best['score']:.4f}"
    log.info("%s: kept epoch %d of %d%s", _short(folder), best["epoch"], epochs, score)


def parameters(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(value.numel() for value in network.parameters() if value.requires_grad)


def prepare(folder: Path, record: dict[str, Any], force: bool) -> bool:
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
        log.info("%s: already trained", _short(folder))
        return False
    return True


def save_weights(path: Path, state: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write weights as safetensors, with ``about`` as metadata."""
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with whole_file(path) as beside:
        save_file(plain, beside, metadata={"about": json.dumps(about)})


def read_weights(path: Path, made_by: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights and what was stored about them.

    Raises:
        UserError: the file is absent or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {made_by} makes it") from None
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not a whole model file ({error}); make it again with {made_by} --force") from None


def choose_device(name: str, deterministic: bool = False) -> torch.device:
    """``auto`` is the GPU if there is one, else the CPU; sets the precision of matrix products on the GPU.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UserError(f"--device {name} is none of auto, cpu, cuda, cuda:N")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise UserError(f"--device {name}: this machine has no usable GPU; use --device cpu (run.sh: --ngpu 0)")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by torch.use_deterministic_algorithms
    if deterministic != torch.are_deterministic_algorithms_enabled():  # to say it imports the compiler: two seconds
        torch.use_deterministic_algorithms(deterministic)
    device = torch.device(name)
    if device.index is not None:
        torch.cuda.set_device(device)  # streams and graphs are of the current device
    return device


def compiles(asked: Compiled, device: torch.device) -> bool:
    """Whether torch.compile makes the networks; ``auto``: on a GPU, if it works there, which is tried."""
    if asked != "auto" or device.type != "cuda":
        return asked == "always"
    try:
        torch.compile(torch.neg)(torch.zeros(1, device=device))
    except Exception as error:  # of many kinds; what it lacks, it lacks for the networks too
        log.warning(
            "torch.compile needs a C compiler and Python's headers (Debian: gcc, python3-dev) and does not work here,"
            " so that training is slower: %s",
            " ".join(str(error).split())[:200],
        )
        return False
    return True


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on the GPU, float32 on the CPU. Nothing is kept of a pass, so that a CUDA graph may record it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False)


def mean_of(losses: Iterable[Tensor]) -> float:
    """Mean of losses kept on the device, read once, so that no step waits for the device."""
    return float(torch.stack(list(losses)).mean())


def _resume(it: Trainable, folder: Path) -> tuple[list[dict], dict | None]:
    path = folder / CHECKPOINT
    if not path.exists():
        return [], None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        it.network.load_state_dict(state["network"])
        it.optimizer.load_state_dict(state["optimizer"])
        history, best, threads = state["history"], state["best"], state["threads"]
    except Exception:  # torch raises many kinds for a damaged file
        raise UserError(
            f"{path} cannot be read as a checkpoint of this network; delete it or start over with --force"
        ) from None
    if threads != torch.get_num_threads():
        log.warning(
            "%s: %d threads before, %d now: sums may differ in the last bit", folder, threads, torch.get_num_threads()
        )
    log.info("%s: going on after epoch %d", _short(folder), len(history))
    return history, best


def _save_checkpoint(it: Trainable, folder: Path, history: list[dict], best: dict) -> None:
    state = {"network": it.network.state_dict(), "optimizer": it.optimizer.state_dict()}
    with whole_file(folder / CHECKPOINT) as beside:
        torch.save({**state, "history": history, "best": best, "threads": torch.get_num_threads()}, beside)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _short(folder: Path) -> str:
    return "/".join(folder.parts[-2:])
