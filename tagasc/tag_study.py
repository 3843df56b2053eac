"""What the tag vectors, and the attention that they steer, say of each scene."""

import numpy as np
import torch

from tagasc.models.scene import SceneNetwork
from tagasc.report import Table


def mean_by_scene(values: np.ndarray, places: np.ndarray, scenes: int) -> np.ndarray:
    """Means over the clips of each scene: (clips, values) and positions of the scenes (clips,) → (scenes, values)."""
    return np.array([values[places == scene].mean(axis=0) for scene in range(scenes)])


def dependence(values: np.ndarray, places: np.ndarray, scenes: int) -> np.ndarray:
    """Share of each value's variance over clips that lies between scenes (η²): (clips, values) → (values,), 0..1."""
    means, counts = mean_by_scene(values, places, scenes), np.bincount(places, minlength=scenes)
    between = (counts[:, None] * (means - values.mean(axis=0)) ** 2).sum(axis=0)
    total = ((values - values.mean(axis=0)) ** 2).sum(axis=0)
    return np.divide(between, total, out=np.zeros_like(total), where=total > 0)


def telling_events(
    values: np.ndarray, classes: list[str], places: np.ndarray, scenes: list[str], count: int = 3
) -> Table:
    """A row a scene: the events whose mean tag lies farthest above the other scenes', in standard deviations.

    In brackets the mean tag in the scene and in the others.
    """
    deviation, rows = values.std(axis=0).clip(min=1e-12), []
    for number, scene in enumerate(scenes):
        here, elsewhere = values[places == number].mean(axis=0), values[places != number].mean(axis=0)
        distance = (here - elsewhere) / deviation
        chosen = [n for n in np.argsort(-distance, kind="stable")[:count] if distance[n] > 0]
        said = [f"{classes[n]} {distance[n]:+.1f} sd ({here[n]:.3f}, else {elsewhere[n]:.3f})" for n in chosen]
        rows.append((scene, "; ".join(said)))
    return ("scene", "events that distinguish it"), rows


@torch.inference_mode()
def attention_maps(network: SceneNetwork, tags: np.ndarray) -> np.ndarray:
    """The attention map of each clip in multiples of an even spread: (clips, c) → (clips, heads, filters per head).

    Within a head the values of a clip average to 1. No audio is needed, since the tags alone steer the attention.
    """
    fusion = network.fusion
    transform = fusion.for_concat if fusion.system.shared else fusion.for_attention
    by_head = fusion.attend.attention(transform(torch.from_numpy(tags))).unflatten(1, (fusion.attend.heads, -1))
    return (by_head * by_head.shape[2]).numpy()


def effective_filters(maps: np.ndarray) -> np.ndarray:
    """How many filters each head spreads its attention over: exp of the entropy, mean over clips, (heads,)."""
    share = maps / maps.shape[2]
    entropy = -(share * np.log(share.clip(min=1e-12))).sum(axis=2)
    return np.exp(entropy).mean(axis=0)
