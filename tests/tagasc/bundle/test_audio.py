"""From any sound to windows: rates, channels, lengths, formats; the resampler against sines."""

import numpy as np
import pytest
import soundfile

from tagasc.bundle.audio import Contract, array_sound, open_sound, windows
from tagasc.bundle.resampling import Resampler
from tagasc.utils.errors import UserError

CONTRACT = Contract(16000, 2, 16000, "int16")


def cut(samples, rate=16000, hop=16000, contract=CONTRACT):
    """Windows of samples: first frames, waves, notes."""
    sound = array_sound(samples, rate)
    starts, waves = zip(*windows(sound, contract, hop), strict=True)
    assert {wave.shape for wave in waves} == {(contract.frames, contract.channels)}
    return list(starts), waves, sound.notes


def noise(frames, channels=2):
    return np.random.default_rng(0).uniform(-0.5, 0.5, (frames, channels)).astype(np.float32)


def resample(wave, rate, wanted, random):
    """Resample in blocks of random size."""
    resampler, parts, first = Resampler(rate, wanted), [], 0
    while first < len(wave):
        step = int(random.integers(1, 20000))
        parts.append(resampler.feed(wave[first : first + step]))
        first += step
    result = np.concatenate([*parts, resampler.flush()])
    assert len(result) == resampler.length(len(wave)) == -(-len(wave) * wanted // rate)
    return result


@pytest.mark.parametrize(("rate", "wanted"), [(44100, 16000), (44100, 48000), (8000, 48000), (1001, 1000), (700, 700)])
def test_resampling_keeps_what_both_rates_can_hold(rate, wanted):
    random, time, later = np.random.default_rng(0), np.arange(2 * rate) / rate, np.arange(2 * wanted) / wanted
    frequencies = 0.44 * min(rate, wanted), 0.1 * min(rate, wanted)
    waves = [np.stack([np.sin(2 * np.pi * f * t) for f in frequencies], axis=1) for t in (time, later)]
    found = resample(waves[0].astype(np.float32), rate, wanted, random)
    middle = slice(wanted // 2, -wanted // 2)
    np.testing.assert_allclose(found[middle], waves[1][middle], atol=1e-5)


@pytest.mark.parametrize(("rate", "wanted"), [(48000, 16000), (44100, 16000), (1001, 1000)])
def test_resampling_removes_what_the_lower_rate_cannot_hold(rate, wanted):
    time = np.arange(2 * rate) / rate
    aliasing = np.sin(2 * np.pi * (1.05 * wanted / 2 if rate > 1.1 * wanted else 500.4) * time)[:, None]
    found = resample(aliasing.astype(np.float32), rate, wanted, np.random.default_rng(1))
    limit = 1e-5 if rate > 1.1 * wanted else 0.2
    assert np.abs(found[wanted // 2 : -wanted // 2]).max() < limit


def test_a_clip_of_the_contract_is_only_rounded_to_16_bits():
    wave = noise(16000)
    (start,), (found,), notes = cut(wave)
    assert (start, notes) == (0, [])
    assert (found == np.rint(wave * 32768) / 32768).all()
    stored = (wave * 32767).astype(np.int16)
    assert (cut(stored)[1][0] == stored / np.float32(32768)).all()
    assert (cut(wave, contract=Contract(16000, 2, 16000, "float32"))[1][0] == wave).all()


def test_channels_are_averaged_or_copied():
    wave = noise(16000, 3)
    found, notes = cut(wave)[1:]
    expected = np.repeat(np.rint(wave.mean(axis=1, keepdims=True) * 32768) / 32768, 2, axis=1)
    np.testing.assert_allclose(found[0], expected, atol=1 / 32768)
    assert notes == ["2 channels mean of 3"]
    assert cut(wave[:, 0])[2] == ["2 channels copied from 1"]
    assert cut(wave, contract=Contract(16000, 1, 16000, "int16"))[2] == ["one channel mean of 3"]


@pytest.mark.parametrize(
    ("frames", "starts", "note"),
    [
        (17600, [0], "1.1 s cut to 1 s"),
        (17601, [0, 1601], ""),
        (14400, [0], "0.9 s filled with silence to 1 s"),
        (14399, [0], "0.9 s repeated 1.1 times to fill 1 s; less reliable"),
        (1600, [0], "0.1 s repeated 10.0 times to fill 1 s; less reliable"),
        (32000, [0, 16000], ""),
        (40000, [0, 16000, 24000], ""),
    ],
)
def test_lengths(frames, starts, note):
    wave = np.rint(noise(frames) * 32768) / 32768
    found, waves, notes = cut(wave)
    assert found == starts
    assert notes == ([note] if note else [])
    if frames > 17600:
        assert (waves[-1] == wave[-16000:]).all()
    if frames < 14400:
        assert (waves[0][frames : 2 * frames] == wave[: min(frames, 16000 - frames)]).all()
    if frames == 14400:
        assert not waves[0][frames:].any()


def test_windows_overlap_by_the_hop():
    wave = np.rint(noise(48000) * 32768) / 32768
    starts, waves, _ = cut(wave, hop=4000)
    assert starts == list(range(0, 32001, 4000))
    assert all((found == wave[start : start + 16000]).all() for start, found in zip(starts, waves, strict=True))


def test_silence_clipping_and_conversion_are_said():
    assert cut(np.zeros((16000, 2)))[2] == ["silent, so the answer means nothing"]
    wave = noise(44100)
    wave[:5] = 1.5
    assert cut(wave, 44100)[2] == ["resampled from 44100 to 16000 Hz", "10 samples beyond full scale"]


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros((0, 2)), 16000, "holds no sound"),
        (np.zeros((2, 2, 2)), 16000, r"have the shape \(2, 2, 2\)"),
        (np.zeros(5, np.int32), 16000, "are int32"),
        (np.zeros(5), 0, "sampling rate 0"),
        (np.full(5, np.nan), 16000, "not finite"),
    ],
)
def test_impossible_samples_are_named(samples, rate, message):
    with pytest.raises(UserError, match=message):
        cut(samples, rate)


@pytest.mark.parametrize("name", ["clip.wav", "clip.flac", "clip.ogg", "clip.mp3"])
def test_files_are_read_in_blocks_to_their_end(tmp_path, name):
    wave = noise(50000)
    soundfile.write(tmp_path / name, wave, 16000)
    with open_sound(tmp_path / name) as sound:
        found = np.concatenate([window for _, window in windows(sound, CONTRACT, 16000)][:-1])
    if name in ("clip.wav", "clip.flac"):
        np.testing.assert_allclose(found, wave[: len(found)], atol=1 / 32768)
    assert abs(sound.frames - 50000) < 2500


def test_files_that_are_no_sound_are_named(tmp_path):
    for name, content, message in (("a.wav", b"", "empty file"), ("b.txt", b"text", "cannot be read as audio")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message), open_sound(tmp_path / name):
            pass
