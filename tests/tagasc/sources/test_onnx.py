"""ONNX taggers in every input form, against NumPy; as published by sherpa-onnx; our own bundle's; and what goes wrong."""

import pickle
import sys

import numpy as np
import pytest
import torch
from onnx import TensorProto

from tagasc.audio.packed import PackedAudio
from tagasc.bundle.schema import NAME as BUNDLE
from tagasc.export.graph import write_model as write_graph
from tagasc.export.tagger_graph import tagger_model
from tagasc.sources import features
from tagasc.sources.source import SourceOptions, open_source
from tagasc.tagger.inference import Ensemble
from tagasc.utils.errors import UserError
from tagasc.utils.files import digest_bytes, write_json
from tests.helpers import CPU, MEL, noise, packed, tiny
from tests.tagasc.sources.models import (
    CLASSES,
    RATE,
    feature_model,
    feature_tags,
    sigmoid,
    wave_model,
    wave_tags,
    waves,
    windows_of,
    write_labels,
    write_model,
    write_sidecar,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips of 0.2, 1, 10 and 35 s."""
    return PackedAudio(packed(tmp_path_factory.mktemp("clips") / "clips", waves(), RATE))


def samples_of(clips):
    return [np.array(clips.samples[c.start : c.start + c.frames, 0]) for c in clips.clips]


def expected_tags(clips, window, tag, short="repeat", join=np.mean):
    return [join([tag(part) for part in windows_of(wave, window, short)], axis=0) for wave in samples_of(clips)]


WAVEFORMS = {"(N, S)": ["N", "S"], "(N, 1, S)": ["N", 1, "S"], "(N, S, 2)": ["N", "S", 2], "(1, S)": [1, "S"]}


@pytest.mark.parametrize("form", WAVEFORMS)
@pytest.mark.parametrize(
    ("window", "short", "long"), [(None, "repeat", "mean"), (10, "repeat", "max"), (2.5, "pad", "mean")]
)
def test_a_tagger_of_waveforms(clips, tmp_path, form, window, short, long):
    path = wave_model(tmp_path / "model.onnx", WAVEFORMS[form])
    write_sidecar(path, input="waveform", window=window)
    source = open_source(f"onnx:{path}", CPU, SourceOptions(short=short, long=long))
    expected = expected_tags(
        clips, window and round(window * RATE), wave_tags, short, np.max if long == "max" else np.mean
    )
    np.testing.assert_allclose(source.tags(clips), expected, atol=5e-5)
    assert np.ptp(expected, axis=0).min() > 0.05
    assert source.classes == CLASSES


def test_a_tagger_of_single_waveforms_of_one_length(clips, tmp_path):
    path = wave_model(tmp_path / "model.onnx", [RATE], batched=False)
    write_sidecar(path, input="waveform")
    source = open_source(f"onnx:{path}", CPU)
    assert source.record()["window_seconds"] == 1
    np.testing.assert_allclose(source.tags(clips), expected_tags(clips, RATE, wave_tags), atol=1e-5)


LOG_MEL = {"n_fft": 400, "hop": 160, "mels": 40, "low": 20, "high": 7600}
FORMS = {
    "kaldi_fbank80": (["N", 80, "T"], features.kaldi_fbank80),
    "mel64db": (["N", "T", 64], features.mel64db),
    "log_mel": (["N", 1, "T", 40], features.log_mel(features.LogMel(**LOG_MEL), RATE, CPU)),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_tagger_of_features(clips, tmp_path, name):
    """The features themselves are tested in test_features.py."""
    shape, compute = FORMS[name]
    bands = next(axis for axis in shape if isinstance(axis, int) and axis > 1)
    path = feature_model(tmp_path / "model.onnx", shape, bands, scale=0.05)
    write_sidecar(path, input=name, window=2, log_mel=LOG_MEL if name == "log_mel" else None)
    tag = lambda wave: feature_tags(compute(torch.from_numpy(wave).float()[None])[0].numpy(), 0.05)
    expected = expected_tags(clips, 2 * RATE, tag)
    assert np.ptp(expected, axis=0).min() > 1e-3
    np.testing.assert_allclose(open_source(f"onnx:{path}", CPU).tags(clips), expected, atol=5e-5)


def ced(folder, name="model.onnx", **options):
    write_labels(folder / "class_labels_indices.csv")
    return feature_model(folder / name, ["N", 64, "T"], 64, scale=0.02, model_type="CED", **options)


def zipformer(folder, name="model.onnx", **options):
    """Its output is named logits and holds probabilities."""
    write_labels(folder / "class_labels_indices.csv")
    shape, metadata = ["N", "T", 80], {"model_type": "zipformer2", "comment": "zipformer2 audio tagger"}
    return feature_model(folder / name, shape, 80, lengths=True, output="logits", scale=0.05, **metadata, **options)


@pytest.mark.parametrize(
    ("make", "compute", "scale"), [(ced, features.mel64db, 0.02), (zipformer, features.kaldi_fbank80, 0.05)]
)
def test_a_folder_as_sherpa_onnx_publishes_it(clips, tmp_path, make, compute, scale):
    make(tmp_path / "published")
    source = open_source(f"onnx:{tmp_path / 'published'}", CPU)
    tag = lambda wave: feature_tags(compute(torch.from_numpy(wave).float()[None])[0].numpy(), scale)
    expected = expected_tags(clips, 10 * RATE, tag)
    assert np.ptp(expected, axis=0).min() > 1e-3
    np.testing.assert_allclose(source.tags(clips), expected, atol=5e-5)
    record = source.record()
    assert (record["window_seconds"], record["activation"], record["sampling_rate"]) == (10, "none", 16000)
    assert list(record["sha256"]) == ["model.onnx", "class_labels_indices.csv"]
    assert record["parameters"] == len(compute(torch.zeros(1, RATE))[0]) * 4
    assert source.lengths(clips) == {"repeated": 2, "whole": 1, "windows": 1}


def test_a_float_model_is_preferred_to_a_quantised_one(tmp_path):
    for name in ("model.int8.onnx", "model.onnx"):
        ced(tmp_path, name)
        assert next(iter(open_source(f"onnx:{tmp_path}", CPU).hashes)) == name


def test_a_sidecar_takes_precedence_over_what_the_file_says(tmp_path):
    write_sidecar(ced(tmp_path), input="mel64db", window=3, classes="mine.txt")
    (tmp_path / "mine.txt").write_text("a\nb\n\nc\nd\n")
    source = open_source(f"onnx:{tmp_path}", CPU)
    assert (source.classes, source.record()["window_seconds"]) == (["a", "b", "c", "d"], 3)
    assert list(source.hashes) == ["model.onnx", "model.yaml", "mine.txt"]


@pytest.mark.parametrize(("make", "name", "scale"), [(ced, "ced", 1), (zipformer, "zipformer", 1)])
def test_features_agree_with_those_of_sherpa_onnx(tmp_path, make, name, scale):
    """A model that returns its input shows what sherpa-onnx puts in."""
    sherpa = pytest.importorskip("sherpa_onnx")
    bands, frames = (64, 50) if name == "ced" else (80, 50)
    classes = [f"value {n}" for n in range(bands * frames)]
    write_labels(tmp_path / "class_labels_indices.csv", classes)
    shape, kind = (["N", 64, "T"], "CED") if name == "ced" else (["N", "T", 80], "zipformer2")
    inputs = [("feats", TensorProto.FLOAT, shape)] + ([] if name == "ced" else [("x_lens", TensorProto.INT64, ["N"])])
    constants = {"start": np.array([0]), "end": np.array([frames]), "axis": np.array([2 if name == "ced" else 1])}
    constants["flat"] = np.array([-1, bands * frames])
    nodes = [
        ("Slice", ["feats", "start", "end", "axis"], ["cut"], {}),
        ("Reshape", ["cut", "flat"], ["prob"], {}),
    ]
    path = write_model(
        tmp_path / "model.onnx", inputs, nodes, [("prob", ["N", bands * frames])], constants, model_type=kind
    )
    wave = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    wave[: RATE // 4] = 0
    if name == "ced":
        model = sherpa.AudioTaggingModelConfig(ced=str(path))
    else:
        zipformer_config = sherpa.OfflineZipformerAudioTaggingModelConfig(model=str(path))
        model = sherpa.AudioTaggingModelConfig(zipformer=zipformer_config)
    config = sherpa.AudioTaggingConfig(
        model=model, labels=str(tmp_path / "class_labels_indices.csv"), top_k=len(classes)
    )
    tagger = sherpa.AudioTagging(config)
    stream = tagger.create_stream()
    stream.accept_waveform(RATE, wave)
    theirs = np.zeros(len(classes))
    for event in tagger.compute(stream, top_k=len(classes)):
        theirs[event.index] = event.prob
    compute = features.mel64db if name == "ced" else features.kaldi_fbank80
    ours = compute(torch.from_numpy(wave)[None])[0, :, :frames].numpy()
    theirs = theirs.reshape(bands, frames) if name == "ced" else theirs.reshape(frames, bands).T
    assert np.ptp(ours) > 5
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_the_recipes_own_tagger_as_onnx_tags_as_the_tagger_itself(tmp_path):
    """By a sidecar, and as a bundle, whose description says what the sidecar would."""
    own = Ensemble([tiny(0, 4), tiny(1, 4)], MEL, CLASSES, (0, 8))
    clips = PackedAudio(packed(tmp_path / "clips", noise(0, [9000, 9000, 9000, 20000], 2), RATE))
    expected = own.tag_scenes(clips, CPU)
    model = tagger_model(own, RATE, 2, 9000)
    for name in ("sidecar", "bundle"):
        (tmp_path / name).mkdir()
        write_graph(tmp_path / name / "tagger.onnx", model)
    write_sidecar(tmp_path / "sidecar/tagger.onnx", input="waveform", output="tags")
    write_bundle(tmp_path / "bundle", RATE, CLASSES)
    wave_model(tmp_path / "bundle/model.onnx", ["N", "S"])  # the scene network, which must not be taken
    for name in ("sidecar", "bundle", "bundle/tagger.onnx"):
        source = open_source(f"onnx:{tmp_path / name}", CPU)
        assert source.classes == CLASSES
        np.testing.assert_allclose(source.tags(clips), expected, atol=1e-4)


def write_bundle(folder, rate, events):
    """Write the least that a bundle's description must hold."""
    text, whole = "x", 1
    about = {"format": 1, "system": text, "seed": whole, "fusion": {}, "scenes": [], "events": events}
    about["audio"] = {"sampling_rate": rate, "channels": 2, "frames": rate, "seconds": 1.0, "sample_format": "int16"}
    about["audio"]["conversions"] = []
    about["tagger"] = {"kind": "own", "source": text}
    about["network"] = {"parameters": whole, "multiply_accumulates": whole}
    about["svm"] = {"kernel": text, "C": 1.0, "support_vectors": whole}
    about["probabilities"] = {"method": text, "slope": 1.0, "clips": whole}
    about["parity"] = {"clips": 1, "split": text, "equal_scenes": 1, "largest_difference": {}, "recipe": text}
    about["accuracy"] = {"test": 1.0, "clips": 1, "interval_95": None, "by_scene": {}}
    about["data"] = {"scenes": text, "events": text, "note": text, "licences": []}
    about["made"] = {"commit": text, "date": text, "commands": [], "versions": {}}
    about |= {"limits": [], "citation": text, "example": {"file": text, "scene": text, "probabilities": []}}
    about["files"] = {"tagger.onnx": digest_bytes(folder / "tagger.onnx")}
    write_json(folder / BUNDLE, about)


def test_the_tags_of_a_quantised_model_do_not_depend_on_the_batch(tmp_path):
    """Its activations are scaled by the largest value in the batch."""
    quantisation = pytest.importorskip("onnxruntime.quantization")
    path = wave_model(tmp_path / "float/model.onnx", ["N", "S"])
    quantised = tmp_path / "model.onnx"
    quantisation.quantize_dynamic(path, quantised, weight_type=quantisation.QuantType.QInt8)
    write_sidecar(quantised, input="waveform")
    loud, quiet = (np.random.default_rng(n).normal(0, level, (RATE, 1)) for n, level in enumerate((0.5, 0.02)))
    both = PackedAudio(packed(tmp_path / "both", [loud, quiet], RATE))
    alone = PackedAudio(packed(tmp_path / "alone", [quiet], RATE))
    source = open_source(f"onnx:{quantised}", CPU)
    assert source.batch == 1
    tags = source.tags(alone)[0]
    np.testing.assert_array_equal(source.tags(both)[1], tags)
    source.batch = 2
    assert np.abs(source.tags(both)[1] - tags).max() > 1e-3


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_logits_get_their_activation(clips, tmp_path, activation):
    path = feature_model(tmp_path / "model.onnx", ["N", 64, "T"], 64, activation=False, scale=0.05)
    write_sidecar(path, input="mel64db", window=1, activation=activation)
    turn = sigmoid if activation == "sigmoid" else lambda value: np.exp(value) / np.exp(value).sum()
    tag = lambda wave: turn(
        features.mel64db(torch.from_numpy(wave).float()[None])[0].numpy().mean(axis=1)
        @ np.random.default_rng(64).normal(size=(64, 4))
        * 0.05
    )
    np.testing.assert_allclose(open_source(f"onnx:{path}", CPU).tags(clips), expected_tags(clips, RATE, tag), atol=1e-4)


def test_an_embedding_is_an_output_that_the_sidecar_names(clips, tmp_path):
    path = ced(tmp_path)
    with pytest.raises(
        UserError, match=r"no known embedding; name one of its outputs in .*model.yaml \(embedding: NAME\)"
    ):
        open_source(f"onnx:{path}", CPU, SourceOptions(take="embedding"))
    write_sidecar(path, input="mel64db", window=10, embedding="pooled")
    source = open_source(f"onnx:{path}", CPU, SourceOptions(take="embedding"))
    assert source.classes == [f"value {n + 1}" for n in range(64)]
    mean = lambda wave: features.mel64db(torch.from_numpy(wave).float()[None])[0].numpy().mean(axis=1)
    expected = expected_tags(clips, 10 * RATE, mean)
    np.testing.assert_allclose(source.tags(clips), expected, atol=1e-3)
    assert np.min(expected) < 0
    record = source.record()
    assert (record["take"], record["classes"], record["activation"]) == ("embedding", 64, "none")


def model_of_nan(path):
    constants = {"zero": np.zeros(4, np.float32), "axes": np.array([1])}
    nodes = [
        ("ReduceMean", ["wave", "axes"], ["mean"], {"keepdims": 1}),
        ("Mul", ["mean", "zero"], ["row"], {}),
        ("Div", ["row", "row"], ["prob"], {}),
    ]
    return write_model(path, [("wave", TensorProto.FLOAT, ["N", "S"])], nodes, [("prob", ["N", 4])], constants)


def quit_with(path, make=wave_model, shape=("N", "S"), **settings):
    make(path, *(() if make is model_of_nan else (list(shape),)))
    write_sidecar(path, **{"input": "waveform"} | settings)


BAD = {
    "no file": ("does not exist; check the path", lambda p: None),
    "no sidecar": (
        "model.onnx has no description: write .*model.yaml with its sampling_rate, input, activation and classes",
        lambda p: wave_model(p, ["N", "S"]),
    ),
    "no classes": ("model.yaml: .*classes", lambda p: quit_with(p, classes=None)),
    "unknown setting": ("model.yaml: there is no setting 'rate'", lambda p: quit_with(p, rate=16000)),
    "unknown input": ("model.yaml: .*mel128", lambda p: quit_with(p, input="mel128")),
    "rate in kHz": ("sampling_rate: 16 must be in Hz", lambda p: quit_with(p, sampling_rate=16)),
    "wrong rate": ("mel64db is of 16000 Hz, not 44100", lambda p: quit_with(p, input="mel64db", sampling_rate=44100)),
    "rate against the file": (
        "takes 16000 samples, 2 s at 8000 Hz, not a window of 1 s; fix sampling_rate or window",
        lambda p: quit_with(p, shape=["N", 16000], sampling_rate=8000, window=1),
    ),
    "log_mel not described": ("log_mel: describe it", lambda p: quit_with(p, input="log_mel")),
    "fewer classes": (r"returns \(1, 4\) for 1 windows and 3 classes", lambda p: quit_with(p, classes=CLASSES[:3])),
    "duplicate class": (
        "at least two distinct names, but 'Bell' is listed twice",
        lambda p: quit_with(p, classes=["Bell", "Dog", "Bell", "Tram"]),
    ),
    "no file of classes": (
        "names.txt with the names of the classes does not exist; name it in",
        lambda p: quit_with(p, classes="names.txt"),
    ),
    "no such output": (
        "has the outputs prob, logits, not tags; name one in .*model.yaml",
        lambda p: quit_with(p, output="tags"),
    ),
    "several outputs": ("has the outputs prob, logits, several; name one", lambda p: quit_with(p, output=None)),
    "logits for probabilities": (
        "returns .* to .*, which are no probabilities; set activation: sigmoid or softmax in",
        lambda p: quit_with(p, output="logits"),
    ),
    "not a number": ("values that are not finite", lambda p: quit_with(p, make=model_of_nan)),
    "another shape": (
        r"takes wave \('N', 2, 'S'\) of tensor\(float\), but a waveform is",
        lambda p: quit_with(p, shape=["N", 2, "S"]),
    ),
    "features for a waveform": (
        r"takes wave \('N', 'S'\) of tensor\(float\), but mel64db is \(N, 64, T\)",
        lambda p: quit_with(p, input="mel64db"),
    ),
    "other bands": (
        r"but mel64db is \(N, 64, T\)",
        lambda p: quit_with(p, make=lambda p, s: feature_model(p, ["N", 80, "T"], 80), input="mel64db"),
    ),
    "free bands": (
        "the order of the axes cannot be told; write layout:",
        lambda p: quit_with(p, shape=["N", "B", "T"], input="mel64db"),
    ),
    "other frames": (
        r"its input takes \(64, 998\), but mel64db has \(64, 100\); fix window",
        lambda p: quit_with(p, make=lambda p, s: feature_model(p, ["N", 64, 998], 64), input="mel64db", window=1),
    ),
    "fixed batch": ("free batch size, or with 1", lambda p: quit_with(p, shape=[8, "S"])),
    "pickle": ("model.onnx is not an ONNX file", lambda p: p.write_bytes(pickle.dumps({"weights": [1.0]}))),
    "empty": ("model.onnx is not an ONNX file", lambda p: p.write_bytes(b"")),
    "not YAML": (
        "model.yaml is not valid YAML",
        lambda p: (wave_model(p, ["N", "S"]), p.with_suffix(".yaml").write_text("a: [")),
    ),
    "no table of classes": (
        "class_labels_indices.csv with the names of the classes does not exist; take the whole folder",
        lambda p: (ced(p.parent), (p.parent / "class_labels_indices.csv").unlink()),
    ),
    "classes out of order": (
        "its index must count 0, 1, 2",
        lambda p: (
            ced(p.parent),
            (p.parent / "class_labels_indices.csv").write_text("index,mid,display_name\n1,/m/1,a\n0,/m/0,b\n"),
        ),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_one_clear_line(tmp_path, case):
    message, make = BAD[case]
    make(tmp_path / "model.onnx")
    with pytest.raises(UserError, match=message) as caught:
        open_source(f"onnx:{tmp_path / 'model.onnx'}", CPU)
    assert "\n" not in str(caught.value)


def test_a_folder_of_several_models_is_refused(tmp_path):
    for name in ("a.onnx", "b.onnx"):
        wave_model(tmp_path / name, ["N", "S"])
    with pytest.raises(UserError, match=r"holds a.onnx, b.onnx; give the path of the model"):
        open_source(f"onnx:{tmp_path}", CPU)


def test_options_of_other_sources_are_refused(tmp_path):
    quit_with(tmp_path / "model.onnx")
    with pytest.raises(UserError, match=r"--activation does not go with onnx:model.onnx: its sidecar says so"):
        open_source(f"onnx:{tmp_path / 'model.onnx'}", CPU, SourceOptions(activation="sigmoid"))


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_an_error_says_how_to_install_the_packages(tmp_path, monkeypatch, package):
    quit_with(tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match="needs the packages onnx and onnxruntime; pip install -c"):
        open_source(f"onnx:{tmp_path / 'model.onnx'}", CPU)


def test_weights_outside_the_models_folder_are_not_read(tmp_path):
    """What the file names is part of it, and its hash; a path that leads elsewhere is refused."""
    path = wave_model(tmp_path / "model/model.onnx", ["N", "S"])
    write_sidecar(path, input="waveform")
    import onnx

    (tmp_path / "secret").write_bytes(bytes(32))
    model = onnx.load(path)
    tensor = next(item for item in model.graph.initializer if item.name == "weights")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../secret"), ("offset", "0"), ("length", "32")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"model.onnx (cannot be run|names)"):
        open_source(f"onnx:{path}", CPU)
