"""The check of a tagger says in words what is wrong; a sound tagger passes."""

import re

import pytest

from tests.helpers import run, succeed
from tests.tagasc.sources.models import feature_model, wave_model, write_sidecar

pytestmark = pytest.mark.usefixtures("one_thread")
CLASS = """
import torch


class Mine:
    sampling_rate = 4000
    classes = {classes}
    calls = 0

    def __call__(self, waves):
        self.calls += 1
        level = waves.square().mean(dim=1, keepdim=True).sqrt()
        tags = torch.cat([level.tanh(), 1 / (1 + 50 * level), level.mul(3).sigmoid(), level * 0 + 0.2], dim=1)
        return {tags}
"""
CLASSES = ["Noise", "Silence", "Rain", "Tram"]
PROBLEMS = {
    "tags * 0": "noise and silence get the same tags",
    "tags.roll(1, dims=1)": "on silence it hears .* Silence is not among the highest twentieth",
    "tags * (1 - 0.1 * torch.arange(len(tags))[:, None])": "the same sound twice in a batch gets different tags",
    "(tags - tags.mean(dim=0) / 2).clamp(0, 1)": "a sound gets other tags in a batch than alone: it is not in evaluation mode",
    "tags * (1 - 0.05 * (self.calls % 7))": "a sound gets other tags after another sound: a state leaks",
    "tags if waves.shape[1] < 50000 else tags / 0": "not finite",
    "tags if waves.shape[1] < 50000 else tags + 1": "are no probabilities",
    "tags if waves.shape[1] < 50000 else tags[:, :2]": r"returns \(1, 2\) for 1 windows and 4 classes",
}


def write(folder, tags="tags", classes=CLASSES):
    (folder / "mine.py").write_text(CLASS.format(classes=classes, tags=tags))
    return "steps/check_tagger.py", "--tags-from", f"py:{folder / 'mine.py'}", "--device", "cpu"


def test_a_sound_tagger_passes(tmp_path):
    said = succeed(*write(tmp_path))
    for words in (
        "4 classes, first Noise, Silence, Rain; last Tram: compare their order",
        "silence: Silence 1.00",
        "gets the same tags in a batch and alone",
        "sounds of 1 s and 25 s: 2 whole",
        "nothing wrong was found",
    ):
        assert words in said


@pytest.mark.parametrize("tags", PROBLEMS)
def test_what_is_wrong_is_said_in_words(tmp_path, tags):
    outcome = run(*write(tmp_path, tags))
    assert outcome.status == 1
    assert re.search(PROBLEMS[tags], outcome.error), outcome.said
    assert "\n" not in outcome.error


def test_a_softmax_is_mentioned(tmp_path):
    assert "(a softmax)" in succeed(*write(tmp_path, "tags / tags.sum(dim=1, keepdim=True)"))


@pytest.mark.parametrize("form", ["waveform", "mel64db"])
def test_an_onnx_tagger_is_checked(tmp_path, form):
    if form == "waveform":
        path = wave_model(tmp_path / "model.onnx", ["N", "S"])
    else:
        path = feature_model(tmp_path / "model.onnx", ["N", 64, "T"], 64, scale=0.05)
    write_sidecar(path, input=form, window=2)
    said = succeed("steps/check_tagger.py", "--tags-from", f"onnx:{path}", "--device", "cpu")
    assert "1 repeated, 1 windows" in said


def test_tags_are_no_tagger(tmp_path):
    assert "holds tags and is no tagger" in run("steps/check_tagger.py", "--tags-from", tmp_path / "x.npz").error
