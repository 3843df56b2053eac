"""Controls: ablations, not in the paper, that train a tag system again on altered tags in every split.

They separate the effect of the events from that of the extra parameters. A run's name ends with its control:
``shared_h4_l3@shuffled``.
"""

import zlib
from collections.abc import Sequence

import numpy as np

CONTROLS = {
    "shuffled": "tags of another clip",
    "constant": "the mean training tags, for every clip",
    "within": "tags of another clip of the same scene; **uses the true label**",
    "oracle": "the scene's mean training tags; **uses the true label**",
}

USE_THE_LABEL = ("within", "oracle")


def apply_control(
    control: str,
    values: np.ndarray,
    scenes: Sequence[str],
    training: tuple[np.ndarray, Sequence[str]],
    seed: int,
    split: str,
) -> np.ndarray:
    """Alter the tags of one split; an empty ``control`` returns them unchanged.

    Args:
        control: key of ``CONTROLS``, or empty.
        values: float32 (clips, c), tags of the split.
        scenes: scene of each clip; only ``within`` and ``oracle`` read it.
        training: tags and scenes of the training clips.
        seed: random seed of the run.
        split: name of the split, part of the random seed.

    Returns:
        float32 (clips, c). A clip that is alone in its split, or in its scene, keeps its own tags.
    """
    random = np.random.default_rng([seed, zlib.crc32(split.encode())])
    if control == "shuffled":
        return values[_derangement(len(values), random)]
    if control == "constant":
        return np.broadcast_to(training[0].mean(axis=0), values.shape).copy()
    if control == "within":
        sources = np.arange(len(values))
        for scene in sorted(set(scenes)):
            indices = np.flatnonzero(np.asarray(scenes) == scene)
            sources[indices] = indices[_derangement(len(indices), random)]
        return values[sources]
    if control == "oracle":
        mean = {scene: training[0][np.asarray(training[1]) == scene].mean(axis=0) for scene in set(training[1])}
        return np.stack([mean[scene] for scene in scenes])
    return values


def _derangement(count: int, random: np.random.Generator) -> np.ndarray:
    """Draw a random permutation that is a single cycle, so that no index stays where it was."""
    order = random.permutation(np.arange(count))
    permutation = np.arange(count)
    permutation[order] = np.roll(order, 1)
    return permutation
