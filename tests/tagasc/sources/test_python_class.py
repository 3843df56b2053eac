"""Classes of the user's own: what they must have, what they may have, and what goes wrong in them."""

import numpy as np
import pytest
import torch

from tagasc.audio.packed import PackedAudio
from tagasc.sources.source import SourceOptions, open_source
from tagasc.utils.errors import UserError
from tests.helpers import CPU, packed
from tests.tagasc.sources.models import CLASSES, RATE, wave_tags, waves, weights, windows_of

GOOD = """
import torch
from torch import nn


class Tiny:
    sampling_rate = 16000
    classes = ["Bell", "Dog", "Rain", "Tram"]
    window = {window}

    def __init__(self, device):
        from neighbour import WEIGHTS

        self.layer = nn.Linear(2, 4, bias=False).to(device)
        self.layer.weight.data = torch.tensor(WEIGHTS).T
        self.files = [__file__.replace("tiny.py", "neighbour.py")]

    def embedding(self, waves):
        return torch.stack([waves.abs().mean(dim=1), waves.square().mean(dim=1)], dim=1)

    def __call__(self, waves):
        assert waves.dtype == torch.float32
        return self.layer(self.embedding(waves)).sigmoid()
"""


@pytest.fixture
def clips(tmp_path):
    """Clips of 0.2, 1, 10 and 35 s."""
    return PackedAudio(packed(tmp_path / "clips", waves(), RATE))


def write(folder, window=None):
    (folder / "tiny.py").write_text(GOOD.format(window=window))
    (folder / "neighbour.py").write_text(f"WEIGHTS = {weights(2, scale=20.0).tolist()}\n")
    return f"py:{folder / 'tiny.py'}"


@pytest.mark.parametrize("window", [None, 10])
@pytest.mark.parametrize("name", ["", ":Tiny"])
def test_a_class_tags(clips, tmp_path, window, name):
    source = open_source(write(tmp_path, window) + name, CPU)
    expected = []
    for clip in clips.clips:
        wave = np.array(clips.samples[clip.start : clip.start + clip.frames, 0])
        expected.append(np.mean([wave_tags(part) for part in windows_of(wave, window and window * RATE)], axis=0))
    np.testing.assert_allclose(source.tags(clips), expected, atol=1e-4)
    record = source.record()
    assert (record["kind"], record["source"], record["classes"]) == ("Python class", "py:tiny.py:Tiny", 4)
    assert (record["parameters"], list(record["sha256"])) == (8, ["tiny.py", "neighbour.py"])
    assert list(source.input_hashes()) == ["tag source", "tag source neighbour.py"]


def test_the_embedding_of_a_class(clips, tmp_path):
    source = open_source(write(tmp_path), CPU, SourceOptions(take="embedding"))
    assert source.classes == ["value 1", "value 2"]
    means = [np.abs(clips.samples[c.start : c.start + c.frames]).mean() for c in clips.clips]
    np.testing.assert_allclose(source.tags(clips)[:, 0], means, rtol=1e-4)


def method(body, **changes):
    attributes = {"sampling_rate": 16000, "classes": CLASSES} | changes
    lines = [f"    {name} = {value!r}" for name, value in attributes.items() if value is not None]
    return "\n".join(["import torch", "class Mine:", *lines, "    def __call__(self, waves):", f"        {body}", ""])


BAD = {
    "no file": (None, r"mine.py is no Python file; give py:FILE.py"),
    "syntax": ("class Mine\n", r"mine.py, line 1: SyntaxError: "),
    "missing package": (
        "\nimport no_such_package\n",
        r"line 2: ModuleNotFoundError: No module named 'no_such_package'",
    ),
    "no class": ("x = 1\n", r"has the classes \(none\); name one"),
    "two classes": (method("pass") + method("pass").replace("Mine", "Other"), r"has the classes Mine, Other; name one"),
    "raises at once": (
        method("pass") + "    def __init__(self):\n        raise OSError('no weights')\n",
        r"line 8: OSError: no weights; fix the class",
    ),
    "raises when called": (method("raise KeyError('mel')"), r"mine.py, line 6: KeyError: 'mel'; fix the class"),
    "no rate": (method("pass", sampling_rate=None), r"sampling_rate must be a number, 1000 or more, not None"),
    "rate in kHz": (method("pass", sampling_rate=16), r"sampling_rate must be a number, 1000 or more, not 16"),
    "no classes": (method("pass", classes=None), r"AttributeError: .*classes"),
    "one class": (method("pass", classes=["a"]), r"at least two distinct names, but found 1"),
    "duplicate class": (method("pass", classes=["a", "b", "a"]), r"'a' is listed twice"),
    "window in text": (method("pass", window="10 s"), r"window must be a number"),
    "nothing returned": (method("pass"), r"py:mine.py:Mine cannot tag 2 s of sound"),
    "another shape": (method("return torch.zeros(4)"), r"returns \(4,\) for 1 windows and 4 classes; these must match"),
    "fewer classes": (method("return torch.zeros(len(waves), 3)"), r"returns \(1, 3\) for 1 windows and 4 classes"),
    "frames": (method("return torch.zeros(len(waves), 9, 4)"), r"returns \(1, 9, 4\) for 1 windows"),
    "not a number": (method("return torch.full((len(waves), 4), torch.nan)"), r"values that are not finite"),
    "logits": (method("return torch.full((len(waves), 4), -3.5)"), r"returns -3.5 to -3.5, which are no probabilities"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_one_clear_line(tmp_path, case):
    text, message = BAD[case]
    if text is not None:
        (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        open_source(f"py:{tmp_path / 'mine.py'}", CPU)
    assert "\n" not in str(caught.value)


def test_a_class_that_the_file_lacks_is_named(tmp_path):
    with pytest.raises(UserError, match=r"tiny.py has the classes Tiny; name one: py:tiny.py:CLASS"):
        open_source(write(tmp_path) + ":Large", CPU)


def test_a_class_without_an_embedding_has_none(tmp_path):
    (tmp_path / "mine.py").write_text(method("return torch.zeros(len(waves), 4)"))
    with pytest.raises(UserError, match=r"Mine has no method embedding\(waves\); add it, or take probability"):
        open_source(f"py:{tmp_path / 'mine.py'}", CPU, SourceOptions(take="embedding"))


def test_a_class_may_change_the_waves_that_it_gets(clips, tmp_path):
    (tmp_path / "mine.py").write_text(method("return waves.mul_(0).sum(dim=1, keepdim=True).repeat(1, 4)"))
    source = open_source(f"py:{tmp_path / 'mine.py'}", CPU)
    assert source.tags(clips).max() == 0
    assert torch.from_numpy(np.array(clips.samples)).abs().max() > 0


def test_windows_are_tagged_in_smaller_batches_where_memory_is_full(clips, tmp_path, monkeypatch):
    full = "if len(waves) > 2: raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')"
    text = method(full, window=1) + "        return waves.abs().mean(dim=1, keepdim=True).repeat(1, 4)\n"
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.setattr("tagasc.training.ladder._that_fit", {})
    expected = []
    for clip in clips.clips:
        parts = windows_of(np.array(clips.samples[clip.start : clip.start + clip.frames, 0]), RATE)
        expected.append(np.mean([np.abs(part).mean() for part in parts]))
    tags = open_source(f"py:{tmp_path / 'mine.py'}", CPU).tags(clips)
    np.testing.assert_allclose(tags[:, 0], expected, rtol=1e-4)


def test_an_embedding_must_have_one_size_for_clips_of_any_length(clips, tmp_path):
    text = method("pass") + "    def embedding(self, waves):\n        return waves[:, ::1000]\n"
    (tmp_path / "mine.py").write_text(text)
    source = open_source(f"py:{tmp_path / 'mine.py'}", CPU, SourceOptions(take="embedding"))
    with pytest.raises(UserError, match=r"returns \(1, 4\) for 1 windows and 32 values; these must match"):
        source.tags(clips)
