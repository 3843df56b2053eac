import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tagasc.audio.packed import PackedAudio
from tagasc.audio.store import AudioStore, JoinedStore
from tagasc.audio.waveform import preemphasis
from tagasc.utils.errors import UserError
from tests.helpers import CPU, write_packed


@given(length=st.integers(1, 30), start=st.integers(-60, 60), frames=st.integers(1, 50))
def test_windows_mirror_like_numpy(tmp_path_factory, length, start, frames):
    waves = [np.arange(100, 105), np.arange(length), np.arange(200, 203)]
    store = AudioStore(write_packed(tmp_path_factory.mktemp("packed") / "p", waves, np.float32), torch.device("cpu"))
    window = store.windows(torch.tensor([1]), torch.tensor([start]), frames)[0, :, 0]
    padding = 200
    mirrored = np.pad(np.arange(length), padding, mode="reflect" if length > 1 else "edge")
    assert window.tolist() == mirrored[padding + start : padding + start + frames].tolist()


def test_int16_samples_are_scaled_by_full_scale(tmp_path):
    store = AudioStore(write_packed(tmp_path / "p", [np.array([-32768, 0, 16384])]), torch.device("cpu"))
    assert store.windows(torch.tensor([0]), torch.tensor([0]), 3)[0, :, 0].tolist() == [-1.0, 0.0, 0.5]


def test_preemphasis_drops_the_first_sample_and_scales():
    wave = torch.randn(2, 480, 2)
    filtered = preemphasis(wave)
    assert filtered.shape == (2, 479, 2)
    expected = (wave[1, 5, 1] - 0.97 * wave[1, 4, 1]) * 32000
    torch.testing.assert_close(filtered[1, 4, 1], expected)


def test_an_index_that_does_not_fit_its_samples_is_an_error(tmp_path):
    write_packed(tmp_path / "p", [np.arange(5)])
    np.save(tmp_path / "p" / "audio.npy", np.zeros((4, 1), np.int16))
    with pytest.raises(UserError, match="does not fit"):
        PackedAudio(tmp_path / "p")


def test_damage_to_a_clip_is_noticed_when_it_is_first_read(tmp_path):
    packed = write_packed(tmp_path / "p", [np.arange(50), np.arange(70), np.arange(60)])
    with (tmp_path / "p/audio.npy").open("r+b") as file:
        file.seek(-61 * 2, os.SEEK_END)  # the last sample of the second clip
        file.write(b"\x12")
    store, first = AudioStore(packed, CPU), torch.zeros(1, dtype=torch.int64)
    for clip in (0, 2):
        store.windows(first + clip, first, 10)
    message = r"audio\.npy is damaged: clip clip1 differs from its checksum; delete .*/p and run stage 2 \(pack\) again"
    with pytest.raises(UserError, match=message):
        store.windows(first + 1, first, 10)  # far from the sample
    with pytest.raises(UserError, match=message):
        JoinedStore([store]).samples(first + 1, first, 10)
    with pytest.raises(UserError, match=message):
        packed.compare_all()


@pytest.mark.parametrize(
    "change",
    [
        {"start": -3},
        {"start": 4},
        {"frames": -5},
        {"frames": 10**30},
        {"frames": "5"},
        {"frames": None},
        {"labels": 3},
    ],
)
def test_an_index_with_impossible_clips_is_an_error(tmp_path, change):
    write_packed(tmp_path / "p", [np.arange(5)])
    index = json.loads((tmp_path / "p/index.json").read_text())
    index["clips"][0] |= change
    (tmp_path / "p/index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"is damaged.*run stage 2 \(pack\) again"):
        PackedAudio(tmp_path / "p")


def test_a_pickled_array_is_an_error(tmp_path):
    write_packed(tmp_path / "p", [np.arange(5)])
    np.save(tmp_path / "p" / "audio.npy", np.array([{"a": 1}] * 5).reshape(5, 1), allow_pickle=True)
    with pytest.raises(UserError, match="is damaged or incomplete"):
        PackedAudio(tmp_path / "p")


@pytest.mark.parametrize("change", [{"start": -5}, {"start": 1}, {"frames": 0}, {"frames": "5"}, {"start": None}])
def test_an_index_whose_clips_do_not_follow_one_another_is_an_error(tmp_path, change):
    write_packed(tmp_path / "p", [np.arange(5), np.arange(5)])
    index = json.loads((tmp_path / "p/index.json").read_text())
    index["clips"][0] |= change
    (tmp_path / "p/index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"p is damaged or incomplete .*; run stage 2 \(pack\) again"):
        PackedAudio(tmp_path / "p")
