import json

import numpy as np
import pytest
import torch

from tagasc.audio import AudioStore, PackedAudio, preemphasis
from tagasc.augment import Draws
from tagasc.models.fusion import System
from tagasc.models.trunk import TrunkConfig
from tagasc.scene import SceneClips, SceneTask, SceneTraining, load_network, outputs
from tagasc.tags import TagVectors
from tagasc.training import fit

TRUNK = TrunkConfig(8, (8, 8), code_size=4)
FRAMES = 600


@pytest.fixture
def clips(tmp_path):
    """Six clips of three scenes; clip n holds the constant n + 1 and the tag n / 10."""
    folder = tmp_path / "packed"
    folder.mkdir()
    np.save(
        folder / "audio.npy", np.repeat(np.arange(1, 7), FRAMES).reshape(-1, 1).repeat(2, axis=1).astype(np.float32)
    )
    rows = [
        {
            "id": str(n),
            "start": n * FRAMES,
            "frames": FRAMES,
            "labels": ["abc"[n % 3]],
            "location": "",
            "usage": "",
            "crc32": 0,
        }
        for n in range(6)
    ]
    index = {"format": 1, "sampling_rate": 1000, "channels": 2, "clips": rows}
    (folder / "index.json").write_text(json.dumps(index))
    tags = TagVectors([str(n) for n in range(6)], ["x"], (np.arange(6) / 10).astype(np.float32)[:, None])
    return SceneClips(AudioStore(PackedAudio(folder), torch.device("cpu")), tags, None)


def task(clips, **settings):
    training = SceneTraining(
        **({"epochs": 2, "batch": 6, "crop_seconds": 0.3, "mixup_alpha": 1.0, "mixup_from_epoch": 2} | settings)
    )
    return SceneTask(training, TRUNK, System("before_code", 1), clips, clips, seed=1)


def test_mixup_mixes_wave_tags_and_label_with_one_weight(clips):
    """Pre-emphasis of a constant c is 0.03 · c · 32000, so the mixture can be read off the wave."""
    wave, tags, target = task(clips)._batch(torch.arange(6), Draws(1, 2), 2)
    assert wave.shape == (6, 300, 2)
    level = wave[:, 0, 0] / (0.03 * 32000) - 1
    torch.testing.assert_close(tags[:, 0] * 10, level, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(level, torch.arange(6.0))
    # With c = n + 1 and one partner m: level = λ n + (1 - λ) m, and the label gives λ wherever the scenes differ.
    pure = target.amax(dim=1) == 1
    for n in torch.nonzero(~pure).flatten().tolist():
        own = float(target[n, n % 3])
        partner = (float(level[n]) - own * n) / (1 - own)
        assert partner == pytest.approx(round(partner), abs=0.01)
        assert target[n, round(partner) % 3] == pytest.approx(1 - own)
    weights = {round(float(target[n, n % 3]), 5) for n in torch.nonzero(~pure).flatten().tolist()}
    assert len(weights) == 1


def test_mixup_begins_at_its_epoch(clips):
    _, tags, target = task(clips)._batch(torch.arange(6), Draws(1, 1), 1)
    assert tags[:, 0].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert (target.amax(dim=1) == 1).all()


def test_learning_rate_schedules(clips):
    for schedule, rates in (("constant", [0.1, 0.1, 0.1]), ("cosine", [0.1, 0.05, 0.0])):
        it = task(clips, schedule=schedule, learning_rate=0.1)
        found = []
        for done in (0, 0.5, 1):
            it._set_learning_rate(done)
            found.append(it.optimizer.param_groups[0]["lr"])
        assert found == pytest.approx(rates)


def test_saved_weights_give_the_codes_of_whole_clips(clips, tmp_path):
    it = task(clips)
    fit(it, tmp_path / "run", 1, it.about())
    network, about = load_network(tmp_path / "run/model.safetensors")
    assert about["scenes"] == ["a", "b", "c"]
    rows = list(outputs(network, clips, batch=4))
    codes = torch.cat([code for _, code, _ in rows])
    wave = preemphasis(torch.arange(1.0, 7).reshape(6, 1, 1).expand(6, FRAMES, 2))
    with torch.inference_mode():
        torch.testing.assert_close(codes, network(wave, clips.tags)[0])
