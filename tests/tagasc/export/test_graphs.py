"""ONNX graphs against PyTorch and scikit-learn: every kind of fusion, trunk, kernel and tag scale."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.svm import SVC
from torch import nn

from tagasc.audio.packed import PackedAudio
from tagasc.backend.codes import Codes
from tagasc.export import graph as graphs
from tagasc.export.calibration import calibrate, pair_decisions
from tagasc.export.scene_graph import SceneSystem
from tagasc.export.tagger_graph import tagger_model
from tagasc.scene.network import SceneNetwork
from tagasc.scene.systems import read_systems
from tagasc.tagger.inference import Ensemble
from tagasc.tagger.tags import rescale
from tagasc.utils.errors import UserError
from tests.helpers import CLASSES, CPU, MEL, ROOT, TRUNKS, noise, packed, tiny

SYSTEMS = {name: system for table in read_systems(ROOT / "egs/systems.yaml").values() for name, system in table.items()}
CLIPS, FRAMES, EVENTS = 24, 700, 5


def network_of(name: str, trunk: str, scenes: int) -> SceneNetwork:
    """A network whose batch normalisation has seen something."""
    torch.manual_seed(0)
    network = SceneNetwork(TRUNKS[trunk], SYSTEMS[name], scenes, EVENTS, 2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    network.trunk.stem.weight.data /= 3000  # codes of ordinary size
    return network.eval()


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString())


def run(model, **inputs):
    opened = session(model)
    return dict(zip([output.name for output in opened.get_outputs()], opened.run(None, inputs), strict=True))


@pytest.mark.parametrize(
    ("name", "trunk", "kernel", "scale", "scenes"),
    [
        ("baseline", "table1", "rbf", "probability", 4),
        ("codecat", "table1", "sigmoid", "log", 3),
        ("codecat_fc", "released", "rbf", "logit", 4),
        ("beforecode_l3", "released", "linear", "probability", 2),
        ("att_h2_l2", "table1", "poly", "logit", 3),
        ("separate_h2_c3_a4", "table1", "rbf", "probability", 2),
        ("shared_h4_l0", "released", "sigmoid", "log", 5),
    ],
)
def test_the_graph_answers_as_torch_and_scikit_learn(name, trunk, kernel, scale, scenes):
    random, tags = np.random.default_rng(0), {}
    network = network_of(name, trunk, scenes)
    waves = random.uniform(-0.5, 0.5, (CLIPS, FRAMES, 2)).astype(np.float32)
    given = None
    if SYSTEMS[name].uses_tags:
        tags["tags"] = random.random((CLIPS, EVENTS), dtype=np.float32)
        given = torch.from_numpy(rescale(tags["tags"], scale))
    with torch.inference_mode():
        code = network(torch.from_numpy(waves), given)[0].numpy()
    truth = random.integers(0, scenes, CLIPS)
    svm = SVC(kernel=kernel).fit(code, truth)
    system = SceneSystem(network, svm, 2, FRAMES, EVENTS if tags else 0, scale)
    found = run(system.model(), waveform=waves, **tags)
    np.testing.assert_allclose(found["code"], code, rtol=0, atol=1e-5 * np.abs(code).max())
    assert (svm.classes_[found["scene"]] == svm.predict(code)).all()
    pairs = pair_decisions(svm, code)
    np.testing.assert_allclose(found["pairs"], pairs, rtol=1e-4, atol=1e-4)
    if scenes > 2:
        np.testing.assert_allclose(found["scores"], svm.decision_function(code), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, rtol=1e-5)
    if tags:
        head = run(system.head(), feature_map=found["feature_map"], **tags)
        np.testing.assert_allclose(head["pairs"], found["pairs"], rtol=1e-6, atol=1e-6)
    if SYSTEMS[name].heads:
        by_head = found["attention"].reshape(CLIPS, SYSTEMS[name].heads, -1)
        np.testing.assert_allclose(by_head.sum(axis=2), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("rate", "channels", "frames"), [(MEL.sampling_rate, 1, 9000), (16000, 2, 9001), (11025, 2, 777)]
)
def test_the_taggers_graph_tags_as_torch(tmp_path, rate, channels, frames):
    ensemble = Ensemble([tiny(0), tiny(1)], MEL, CLASSES, (0, 8))
    clips = PackedAudio(packed(tmp_path / "noise", noise(0, [frames] * 3, channels), rate))
    expected = ensemble.tag_scenes(clips, CPU)
    assert expected.std() > 0.01
    waves = np.array(clips.samples).reshape(3, frames, channels)
    model = tagger_model(ensemble, rate, channels, frames)
    np.testing.assert_allclose(run(model, waveform=waves)["tags"], expected, atol=1e-6)
    assert not {node.op_type for node in model.graph.node} & {"STFT", "DFT", "If", "Loop"}


def test_small_probabilities_keep_their_logarithm(tmp_path):
    """Systems with ``tag_scale: log`` take it; onnxruntime's own Sigmoid errs by 1e-7, here a thousandth."""
    network = tiny()
    network.curated[-1].bias.data -= 10
    ensemble = Ensemble([network], MEL, CLASSES)
    clips = PackedAudio(packed(tmp_path / "noise", noise(0, [8000] * 3, 1), MEL.sampling_rate))
    expected = ensemble.tag_scenes(clips, CPU)
    assert expected.max() < 1e-3
    waves = np.array(clips.samples).reshape(3, 8000, 1)
    found = run(tagger_model(ensemble, MEL.sampling_rate, 1, 8000), waveform=waves)["tags"]
    np.testing.assert_allclose(np.log(found), np.log(expected), atol=2e-5)


def test_a_clip_shorter_than_half_a_window_is_refused():
    with pytest.raises(UserError, match=r"shorter than half of the tagger's window \(n_fft: 512\)"):
        tagger_model(Ensemble([tiny()], MEL, CLASSES), MEL.sampling_rate, 1, 256)


def test_large_weights_are_kept_beside_the_graph(tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "MOST_BYTES", 1000)
    model = tagger_model(Ensemble([tiny()], MEL, CLASSES), 16000, 2, 8000)
    wave = np.random.default_rng(0).uniform(-1, 1, (1, 8000, 2)).astype(np.float32)
    expected = run(model, waveform=wave)["tags"]
    graphs.write_model(tmp_path / "tagger.onnx", model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tagger.onnx", "tagger.onnx.data"]
    again = onnxruntime.InferenceSession(tmp_path / "tagger.onnx").run(["tags"], {"waveform": wave})[0]
    assert (again == expected).all()


def test_probabilities_are_calibrated_on_validation():
    """Of clips whose two scenes overlap, the true share of a scene is about its mean probability."""
    random = np.random.default_rng(0)

    def draw(count: int) -> Codes:
        truth = random.integers(0, 3, count)
        codes = random.normal(size=(count, 4)).astype(np.float32) + 1.5 * np.eye(3, 4, dtype=np.float32)[truth]
        names = np.array(["a", "b", "c"])[truth]
        return Codes(names, codes, names, names, names)

    train, validation, test = draw(300), draw(600), draw(2000)
    svm = SVC(kernel="rbf").fit(train.codes, train.scenes)
    fitted = calibrate(svm, validation)
    assert fitted["loss"] < fitted["loss_by_chance"] == pytest.approx(np.log(3))
    network = network_of("baseline", "table1", 3)
    system = SceneSystem(network, svm, 2, FRAMES, 0, "probability", fitted["slope"])
    mean = pair_decisions(svm, test.codes) @ np.array([[1, -1, 0], [1, 0, -1], [0, 1, -1]]) / 2
    expected = np.exp(system.slope * mean) / np.exp(system.slope * mean).sum(axis=1, keepdims=True)
    sure = expected.max(axis=1)
    right = svm.classes_[expected.argmax(axis=1)] == test.scenes
    for low, high in ((0.34, 0.6), (0.6, 0.8), (0.8, 1.0)):
        inside = (sure >= low) & (sure < high)
        assert inside.sum() > 100
        assert abs(right[inside].mean() - sure[inside].mean()) < 0.08
