"""Spectrograms against computations of their own in NumPy, frame by frame and bin by bin."""

import numpy as np
import pytest
import torch
from scipy.signal import get_window

from tagasc.sources import features
from tagasc.sources.features import LogMel, log_mel
from tagasc.utils.errors import SettingError

RATE = 16000


def clip(samples=8013):
    """Noise and a tone, louder towards the end."""
    time = np.arange(samples)
    noise = np.random.default_rng(0).normal(0, 0.05, samples)
    return ((noise + 0.3 * np.sin(0.4 * time)) * np.linspace(0.01, 1, samples)).astype(np.float32)


def kaldi_frames(wave, length):
    """Frames of ``length`` samples every 10 ms, centred in their 10 ms, the clip mirrored with its edge sample."""
    count = (len(wave) + 80) // 160
    index = np.arange(count)[:, None] * 160 + 80 - length // 2 + np.arange(length)
    index = np.where(index < 0, -index - 1, index)
    return wave.astype(np.float64)[np.where(index >= len(wave), 2 * len(wave) - 1 - index, index)]


def kaldi_bands(count, low, high, bins=256, width=RATE / 512):
    """Triangles in mel, 1127 ln(1 + f / 700)."""
    mel = lambda f: 1127 * np.log(1 + np.asarray(f) / 700)
    step = (mel(high) - mel(low)) / (count + 1)
    bank = np.zeros((count, bins))
    for band in range(count):
        left, centre, right = mel(low) + step * np.arange(band, band + 3)
        for k in range(bins):
            at = mel(k * width)
            if left < at < right:
                bank[band, k] = (at - left) / step if at <= centre else (right - at) / step
    return bank


def test_kaldi_fbank80():
    frames = kaldi_frames(clip(), 400)
    frames = frames - frames.mean(axis=1, keepdims=True)
    frames = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    power = np.abs(np.fft.rfft(frames * window, 512)) ** 2
    expected = np.log(np.maximum(power[:, :256] @ kaldi_bands(80, 20, 7600).T, np.finfo(np.float32).eps))
    found = features.kaldi_fbank80(torch.from_numpy(clip())[None])[0].numpy()
    np.testing.assert_allclose(found, expected.T, atol=1e-3)


@pytest.mark.parametrize("level", [0.01, 300.0, 0.0])
def test_mel64db(level):
    """Also of a clip so loud that its floor rises, and of silence."""
    wave = clip() * np.float32(level)
    wave[:3000] = 0
    frames = kaldi_frames(wave, 512) * get_window("hann", 512)  # periodic
    energy = (np.abs(np.fft.rfft(frames)) ** 2)[:, :256] @ kaldi_bands(64, 0, 8000).T
    expected = 10 * np.log10(np.maximum(energy, 1e-10))
    expected = np.maximum(expected, max(expected.max(), 0) - 120)
    found = features.mel64db(torch.from_numpy(wave)[None])[0].numpy()
    assert found.shape == (64, 50)
    np.testing.assert_allclose(found, expected.T, atol=1e-3)
    assert found.min() == pytest.approx(-100 if level < 300 else found.max() - 120, abs=1e-3)


def test_the_range_of_mel64db_is_that_of_each_window():
    loud, quiet = torch.from_numpy(clip()) * 300, torch.zeros(8013)
    together = features.mel64db(torch.stack([loud, quiet]))
    assert torch.equal(together[1], features.mel64db(quiet[None])[0])


def test_kaldi_features_agree_with_kaldi_native_fbank():
    """A C++ implementation, which sherpa-onnx uses."""
    knf = pytest.importorskip("kaldi_native_fbank")

    def compute(options):
        online = knf.OnlineFbank(options)
        online.accept_waveform(RATE, clip().tolist())
        online.input_finished()
        return np.stack([online.get_frame(n) for n in range(online.num_frames_ready)], axis=1)

    options = knf.FbankOptions()
    options.frame_opts.dither, options.frame_opts.snip_edges = 0, False
    options.mel_opts.num_bins, options.mel_opts.high_freq = 80, -400
    wave = torch.from_numpy(clip())[None]
    np.testing.assert_allclose(features.kaldi_fbank80(wave)[0].numpy(), compute(options), atol=1e-3)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("log", ["ln", "log10", "db"])
@pytest.mark.parametrize("centred", [True, False])
def test_a_described_log_mel(scale, log, centred):
    librosa_like = {"norm": "slaney"} if scale == "slaney" else {}
    config = LogMel(
        n_fft=512, hop=200, mels=20, low=50, high=7000, window=400, centred=centred, power=1.0, scale=scale, log=log,
        floor=1e-5, offset=1e-3, range=3.0, mean=-1.5, deviation=2.0, **librosa_like,
    )  # fmt: skip
    wave = clip().astype(np.float64)
    padded = np.pad(wave, 256, mode="reflect") if centred else wave
    count = 1 + (len(padded) - 512) // 200
    window = np.pad(get_window("hann", 400), 56)
    frames = np.stack([padded[200 * n : 200 * n + 512] * window for n in range(count)])
    value = np.abs(np.fft.rfft(frames)) @ hertz_bands(scale).T
    value = np.maximum(value + 1e-3, 1e-5)
    value = {"ln": np.log(value), "log10": np.log10(value), "db": 10 * np.log10(value)}[log]
    expected = (np.maximum(value, value.max() - 3) + 1.5) / 2
    found = log_mel(config, RATE, torch.device("cpu"))(torch.from_numpy(clip())[None])[0].numpy()
    np.testing.assert_allclose(found, expected.T, atol=1e-3)


def hertz_bands(scale):
    """Twenty triangles in Hz; Slaney's with the area 1."""

    def mel(f):
        if scale == "htk":
            return 2595 * np.log10(1 + f / 700)
        return f / (200 / 3) if f < 1000 else 15 + 27 * np.log(f / 1000) / np.log(6.4)

    def hertz(m):
        if scale == "htk":
            return 700 * (10 ** (m / 2595) - 1)
        return m * 200 / 3 if m < 15 else 1000 * np.exp((m - 15) * np.log(6.4) / 27)

    points = [hertz(m) for m in np.linspace(mel(50), mel(7000), 22)]
    bank = np.zeros((20, 257))
    for band in range(20):
        left, centre, right = points[band : band + 3]
        for k in range(257):
            rise, fall = (k * 31.25 - left) / (centre - left), (right - k * 31.25) / (right - centre)
            bank[band, k] = max(0, min(rise, fall)) * (2 / (right - left) if scale == "slaney" else 1)
    return bank


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mels": 0}, "must be positive"),
        ({"window": 600}, "window at most n_fft"),
        ({"low": 8000}, "low must be at least 0 and below high"),
        ({"deviation": 0}, "deviation must be above 0"),
    ],
)
def test_an_impossible_log_mel_is_refused(changes, message):
    with pytest.raises(SettingError, match=message):
        LogMel(**{"n_fft": 512, "hop": 160, "mels": 64, "low": 0, "high": 8000} | changes)


def test_bands_beyond_half_of_the_rate_are_refused():
    with pytest.raises(SettingError, match="8000 Hz is beyond half of the sampling rate, 8000 Hz"):
        log_mel(LogMel(512, 160, 64, 0, 8000), 8000, torch.device("cpu"))
