"""Tiny ONNX taggers in every input form, and what they compute, in NumPy."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

CLASSES = ["Bell", "Dog", "Rain", "Tram"]
SECONDS = (0.2, 1, 10, 35)
RATE = 16000


def weights(count, classes=len(CLASSES), scale=1.0):
    return (np.random.default_rng(count).normal(size=(count, classes)) * scale).astype(np.float32)


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


def write_model(path, inputs, nodes, outputs, constants=(), **metadata):
    """Write a model.

    Args:
        path: the file.
        inputs: (name, element type, shape) of each input.
        nodes: operator, inputs, outputs and attributes of each node.
        outputs: (name, shape) of each output, float32.
        constants: arrays by name.
        metadata: properties of the file.
    """
    graph = helper.make_graph(
        [helper.make_node(kind, given, found, **attributes) for kind, given, found, attributes in nodes],
        "tiny",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        [numpy_helper.from_array(value, name) for name, value in dict(constants).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def feature_model(path, shape, bands, activation=True, lengths=False, output="prob", scale=1.0, **metadata):
    """Write a tagger of features: their mean over frames, a linear layer, a sigmoid; also the means as ``pooled``."""
    axis = len(shape) - 1 - [shape[-1], shape[-2]].index(bands) if bands in shape else len(shape) - 2
    pooled = [n for n in range(1, len(shape)) if n != axis]
    inputs = [("feats", TensorProto.FLOAT, shape)]
    nodes = [("ReduceMean", ["feats", "axes"], ["pooled"], {"keepdims": 0})]
    if lengths:  # the sum over frames divided by the given lengths
        inputs.append(("x_lens", TensorProto.INT64, ["N"]))
        nodes = [
            ("ReduceSum", ["feats", "axes"], ["sum"], {"keepdims": 0}),
            ("Cast", ["x_lens"], ["count"], {"to": TensorProto.FLOAT}),
            ("Unsqueeze", ["count", "one"], ["column"], {}),
            ("Div", ["sum", "column"], ["pooled"], {}),
        ]
    nodes.append(("MatMul", ["pooled", "weights"], ["score" if activation else output], {}))
    if activation:
        nodes.append(("Sigmoid", ["score"], [output], {}))
    constants = {"weights": weights(bands, scale=scale), "axes": np.array(pooled), "one": np.array([1])}
    outputs = [(output, ["N", len(CLASSES)]), ("pooled", ["N", bands])]
    return write_model(path, inputs, nodes, outputs, constants, **metadata)


def wave_model(path, shape, batched=True, scale=20.0):
    """Write a tagger of waveforms: the mean of |x| and of x², a linear layer, a sigmoid."""
    axes = np.arange(1 if batched else 0, len(shape))
    nodes = [
        ("Abs", ["wave"], ["abs"], {}),
        ("Mul", ["wave", "wave"], ["square"], {}),
        ("ReduceMean", ["abs", "axes"], ["a"], {"keepdims": 0}),
        ("ReduceMean", ["square", "axes"], ["b"], {"keepdims": 0}),
        ("Unsqueeze", ["a", "last"], ["a1"], {}),
        ("Unsqueeze", ["b", "last"], ["b1"], {}),
        ("Concat", ["a1", "b1"], ["both"], {"axis": -1}),
        ("MatMul", ["both", "weights"], ["logits"], {}),
        ("Sigmoid", ["logits"], ["prob"], {}),
    ]
    constants = {"weights": weights(2, scale=scale), "axes": axes, "last": np.array([-1])}
    return write_model(path, [("wave", TensorProto.FLOAT, shape)], nodes, [("prob", None), ("logits", None)], constants)


def wave_tags(wave, scale=20.0):
    """Compute what ``wave_model`` does, for one window."""
    return sigmoid(np.array([np.abs(wave).mean(), np.square(wave).mean()]) @ weights(2, scale=scale))


def feature_tags(features, scale=1.0):
    """Compute what ``feature_model`` does, for the features (bands, frames) of one window."""
    return sigmoid(features.mean(axis=1) @ weights(len(features), scale=scale))


def windows_of(wave, samples, short="repeat"):
    """Cut one clip into windows, plainly; ``samples`` is None for any length."""
    if samples is None or len(wave) == samples:
        return [wave]
    if len(wave) > samples:
        starts = list(range(0, len(wave) - samples, samples)) + [len(wave) - samples]
        return [wave[start : start + samples] for start in starts]
    if short == "pad" or len(wave) >= 0.9 * samples:
        return [np.concatenate([wave, np.zeros(samples - len(wave))])]
    return [np.array([wave[n % len(wave)] for n in range(samples)])]


def waves(seconds=SECONDS, rate=RATE):
    """Noise of growing level, (samples, 1) each."""
    random = np.random.default_rng(0)
    levels = np.linspace(0.05, 0.3, len(seconds))
    return [random.normal(0, level, (round(s * rate), 1)) for s, level in zip(seconds, levels, strict=True)]


def write_sidecar(path, **settings):
    """Write the YAML beside a model."""
    import yaml

    settings = {"sampling_rate": RATE, "activation": "none", "classes": CLASSES, "output": "prob"} | settings
    path.with_suffix(".yaml").write_text(yaml.safe_dump({k: v for k, v in settings.items() if v is not None}))


def write_labels(path, names=CLASSES):
    """Write AudioSet's table of classes, as published with taggers."""
    lines = [f'{n},/m/{n},"{name}"' for n, name in enumerate(names)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["index,mid,display_name", *lines]) + "\n")
