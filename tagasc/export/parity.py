"""Compare a bundle with PyTorch and scikit-learn on clips of the recipe."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.svm import SVC

from tagasc.audio.packed import PackedAudio
from tagasc.audio.store import AudioStore
from tagasc.audio.waveform import waveform
from tagasc.bundle.runner import Bundle
from tagasc.export.calibration import pair_decisions
from tagasc.scene.corpus import SceneClips
from tagasc.scene.inference import codes_and_logits
from tagasc.scene.network import SceneNetwork
from tagasc.tagger.inference import Ensemble
from tagasc.tagger.tags import TagScale, rescale
from tagasc.utils.errors import UserError

TOLERANCE = 1e-4  # of scores; of a code it is relative to the largest value
_LEAST_TAGGED, _TAGGED_WEIGHTS = 10, 20_000_000_000  # clips; weights × pads × clips
_CPU = torch.device("cpu")


def spaced(count: int, most: int) -> list[int]:
    """Return at most ``most`` of the numbers below ``count``, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int)).tolist()


def some_clips(packed: PackedAudio, numbers: Sequence[int]) -> PackedAudio:
    """Open a packed folder again with some of its clips."""
    fewer = PackedAudio(packed.folder)
    fewer.clips = [packed.clips[number] for number in numbers]
    return fewer


def tagged_clips(ensemble: Ensemble, clips: int) -> list[int]:
    """Choose the clips that both taggers tag: all of them, or ten if the tagger is large."""
    weights = sum(value.numel() for network in ensemble.networks for value in network.parameters())
    return spaced(clips, max(_LEAST_TAGGED, _TAGGED_WEIGHTS // (weights * len(ensemble.pads))))


def reference(
    packed: PackedAudio, network: SceneNetwork, scenes: list[str], tags: np.ndarray | None, scale: TagScale
) -> np.ndarray:
    """Compute the codes of clips with PyTorch in float32 on the CPU, (clips, code size)."""
    clips = SceneClips([AudioStore(packed, _CPU)], scenes)
    clips = clips.tagged(None if tags is None else rescale(tags, scale))
    return codes_and_logits(network, clips)[0]


def reference_tags(packed: PackedAudio, ensemble: Ensemble) -> np.ndarray:
    """Compute the tags of clips with PyTorch in float32 on the CPU, (clips, events)."""
    return ensemble.tag_scenes(packed, _CPU)


def run_bundle(
    bundle: Bundle, packed: PackedAudio, tags: np.ndarray | None, own: Sequence[int], outputs: Sequence[str]
) -> dict[str, np.ndarray]:
    """Run a bundle on packed clips; it computes the tags of the clips ``own``, and is given those of the others."""
    parts = []
    for number, clip in enumerate(packed.clips):
        packed.compare(number)
        samples = torch.from_numpy(np.array(packed.samples[clip.start : clip.start + clip.frames]))
        wave = waveform(samples).numpy()[None]
        parts.append(
            bundle.run(wave, bundle.tags(wave, None if tags is None or number in own else tags[number]), outputs)
        )
    kept = [name for name, value in parts[0].items() if value is not None]
    return {name: np.concatenate([part[name] for part in parts]) for name in kept}


def compare(
    packed: PackedAudio, svm: SVC, codes: np.ndarray, tags: np.ndarray | None, found: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Compare what a bundle finds with scikit-learn on PyTorch's codes.

    Args:
        packed: the clips.
        svm: the SVM.
        codes: their codes by PyTorch.
        tags: their tags by PyTorch, or None.
        found: outputs of the bundle: scene, scores, pairs, code and tags.

    Returns:
        number of clips, of clips with the same scene, and the largest differences of tags, codes (relative) and scores.

    Raises:
        UserError: an answer differs, or scores differ by more than ``TOLERANCE``.
    """
    expected, answers = svm.predict(codes), svm.classes_[found["scene"]]
    different = np.flatnonzero(expected != answers)
    if len(different):
        first = different[0]
        raise UserError(
            f"the ONNX model and PyTorch with scikit-learn disagree on {len(different)} of {len(codes)} clips, first"
            f" {packed.clips[first].id}: {answers[first]}, not {expected[first]}; nothing was exported, report this"
        )
    pairs = pair_decisions(svm, codes)
    scores = svm.decision_function(codes) if len(svm.classes_) > 2 else pairs
    largest = {
        "scores": _largest(found["scores"] if len(svm.classes_) > 2 else found["pairs"], scores),
        "pair decisions": _largest(found["pairs"], pairs),
        "codes, relative": _largest(found["code"], codes) / float(np.abs(codes).max()),
    }
    if tags is not None and "tags" in found:
        largest["tags"] = _largest(found["tags"], tags)
    for name in ("pair decisions", "codes, relative"):  # scores jump where a decision changes its sign
        if not largest[name] <= TOLERANCE:
            raise UserError(
                f"the ONNX model's {name} differ from PyTorch and scikit-learn by {largest[name]:.2g}, more than"
                f" {TOLERANCE:g}; nothing was exported, report this fault"
            )
    return {"clips": len(codes), "equal_scenes": len(codes), "largest_difference": largest}


def _largest(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found.astype(np.float64) - expected).max())
