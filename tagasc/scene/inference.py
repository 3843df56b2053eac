"""Computes codes, for the SVM, and scene logits of clips with a trained scene network."""

import numpy as np
import torch
from torch import Tensor

from tagasc.scene.corpus import CodeWindows, SceneClips
from tagasc.scene.network import SceneNetwork, fold_batch_norm
from tagasc.scene.trunk import STRIDE
from tagasc.training.ladder import in_batches_that_fit, on_rung

CACHED_VALUES = 1_500_000  # of one layer's output; tuned on 1 MB of L2 cache per core and 32 MB of L3
GPU_BATCH = 128


@torch.inference_mode()
def codes_and_logits(
    network: SceneNetwork, clips: SceneClips, windows: CodeWindows | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Compute codes and logits.

    Args:
        network: scene network in any mode, unchanged afterwards; a compiled one runs compiled.
        clips: clips with their tags.
        windows: windows of clips; None takes every clip whole.

    Returns:
        codes (windows, code size) and logits (windows, scenes), float32, in the order of the windows.
    """
    windows = windows or CodeWindows(torch.arange(len(clips)), torch.zeros(len(clips), dtype=torch.int64), clips.frames)
    batch = min(_batch(network, windows.frames, clips.device), len(windows.clip_indices))
    work = lambda batch: _codes_and_logits(fold_batch_norm(network), clips, windows, batch)
    return in_batches_that_fit(work, batch, clips.device, "codes")


def _codes_and_logits(
    network: SceneNetwork, clips: SceneClips, windows: CodeWindows, batch: int
) -> tuple[np.ndarray, np.ndarray]:
    rows = _whole_batches(len(windows.clip_indices), batch)
    clip_indices, outputs = windows.clip_indices[rows], []
    batches = clips.store.batches(clip_indices, windows.starts[rows], windows.frames)
    for indices, samples in zip(clip_indices.to(clips.device), batches, strict=True):
        with on_rung("compiled" if network.compiled else "plain"):
            outputs.append(network(samples, clips.tags_of(indices)))
    count = len(windows.clip_indices)
    return tuple(torch.cat(batch)[:count].cpu().numpy() for batch in zip(*outputs, strict=True))


def _whole_batches(count: int, batch: int) -> Tensor:
    """Return 0..count-1 as (batches, batch); the last clip fills the last batch, as compiled code has one shape."""
    return torch.arange(-(-count // batch) * batch).clamp(max=count - 1).reshape(-1, batch)


def _batch(network: SceneNetwork, frames: int, device: torch.device) -> int:
    """Choose the clips per batch: many on a GPU; on a CPU few, so that a layer's output stays in the cache."""
    if device.type == "cuda":
        return GPU_BATCH
    values = frames // STRIDE * network.trunk.stem.out_features
    return max(1, min(32, CACHED_VALUES // values))
