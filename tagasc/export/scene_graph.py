"""Network and SVM as one ONNX graph, from waveform and tags to scene (sections 2.1 and 3).

``model`` is the whole system. ``head`` is the part behind the feature map, which explanations call with altered tags.
Network in float32, SVM in float64, as scikit-learn computes it.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from sklearn.svm import SVC

from tagasc.export.graph import Graph, array
from tagasc.export.svm import decisions, pair_matrices
from tagasc.scene.network import SceneNetwork, fold_batch_norm
from tagasc.scene.pooling import POOL
from tagasc.scene.trunk import STRIDE, Trunk
from tagasc.tagger.tags import TagScale

PREEMPHASIS, SCALE = 0.97, 32000.0  # of tagasc.audio.waveform.preemphasis


@dataclass(frozen=True)
class SceneSystem:
    """A trained system.

    Attributes:
        network: scene network.
        svm: SVM fitted on the network's codes.
        channels: audio channels.
        frames: length of a clip, sample frames.
        tags: length of the tag vector; 0: the system uses no tags.
        tag_scale: scale of the tags in the network.
        slope: temperature of the probabilities; see ``tagasc.export.calibration``.
    """

    network: SceneNetwork
    svm: SVC
    channels: int
    frames: int
    tags: int
    tag_scale: TagScale
    slope: float = 1.0

    def model(self) -> onnx.ModelProto:
        """Return the graph from ``waveform``, (batch, frames, channels) in -1..1, and ``tags``, (batch, c) in 0..1."""
        graph, network = Graph(), fold_batch_norm(self.network)
        feature_map = _trunk(graph, network.trunk, self.frames, self.channels)
        outputs = self._classify(graph, network, feature_map)
        graph.rename(feature_map, "feature_map")
        outputs["feature_map"] = (np.float32, ("batch", network.trunk.blocks[-1].conv2.out_channels, "time"))
        inputs = {"waveform": ("batch", self.frames, self.channels)}
        return graph.model(inputs | ({"tags": ("batch", self.tags)} if self.tags else {}), outputs)

    def head(self) -> onnx.ModelProto:
        """Return the graph from ``feature_map``, (batch, f, t), and ``tags``; for systems with tags."""
        graph, network = Graph(), fold_batch_norm(self.network)
        outputs = self._classify(graph, network, "feature_map")
        filters = network.trunk.blocks[-1].conv2.out_channels
        return graph.model({"feature_map": ("batch", filters, "time"), "tags": ("batch", self.tags)}, outputs)

    def _classify(self, graph: Graph, network: SceneNetwork, feature_map: str) -> dict:
        tags = _rescaled(graph, "tags", self.tag_scale) if self.tags else ""
        code, attention = _head(graph, network, feature_map, tags)
        graph.rename(code, "code")
        scenes = len(self.svm.classes_)
        outputs = {"code": (np.float32, ("batch", self.svm.support_vectors_.shape[1]))}
        if attention:
            graph.rename(attention, "attention")
            outputs["attention"] = (np.float32, ("batch", network.trunk.blocks[-1].conv2.out_channels))
        pairs = decisions(graph, self.svm, graph.cast(code, np.float64))
        positive = graph.cast(graph.add("Greater", pairs, graph.constant(0.0, np.float64)), np.float64)
        votes, margins = _vote(graph, scenes, pairs, positive)
        # Of equal votes scikit-learn takes the first scene.
        graph.rename(graph.add("ArgMax", votes, axis=1, keepdims=0), "scene")
        graph.rename(graph.cast(graph.add("Add", votes, _squashed(graph, margins, scenes)), np.float32), "scores")
        graph.rename(graph.cast(pairs, np.float32), "pairs")
        mean = graph.add("Mul", margins, graph.constant(self.slope / (scenes - 1), np.float64))
        graph.rename(graph.cast(graph.add("Softmax", mean, axis=1), np.float32), "probabilities")
        return outputs | {
            "scene": (np.int64, ("batch",)),
            "scores": (np.float32, ("batch", scenes)),
            "pairs": (np.float32, ("batch", scenes * (scenes - 1) // 2)),
            "probabilities": (np.float32, ("batch", scenes)),
        }


def _trunk(graph: Graph, trunk: Trunk, frames: int, channels: int) -> str:
    """Add the layers from wave to feature map M, (batch, f, t); batch normalisation is folded in."""
    whole = (frames - 1) // STRIDE * STRIDE
    now, before = (graph.slice("waveform", start, start + whole, 1) for start in (1, 0))
    before = graph.add("Mul", before, graph.constant(PREEMPHASIS))
    wave = graph.add("Mul", graph.add("Sub", now, before), graph.constant(SCALE))
    rows = graph.add("Reshape", wave, graph.integers(-1, whole // STRIDE, STRIDE * channels))
    x = graph.add("MatMul", rows, graph.constant(array(trunk.stem.weight).T))
    x = graph.add("Add", x, graph.constant(array(trunk.stem.bias)))
    x = graph.add("Unsqueeze", graph.add("Transpose", x, perm=[0, 2, 1]), graph.integers(2))
    x = graph.add("LeakyRelu", x, alpha=trunk.slope)
    for block in trunk.blocks:
        y = graph.add("LeakyRelu", graph.layers(x, block.conv1), alpha=block.slope)
        y = graph.add("Add", graph.layers(y, block.conv2), graph.layers(x, block.shortcut))
        y = graph.add("MaxPool", y, kernel_shape=[1, POOL], strides=[1, POOL])
        x = graph.add("LeakyRelu", y, alpha=block.slope)
    if trunk.extra is not None:
        x = graph.add("LeakyRelu", graph.layers(x, trunk.extra), alpha=trunk.slope)
    return graph.add("Squeeze", x, graph.integers(2))


def _head(graph: Graph, network: SceneNetwork, feature_map: str, tags: str) -> tuple[str, str]:
    """Add fusion, pooling and code layer; return the code and the attention map, empty without attention."""
    fusion, attention = network.fusion, ""
    transformed = graph.layers(tags, fusion.for_concat) if fusion.before_code or fusion.system.shared else ""
    if fusion.attend is not None:
        filters, heads = fusion.attend.projection.out_features, fusion.attend.heads
        own = transformed if fusion.system.shared else graph.layers(tags, fusion.for_attention)
        by_head = graph.layers(own, fusion.attend.projection)
        by_head = graph.add("Reshape", by_head, graph.integers(-1, heads, filters // heads))
        attention = graph.add("Softmax", by_head, axis=2)
        attention = graph.add("Reshape", attention, graph.integers(-1, filters))
        feature_map = graph.add("Mul", feature_map, graph.add("Unsqueeze", attention, graph.integers(2)))
    axis = graph.integers(2)
    pooled = [graph.add(kind, feature_map, axis, keepdims=0) for kind in ("ReduceMean", "ReduceMax")]
    if fusion.before_code:
        pooled.append(transformed)
    code = graph.layers(graph.concat(*pooled), network.code)
    if fusion.new_code is not None:
        code = graph.layers(graph.concat(code, tags), fusion.new_code)
    elif fusion.after_code:
        code = graph.concat(code, tags)
    return code, attention


def _rescaled(graph: Graph, tags: str, scale: TagScale) -> str:
    """Rescale tag probabilities, as ``tagasc.tagger.tags.rescale`` does."""
    if scale == "probability":
        return tags
    low, high = (graph.constant(value, np.float64) for value in (1e-6, 1 - 1e-6))
    p = graph.add("Clip", graph.cast(tags, np.float64), low, high)
    value = graph.add("Log", p)
    if scale == "logit":
        value = graph.add("Sub", value, graph.add("Log", graph.add("Sub", graph.constant(1.0, np.float64), p)))
    return graph.cast(value, np.float32)


def _vote(graph: Graph, scenes: int, pairs: str, positive: str) -> tuple[str, str]:
    """Count each scene's votes, and sum its decisions against the others; both float64 (batch, scenes)."""
    for_first, for_second = pair_matrices(scenes)
    won = graph.add("MatMul", positive, graph.constant(for_first - for_second, np.float64))
    votes = graph.add("Add", won, graph.constant(for_second.sum(axis=0), np.float64))
    return votes, graph.add("MatMul", pairs, graph.constant(for_first - for_second, np.float64))


def _squashed(graph: Graph, margins: str, scenes: int) -> str:
    """Bring sums of decisions into -1/3..1/3, where they decide between equal votes only, as scikit-learn does."""
    if scenes == 2:
        return graph.add("Mul", margins, graph.constant(0.0, np.float64))
    size = graph.add("Add", graph.add("Abs", margins), graph.constant(1.0, np.float64))
    return graph.add("Div", margins, graph.add("Mul", size, graph.constant(3.0, np.float64)))
