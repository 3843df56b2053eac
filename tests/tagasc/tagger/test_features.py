import numpy as np
import pytest
import torch
from torchaudio.transforms import MelSpectrogram

from tagasc.audio.store import AudioStore
from tagasc.audio.waveform import ToMono
from tagasc.tagger.clips import crop_spectrograms, group_by_padded_length
from tagasc.tagger.features import MelConfig, MelPower, normalise, reflect, to_decibels
from tests.helpers import write_packed

CONFIG = MelConfig(sampling_rate=16000, n_fft=512, hop=160, mels=40, low=20, high=8000)


def reference(wave):
    """Compute a centred, reflecting spectrogram with torchaudio's transform."""
    transform = MelSpectrogram(
        16000, 512, hop_length=160, f_min=20, f_max=8000, n_mels=40, power=2, norm="slaney", mel_scale="slaney"
    )
    return transform(wave)


def slaney(hertz):
    """Convert Hz to Slaney's mel scale: linear up to 1 kHz, then 27 steps per factor of 6.4."""
    hertz = np.asarray(hertz, float)
    return np.where(hertz < 1000, 3 * hertz / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4))


def in_float64(wave, mel):
    """Compute librosa's mel power from its definition: reflect padding, periodic Hann window, area-normalised bands."""
    half = mel.n_fft // 2
    padded = np.pad(wave.astype(np.float64), half, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, mel.n_fft)[:: mel.hop]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(mel.n_fft) / mel.n_fft)
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    grid = np.linspace(0, mel.sampling_rate / 2, 200_001)
    edges = np.interp(np.linspace(slaney(mel.low), slaney(mel.high), mel.mels + 2), slaney(grid), grid)
    bins = np.arange(half + 1) * mel.sampling_rate / mel.n_fft
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bank = np.maximum(0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    return (bank * 2 / (high - low)) @ power.T


def in_decibels(power):
    level = 10 * np.log10(np.maximum(power, 1e-10))
    return np.maximum(level, level.max() - 80)


def sounds(samples, rate):
    """Yield low-pass noise, a decaying chord, and a click in near-silence."""
    random, time = np.random.default_rng(3), np.arange(samples) / rate
    yield np.cumsum(random.normal(size=samples)) / 300 % 1 - 0.5
    yield sum(np.sin(2 * np.pi * f * time) for f in (220, 1760, 7040)) * np.exp(-3 * time) * 0.2
    yield np.where(np.arange(samples) == samples // 2, 0.9, 1e-3 * random.normal(size=samples))


@pytest.mark.parametrize("mel", [MelConfig(), CONFIG], ids=["published", "16 kHz"])
def test_mel_power_agrees_with_a_reference_in_float64(mel):
    for wave in sounds(2 * mel.sampling_rate, mel.sampling_rate):
        wave = wave.astype(np.float32)
        expected = in_float64(wave, mel)
        power = MelPower(mel)(reflect(torch.from_numpy(wave)[None], mel))
        assert power.shape[1:] == expected.shape
        assert np.linalg.norm(power[0].numpy() - expected) <= 1e-5 * np.linalg.norm(expected)
        level = to_decibels(power)[0].numpy()
        np.testing.assert_allclose(level, in_decibels(expected), atol=0.01)


def test_channels_are_averaged_before_resampling():
    time = torch.arange(4000) / 4000
    left, right = torch.sin(2 * torch.pi * 50 * time), torch.sin(2 * torch.pi * 70 * time)
    mono = ToMono(4000, 2000)(torch.stack([left, right], dim=1)[None])
    torch.testing.assert_close(mono[0, 50:-50], ((left + right) / 2)[::2][50:-50], atol=1e-2, rtol=0)


def test_spectrograms_of_whole_clips_agree_with_torchaudio():
    wave = torch.randn(2, 5000)
    power = MelPower(CONFIG)(reflect(wave, CONFIG))
    assert power.shape[2] == CONFIG.frames(torch.tensor(5000))
    torch.testing.assert_close(power, reference(wave), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("start", [0, 3, 11, -4])
def test_a_crop_is_part_of_the_whole_clips_spectrogram(tmp_path, start):
    wave = np.random.default_rng(0).uniform(-1, 1, 3000).astype(np.float32)

    class Clips:
        store = AudioStore(
            write_packed(tmp_path / "p", [np.zeros(700), wave, np.ones(500)], np.float32), torch.device("cpu")
        )
        frames = CONFIG.frames(torch.tensor([700, 3000, 500]))

    power = crop_spectrograms(Clips, torch.tensor([1]), torch.tensor([start]), 20, MelPower(CONFIG))[0]
    whole = reference(torch.from_numpy(wave))
    padded = torch.nn.functional.pad(whole, (10, 40))  # zeros outside the clip
    torch.testing.assert_close(power, padded[:, 10 + start : 30 + start], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("samples", [1, 5, 200, 300])
def test_a_clip_shorter_than_half_a_window_is_mirrored_repeatedly(samples):
    wave = torch.randn(1, samples)
    mirrored = reflect(wave, CONFIG)[0].numpy()
    np.testing.assert_array_equal(mirrored, np.pad(wave[0].numpy(), 256, mode="reflect" if samples > 1 else "edge"))


def test_decibels_have_a_floor_and_normalisation_a_unit_deviation():
    level = to_decibels(torch.tensor([[[1.0, 0.1, 0.0]], [[0.0, 0.0, 0.0]]]))
    assert level[0, 0].tolist() == pytest.approx([0, -10, -80])
    assert level[1, 0].tolist() == pytest.approx([-100] * 3)
    normalised = normalise(torch.randn(3, 8, 9) * 5 + 2)
    torch.testing.assert_close(normalised.mean(dim=(1, 2)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.std(dim=(1, 2), correction=0), torch.ones(3), atol=1e-4, rtol=0)
    assert normalise(level[1:]).abs().max() == 0


def test_clips_are_grouped_by_padded_length():
    groups = list(group_by_padded_length(torch.tensor([5, 32, 33, 64, 31]), batch=2))
    assert sorted((length, indices.tolist()) for indices, length in groups) == [(32, [0, 1]), (32, [4]), (64, [2, 3])]
