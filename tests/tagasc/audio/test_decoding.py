import struct

import numpy as np
import pytest
import soundfile

from tagasc.audio.decoding import open_audio, skip
from tagasc.utils.errors import UserError

RATE, FRAMES = 16000, 24000


def read(path, first=0):
    """Length, and all samples from ``first`` on."""
    with open_audio(path) as (file, frames):
        skip(file, first)
        return frames, file.read(frames - first)


@pytest.fixture(scope="module")
def mp3(tmp_path_factory):
    """An MP3 of variable bit rate: near silence, then noise in its last third."""
    path = tmp_path_factory.mktemp("mp3") / "whole.mp3"
    wave = np.random.default_rng(0).normal(size=FRAMES) * np.where(np.arange(FRAMES) < 16000, 0.001, 0.2)
    soundfile.write(path, wave, RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    return path


@pytest.mark.parametrize("claimed", [0, 9, 300])
@pytest.mark.parametrize("id3", [b"", b"ID3\x03\0\0\0\0\x20\0" + bytes(4096)], ids=["bare", "with ID3"])
def test_an_mp3_is_read_to_its_end_whatever_its_tag_claims(mp3, tmp_path, claimed, id3):
    content = mp3.read_bytes()
    at = content.index(b"Xing") + 8
    path = tmp_path / "a.mp3"
    path.write_bytes(id3 + content[:at] + struct.pack(">I", claimed) + content[at + 4 :])
    assert abs(soundfile.info(path).frames - FRAMES) > 4 * 576
    frames, wave = read(path)
    assert len(wave) == frames
    assert FRAMES <= frames <= FRAMES + 4 * 576
    assert np.std(wave[FRAMES - 6000 : FRAMES]) > 0.1
    assert (read(path, 20000)[1] == wave[20000:]).all()


def test_an_mp3_with_a_true_tag_has_the_length_of_its_sound(mp3):
    frames, wave = read(mp3)
    assert frames == len(wave) == FRAMES


def test_a_flac_of_unknown_length_is_an_error(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.zeros(5000), RATE)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)  # samples in all: unknown
    (tmp_path / "a.flac").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.flac does not say how long it is; write it again"):
        read(tmp_path / "a.flac")
