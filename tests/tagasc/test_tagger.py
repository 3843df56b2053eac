import json

import numpy as np
import torch
import torch.nn.functional as F
from torchaudio.transforms import MelSpectrogram, Resample

from tagasc.audio import PackedAudio
from tagasc.features import MelConfig
from tagasc.models.tagger import Tagger, TaggerConfig
from tagasc.tagger.inference import Ensemble

MEL = MelConfig(sampling_rate=14700, n_fft=512, hop=160, mels=32, low=20, high=7350)


def by_the_book(network, wave, rate):
    """Mean of the channels, resampled, whole clip, power mel, dB, normalised, curated head, sigmoid."""
    mono = Resample(rate, MEL.sampling_rate)(torch.from_numpy(wave).mean(dim=1))
    power = MelSpectrogram(
        MEL.sampling_rate, 512, hop_length=160, f_min=20, f_max=7350, n_mels=32, norm="slaney", mel_scale="slaney"
    )(mono)
    power = F.pad(power, (0, -power.shape[1] % 32))
    level = 10 * torch.log10(power.clamp(min=1e-10))
    level = level.clamp(min=level.max() - 80)
    level = (level - level.mean()) / (level.std(correction=0) + 1e-7)
    with torch.inference_mode():
        return network.curated(network.features(level[None]))[0].sigmoid().numpy()


def test_scene_clips_are_tagged_by_the_book_whatever_stands_beside_them(tmp_path):
    random = np.random.default_rng(0)
    lengths = [16000, 16000, 9000, 16000]
    waves = [random.uniform(-0.5, 0.5, (length, 2)).astype(np.float32) for length in lengths]
    starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    rows = [
        {"id": str(n), "start": starts[n], "frames": length, "labels": ["a"], "location": "", "usage": "", "crc32": 0}
        for n, length in enumerate(lengths)
    ]
    np.save(tmp_path / "audio.npy", np.concatenate(waves))
    (tmp_path / "index.json").write_text(
        json.dumps({"format": 1, "sampling_rate": 16000, "channels": 2, "clips": rows})
    )
    torch.manual_seed(0)
    network = Tagger(TaggerConfig((1, 1), 8, 8), classes=5).eval()
    expected = np.stack([by_the_book(network, wave, 16000) for wave in waves])
    assert np.ptp(expected, axis=0).max() > 1e-3
    for batch in (1, 4):
        found = Ensemble([network], MEL, list("abcde")).tag_scenes(PackedAudio(tmp_path), torch.device("cpu"), batch)
        np.testing.assert_allclose(found, expected, atol=2e-4)
