import json

import numpy as np
import pytest
import torch

from tagasc.audio.store import AudioStore
from tagasc.scene.config import SceneTraining
from tagasc.scene.corpus import CodeWindows, SceneClips, released_windows
from tagasc.scene.inference import codes_and_logits
from tagasc.scene.network import SceneNetwork, fold_batch_norm
from tagasc.scene.step import centre_loss
from tagasc.scene.systems import System
from tagasc.scene.training import SceneTrainer, load_scene_network
from tagasc.scene.trunk import TrunkConfig
from tagasc.training.loop import fit
from tests.helpers import write_packed

TRUNK = TrunkConfig(8, (8, 8), code_size=4)
FRAMES = 600


@pytest.fixture
def clips(tmp_path):
    """Six clips of three scenes; clip n holds the constant n + 1 and the tag n / 10."""
    waves = [np.full((FRAMES, 2), n + 1) for n in range(6)]
    packed = write_packed(tmp_path / "packed", waves, np.float32, 2, 1000, "abc")
    tags = (np.arange(6) / 10).astype(np.float32)[:, None]
    return SceneClips([AudioStore(packed, torch.device("cpu"))]).tagged(tags)


def new_trainer(clips, **settings):
    training = SceneTraining(
        **({"epochs": 2, "batch": 6, "crop_seconds": 0.3, "mixup_alpha": 1.0, "mixup_from_epoch": 2} | settings)
    )
    return SceneTrainer(training, TRUNK, System("before_code", 1), clips, clips, seed=1)


def test_a_plan_uses_each_clip_once_and_mixes_from_the_configured_epoch(clips):
    trainer = new_trainer(clips, batch=2, schedule="cosine", learning_rate=0.1)
    before, after = trainer.plan(1), trainer.plan(2)
    for plan in (before, after):
        assert sorted(plan.clip_indices.flatten().tolist()) == list(range(6))
        assert plan.crop_starts.min() < plan.crop_starts.max() <= FRAMES - trainer.frames
        assert [sorted(row) for row in plan.mixup_order.tolist()] == [[0, 1]] * 3
    assert (before.mixup_weight == 1).all()
    assert (after.mixup_weight < 1).all()
    rates = torch.cat([before.learning_rate, after.learning_rate])[:, 0]
    assert rates.tolist() == pytest.approx([0.05 * (1 + np.cos(np.pi * n / 6)) for n in range(6)])
    assert new_trainer(clips).plan(1).learning_rate.tolist() == [[1e-4]]
    again = new_trainer(clips, batch=2).plan(2)
    assert torch.equal(again.clip_indices, after.clip_indices)
    assert torch.equal(again.mixup_weight, after.mixup_weight)


@pytest.mark.parametrize(("crop_seconds", "frames"), [(None, FRAMES - 1), (0.3, 300)])
def test_the_network_trains_on_crops_or_without_them_on_whole_clips(clips, crop_seconds, frames):
    """Pre-emphasis drops the first frame of a clip: the paper's input has 479,999."""
    trainer, seen = new_trainer(clips, crop_seconds=crop_seconds), set()
    trainer.network.trunk.stem.register_forward_pre_hook(lambda module, inputs: seen.add(inputs[0].shape[1]))
    assert (trainer.plan(1).crop_starts.max() == 0) == (crop_seconds is None)
    assert np.isfinite(trainer.train(1)["loss"])
    assert seen == {frames}
    assert trainer.metadata()["crop_seconds"] == crop_seconds


def test_saved_weights_give_the_codes_of_whole_clips(clips, tmp_path):
    trainer = new_trainer(clips)
    fit(trainer, tmp_path / "run", 1, trainer.metadata())
    network, metadata = load_scene_network(tmp_path / "run/model.safetensors")
    assert metadata["scenes"] == ["a", "b", "c"]
    codes, _ = codes_and_logits(network, clips)
    samples = torch.arange(1.0, 7).reshape(6, 1, 1).expand(6, FRAMES, 2)
    with torch.inference_mode():
        expected = network(samples, clips.tags)[0].numpy()
    np.testing.assert_allclose(codes, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_codes_of_windows_are_computed_from_these_frames(clips):
    network = new_trainer(clips).network.eval()
    windows = CodeWindows(torch.tensor([4, 1]), torch.tensor([7, 0]), 400)
    codes, _ = codes_and_logits(network, clips, windows)
    with torch.inference_mode():
        samples = torch.tensor([5.0, 2.0]).reshape(2, 1, 1).expand(2, 400, 2)
        expected = network(samples, clips.tags[[4, 1]])[0].numpy()
    np.testing.assert_allclose(codes, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_released_windows_are_cut_after_pre_emphasis_and_drawn_after_each_epoch(tmp_path):
    """Test codes come from 479,520 of 480,000 frames, one more as stored; each epoch draws other training crops."""
    waves = [np.zeros((4800, 2))] * 50
    packed = write_packed(tmp_path / "packed", waves, np.int16, 2, 480, "ab")
    clips = SceneClips([AudioStore(packed, torch.device("cpu"))])
    test = released_windows(clips, False, 5.0, 1, 1)
    assert (test.frames, set(test.starts.tolist())) == (4795 + 1, {0})
    assert test.clip_indices.tolist() == list(range(50))
    first, second, again = (released_windows(clips, True, 5.0, 1, epoch) for epoch in (1, 2, 1))
    assert first.frames == 2401
    assert len(first.clip_indices) == 48
    assert first.clip_indices.tolist() != second.clip_indices.tolist()
    assert set(first.clip_indices.tolist()) != set(second.clip_indices.tolist())  # other clips are left out
    assert first.starts.tolist() != second.starts.tolist()
    assert torch.equal(first.starts, again.starts)
    assert torch.equal(first.clip_indices, again.clip_indices)


def test_folding_batch_normalisation_changes_nothing(clips):
    torch.manual_seed(0)
    trunk = TrunkConfig(8, (4, 8), shortcut_convolution=True, extra_convolution=True, code_size=4)
    network = SceneNetwork(trunk, System(heads=2), 3, tags=1).double()
    samples = torch.randn(5, 301, 2, dtype=torch.float64)
    tags = torch.rand(5, 1, dtype=torch.float64)
    network(samples, tags)  # changes the running statistics from 0 and 1
    with torch.inference_mode():
        for before, after in zip(network.eval()(samples, tags), fold_batch_norm(network)(samples, tags), strict=True):
            torch.testing.assert_close(before, after, rtol=1e-12, atol=1e-12)


def test_clips_of_several_stores_are_joined_in_order(clips):
    both = SceneClips([clips.store.stores[0]] * 2)
    starts = torch.tensor([0, 3, 1, 2])
    gathered = both.store.samples(torch.tensor([6, 1, 11, 5]), starts, 5)
    assert gathered[:, 0, 0].tolist() == [1, 2, 6, 6]
    assert torch.equal(both.store._gathered(torch.tensor([6, 1, 11, 5]), starts, 5), gathered)  # as on a GPU
    assert torch.equal(both.scenes, torch.cat([clips.scenes, clips.scenes]))


def test_centre_loss_weighs_distances_by_the_label():
    code, centres = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    target = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    assert float(centre_loss(code, target, centres)) == pytest.approx((1 + 0.25 * 4 + 0.75 * 1) / 2)


def test_centre_loss_is_off_by_default_and_changes_the_training_when_on(clips):
    first, second, with_centres = (new_trainer(clips, centre_loss=weight) for weight in (0.0, 0.0, 1.0))
    losses = [trainer.train(1)["loss"] for trainer in (first, second, with_centres)]
    assert losses[0] == losses[1] < losses[2]


def test_without_validation_the_last_epoch_is_kept(clips, tmp_path):
    training = SceneTraining(epochs=3, batch=6, crop_seconds=0.3)
    trainer = SceneTrainer(training, TRUNK, System(), clips.tagged(None), None, seed=1)
    fit(trainer, tmp_path / "run", 3, trainer.metadata())
    assert json.loads((tmp_path / "run/history.json").read_text())["best_epoch"] == 3
    network, _ = load_scene_network(tmp_path / "run/model.safetensors")
    for name, value in trainer.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name
