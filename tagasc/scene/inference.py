"""What a scene network says of clips: codes for the SVM, and its own scene scores."""

import numpy as np
import torch
from torch import Tensor

from tagasc.scene.corpus import CodeWindows, SceneClips
from tagasc.scene.network import SceneNetwork, fold_batch_norm
from tagasc.scene.trunk import STRIDE

CACHED_VALUES = 1_500_000  # of one layer's output; measured on 1 MB of L2 a core and 32 MB of L3


@torch.inference_mode()
def codes_and_logits(
    network: SceneNetwork, clips: SceneClips, windows: CodeWindows | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Run a network over clips.

    Args:
        network: in any mode; it is left as it is.
        clips: what to run over.
        windows: which part of which clips; None is every clip, whole.

    Returns:
        codes (clips, code size) and logits (clips, scenes), float32, of clips or windows in order.
    """
    evaluated = fold_batch_norm(network)
    windows = windows or CodeWindows(torch.arange(len(clips)), torch.zeros(len(clips), dtype=torch.int64), clips.frames)
    rows = _whole_batches(len(windows.clip_indices), _batch(network, windows.frames, clips.device))
    clip_indices, outputs = windows.clip_indices[rows], []
    batches = clips.store.batches(clip_indices, windows.starts[rows], windows.frames)
    for indices, samples in zip(clip_indices.to(clips.device), batches, strict=True):
        outputs.append(evaluated(samples, clips.tags_of(indices)))
    count = len(windows.clip_indices)
    return tuple(torch.cat(batch)[:count].cpu().numpy() for batch in zip(*outputs, strict=True))


def _whole_batches(count: int, batch: int) -> Tensor:
    """0..count-1 as (batches, batch); the last one is filled up with its last, since what is compiled has one shape."""
    batch = min(batch, count)
    return torch.arange(-(-count // batch) * batch).clamp(max=count - 1).reshape(-1, batch)


def _batch(network: SceneNetwork, frames: int, device: torch.device) -> int:
    """Clips at a time: many on a GPU; on a CPU so few that a layer's output, some megabytes, stays in its cache."""
    if device.type == "cuda":
        return 128
    values = frames // STRIDE * network.trunk.stem.out_features
    return max(1, min(32, CACHED_VALUES // values))
