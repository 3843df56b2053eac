"""Clips shorter and longer than a tagger's window: nothing is cut off, and the rule is the same for every source."""

import numpy as np
import pytest
import torch

from tagasc.sources.windows import Windows
from tests.tagasc.sources.models import windows_of


@pytest.mark.parametrize("short", ["repeat", "pad"])
@pytest.mark.parametrize("length", [1, 7, 89, 90, 99, 100, 101, 199, 200, 201, 350])
def test_clips_become_windows(length, short):
    clips = np.random.default_rng(length).normal(size=(3, length))
    windows, count = Windows(100, 10, short).cut(torch.from_numpy(clips))
    expected = [window for clip in clips for window in windows_of(clip, 100, short)]
    np.testing.assert_array_equal(windows.numpy(), expected)
    assert count == len(expected) // 3


def test_every_sample_of_a_long_clip_is_heard():
    windows, count = Windows(100, 10).cut(torch.arange(357.0)[None])
    assert count == 4
    assert set(windows.flatten().tolist()) == set(range(357))


def test_a_tagger_of_any_length_gets_whole_clips():
    clips = torch.arange(12.0).reshape(2, 6)
    windows, count = Windows(None, 10).cut(clips)
    assert count == 1
    assert torch.equal(windows, clips)
    assert Windows(None, 10).describe()["window_seconds"] is None


def test_a_tagger_that_pads_itself_gets_short_clips_as_they_are_only_where_silence_is_due():
    windows = Windows(100, 10, padded_by_tagger=True)
    assert windows.cut(torch.ones(1, 95))[0].shape == (1, 95)
    assert windows.cut(torch.ones(1, 50))[0].shape == (1, 100)
    assert Windows(100, 10, "pad", padded_by_tagger=True).cut(torch.ones(1, 50))[0].shape == (1, 50)


@pytest.mark.parametrize(("long", "expected"), [("mean", [[2, 3], [6, 7]]), ("max", [[3, 4], [7, 8]])])
def test_the_values_of_windows_are_joined(long, expected):
    values = torch.tensor([[1.0, 4], [3, 2], [7, 6], [5, 8]])
    assert Windows(100, 10, long=long).join(values, 2).tolist() == expected


def test_what_is_done_has_a_name():
    windows = Windows(100, 10)
    assert [windows.treatment(n) for n in (20, 95, 100, 101)] == ["repeated", "padded", "whole", "windows"]
