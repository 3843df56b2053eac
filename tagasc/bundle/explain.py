"""Why a window got its answer: events for and against it, attention, and the training clips that are most alike.

The margin is the SVM's decision for the answer against its closest rival. How much it falls when something is taken
away is how much that spoke for the answer. Nothing here says that an event *caused* an answer in the world.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tagasc.bundle.runner import Bundle, against

NEAREST = 5  # training clips shown
_PIECE = 1.0  # s; length of the pieces whose tags show events over time
_ROWS = 64  # altered tag vectors computed together


@dataclass(frozen=True)
class Influence:
    """The tags' part in an answer.

    Attributes:
        changes: fall of the margin when the tag of one event is set to its training mean, float32 (events,).
        cut_margin: margin of the answer when all tags are set to their training mean.
        cut_scene: index of the answer then.
    """

    changes: np.ndarray
    cut_margin: float
    cut_scene: int


@dataclass(frozen=True)
class Attention:
    """What attention did to the feature map (section 3.2).

    Attributes:
        weights: attention of each filter, relative to uniform attention in its head, float32 (heads, filters).
        usual: the same for the mean training tags.
        response: response of the filters over time as weighted by this clip's attention, relative to that with the
            usual one, float32 (time,).
    """

    weights: np.ndarray
    usual: np.ndarray
    response: np.ndarray


@dataclass(frozen=True)
class Explanation:
    """Why one window got its answer.

    Attributes:
        start: where the window begins, s.
        scene: index of the answer.
        rival: index of its closest rival.
        margin: decision for the answer against the rival.
        probabilities: float32 (scenes,).
        tags: float32 (events,), or None.
        influence: part of the tags; None for a system without tags.
        attention: None for a system without attention.
        nearest: id, scene and distance of the most similar training clips, by code.
        typical: median distance of a training clip to its nearest neighbour of the same scene.
        events_over_time: float32 (pieces, events); None without a tagger, or for windows shorter than 1 s.
    """

    start: float
    scene: int
    rival: int
    margin: float
    probabilities: np.ndarray
    tags: np.ndarray | None
    influence: Influence | None
    attention: Attention | None
    nearest: Sequence[tuple[str, str, float]]
    typical: float
    events_over_time: np.ndarray | None


def explain(bundle: Bundle, start: float, wave: np.ndarray, given: np.ndarray | None = None) -> Explanation:
    """Explain the answer for one window.

    Args:
        bundle: the bundle.
        start: where the window begins, s.
        wave: float32 (frames, channels), as ``Bundle.batches`` cuts it.
        given: tags, if the bundle's tagger is elsewhere.
    """
    tags = bundle.tags(wave[None], given)
    names = ["scene", "probabilities", "pairs", "code", "feature_map"]
    attentive = "attention" in bundle.outputs
    found = bundle.run(wave[None], tags, names + ["attention"] * attentive)
    scene = int(found["scene"][0])
    decisions = against(found["pairs"][0], scene, len(bundle.scenes))
    rival = min((n for n in range(len(bundle.scenes)) if n != scene), key=lambda n: decisions[n])
    influence = attention = None
    if tags is not None:
        influence = _influence(bundle, found["feature_map"], tags, (scene, rival))
    if attentive:
        attention = _attention(bundle, found["feature_map"], found["attention"])
    nearest, typical = _nearest(bundle, found["code"][0])
    over_time = _pieces(bundle, wave) if bundle.has_tagger and bundle.contract.seconds >= _PIECE else None
    margin, probabilities = float(decisions[rival]), found["probabilities"][0]
    one = None if tags is None else tags[0]
    return Explanation(
        start, scene, rival, margin, probabilities, one, influence, attention, nearest, typical, over_time
    )


def _influence(bundle: Bundle, feature_map: np.ndarray, tags: np.ndarray, pair: tuple[int, int]) -> Influence:
    """Compute the margin with each tag, and with all, at its training mean; the trunk need not run again."""
    mean, count = bundle.training["tags"], tags.shape[1]
    altered = np.repeat(tags, count + 2, axis=0)
    altered[np.arange(count), np.arange(count)] = mean
    altered[count] = mean  # the last row is unchanged
    margins, scenes = [], []
    for rows in np.array_split(altered, -(-len(altered) // _ROWS)):
        maps = np.repeat(feature_map, len(rows), axis=0)
        found = bundle.run_head(maps, rows, ("pairs", "scene"))
        margins.append(against(found["pairs"], pair[0], len(bundle.scenes))[:, pair[1]])
        scenes.append(found["scene"])
    margin = np.concatenate(margins)
    return Influence(margin[-1] - margin[:count], float(margin[count]), int(np.concatenate(scenes)[count]))


def _attention(bundle: Bundle, feature_map: np.ndarray, attention: np.ndarray) -> Attention:
    heads = bundle.about["fusion"]["heads"]
    mean = bundle.training["tags"][None]
    usual = bundle.run_head(feature_map, mean, ("attention",))["attention"]
    size = attention.shape[1] // heads
    weights, expected = (value.reshape(heads, size) * size for value in (attention, usual))
    strength = np.abs(feature_map[0])
    response = (attention[0] @ strength) / np.maximum(usual[0] @ strength, 1e-12)
    return Attention(weights, expected, response)


def _nearest(bundle: Bundle, code: np.ndarray) -> tuple[list[tuple[str, str, float]], float]:
    training = bundle.training
    distances = np.linalg.norm(training["codes"] - code, axis=1)
    order = np.argsort(distances, kind="stable")[:NEAREST]
    nearest = [(str(training["ids"][n]), str(training["scenes"][n]), float(distances[n])) for n in order]
    return nearest, _typical(bundle)


def _typical(bundle: Bundle, most: int = 500) -> float:
    codes, scenes = (
        bundle.training["codes"][:: max(1, len(bundle.training["codes"]) // most)],
        bundle.training["scenes"],
    )
    scenes = scenes[:: max(1, len(bundle.training["codes"]) // most)]
    squares = (codes**2).sum(axis=1)
    distances = np.sqrt(np.clip(squares[:, None] + squares - 2 * codes @ codes.T, 0, None))
    distances[(scenes[:, None] != scenes) | np.eye(len(codes), dtype=bool)] = np.inf
    least = distances.min(axis=1)
    return float(np.median(least[np.isfinite(least)])) if np.isfinite(least).any() else 0.0


def _pieces(bundle: Bundle, wave: np.ndarray) -> np.ndarray:
    """Return the tags of overlapping pieces of a window, in the order of time, float32 (pieces, events)."""
    length = min(round(_PIECE * bundle.contract.sampling_rate), len(wave) // 2)
    count = max(2, round(2 * len(wave) / length) - 1)
    starts = np.linspace(0, len(wave) - length, count).astype(int)
    return np.concatenate([bundle.tags(wave[None, start : start + length]) for start in starts])
