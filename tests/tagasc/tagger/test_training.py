"""The tagger's inference, augmentation, streams and losses, compared with reference implementations."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.model_selection import KFold
from torchaudio.transforms import MelSpectrogram, Resample

from tagasc.audio.packed import PackedAudio
from tagasc.tagger.clips import TaggedClips, group_by_padded_length
from tagasc.tagger.config import SemiTraining, TaggerTraining
from tagasc.tagger.features import normalise, to_decibels
from tagasc.tagger.inference import Ensemble
from tagasc.tagger.network import TaggerNetwork
from tagasc.tagger.semi import SemiTrainer, sharpen
from tagasc.tagger.training import FoldSetup, TaggerTrainer
from tagasc.training.augment import EpochRng
from tagasc.utils.errors import UserError
from tests.helpers import CLASSES, CPU, MEL, TINY, noise, packed, tiny


def reference_tags(network, wave, rate, pad=0):
    """Tag one clip: mean of the channels, resampling, mel power, dB, normalisation, curated head, sigmoid."""
    mono = Resample(rate, MEL.sampling_rate)(torch.from_numpy(wave.astype(np.float32)).mean(dim=1))
    power = MelSpectrogram(
        MEL.sampling_rate, 512, hop_length=160, f_min=20, f_max=7350, n_mels=32, norm="slaney", mel_scale="slaney"
    )(mono)
    power = F.pad(power, (pad, pad))
    power = F.pad(power, (0, -power.shape[1] % 32))
    level = 10 * torch.log10(power.clamp(min=1e-10))
    level = level.clamp(min=level.max() - 80)
    level = (level - level.mean()) / (level.std(correction=0) + 1e-7)
    with torch.inference_mode():
        return network.curated(network.features(level[None]))[0].sigmoid().numpy()


def test_tags_of_scene_clips_agree_with_a_reference_for_any_batch(tmp_path):
    waves = noise(0, [16000, 16000, 9000, 16000], channels=2)
    folder, networks = packed(tmp_path / "scenes", waves, 16000), [tiny(0), tiny(1)]
    references = [[[reference_tags(n, wave, 16000, pad) for n in networks] for pad in (8, 40)] for wave in waves]
    expected = np.mean(references, axis=(1, 2))
    assert np.ptp(expected, axis=0).max() > 1e-3
    for batch in (1, 4):
        values = Ensemble(networks, MEL, CLASSES, (8, 40)).tag_scenes(PackedAudio(folder), CPU, batch)
        np.testing.assert_allclose(values, expected, atol=2e-4)


def test_tags_of_a_tagging_corpus_agree_with_a_reference_for_any_batch(tmp_path):
    """The clips last from 0.3 s to 12 s."""
    lengths = [4410, 14700, 5000, 176400, 33333]
    waves, network = noise(1, lengths), tiny()
    clips = TaggedClips(packed(tmp_path / "clips", waves, MEL.sampling_rate), None, MEL, CPU)
    expected = [reference_tags(network, wave, MEL.sampling_rate, 8) for wave in waves]
    ensemble, order = Ensemble([network], MEL, CLASSES, (8,)), torch.tensor([3, 0, 4, 2, 1])
    values = ensemble.tags(clips, order, batch=2)
    np.testing.assert_allclose(values, np.stack(expected)[order.numpy()], atol=2e-4)
    for number in range(5):
        np.testing.assert_allclose(ensemble.tags(clips, torch.tensor([number]))[0], expected[number], atol=2e-4)


def test_inference_turns_off_the_cudnn_benchmark(tmp_path, monkeypatch):
    """cuDNN would otherwise search for algorithms at every new length."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    clips, network = (
        TaggedClips(packed(tmp_path / "c", noise(1, [4410, 14700]), MEL.sampling_rate), None, MEL, CPU),
        tiny(),
    )
    seen = []
    network.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.benchmark))
    Ensemble([network], MEL, CLASSES).tags(clips, torch.arange(2))
    assert seen == [False, False]
    assert torch.backends.cudnn.benchmark


def test_a_batch_holds_at_most_512_frames_per_clip():
    frames = torch.tensor([40] * 70 + [600] * 9 + [40_000, 39_990])
    groups = list(group_by_padded_length(frames, batch=16))
    assert sorted(sum((indices.tolist() for indices, _ in groups), [])) == list(range(len(frames)))
    for indices, length in groups:
        assert len(indices) == 1 or len(indices) * length <= 16 * 512
        assert (frames[indices] <= length).all()
        assert (length - frames[indices] < 32).all()


def test_silence_and_clips_shorter_than_a_frame_have_tags(tmp_path):
    waves = [np.zeros((5000, 1)), np.full((1, 1), 0.3), *noise(2, [3, 200, 511])]
    folder = packed(tmp_path / "odd", waves, MEL.sampling_rate)
    ensemble = Ensemble([tiny()], MEL, CLASSES, (0, 8))
    for values in (
        ensemble.tags(TaggedClips(folder, None, MEL, CPU), torch.arange(5)),
        ensemble.tag_scenes(PackedAudio(folder), CPU),
    ):
        assert ((values > 0) & (values < 1)).all()


def test_an_error_names_the_clip_with_nan(tmp_path):
    waves = noise(3, [3000, 3000, 3000])
    waves[1][7] = np.nan
    folder = packed(tmp_path / "bad", waves, MEL.sampling_rate)
    with pytest.raises(UserError, match="clip clip1 has samples that are not finite"):
        Ensemble([tiny()], MEL, CLASSES).tag_scenes(PackedAudio(folder), CPU)
    with pytest.raises(UserError, match="clip clip1 has samples that are not finite"):
        Ensemble([tiny()], MEL, CLASSES).tags(TaggedClips(folder, CLASSES, MEL, CPU), torch.arange(3))


def test_an_error_names_the_clip_without_samples(tmp_path):
    folder = packed(tmp_path / "empty", [*noise(4, [3000]), np.zeros((0, 1))], MEL.sampling_rate)
    with pytest.raises(UserError, match="clip clip1 has no samples"):
        TaggedClips(folder, None, MEL, CPU)


def test_sharpened_probabilities_sum_to_one():
    values = sharpen(np.array([[0.1, 0.3], [0.2, 0.2], [0, 0]]), 2.0)
    np.testing.assert_allclose(values, [[0.1, 0.9], [0.5, 0.5], [0.5, 0.5]], rtol=1e-6)


# Training


@pytest.fixture
def fold(tmp_path):
    """Fold 1 of 40 curated and 30 noisy clips."""
    curated = TaggedClips(packed(tmp_path / "curated", noise(5, range(2000, 10_000, 200)), 14700), None, MEL, CPU)
    noisy = TaggedClips(packed(tmp_path / "noisy", noise(6, [6000] * 30), 14700), CLASSES, MEL, CPU)
    config = TaggerTraining(epochs=2, batch=8, crop_frames=48, mask_half_width=(2, 6))
    return FoldSetup(1, curated, noisy, config, TINY, MEL, 1, tmp_path, CPU)


def semi_trainer(fold, **settings):
    pseudo_labels = torch.from_numpy(sharpen(np.random.default_rng(0).random((30, 5)), 2))
    return SemiTrainer(fold, SemiTraining(**settings), pseudo_labels, TaggerNetwork(TINY, 5).state_dict())


class Fixed(EpochRng):
    """Fixed random numbers: crops from the start, each clip mixed with its opposite, λ = 1/4."""

    def integers(self, below):
        return torch.zeros_like(below)

    def permutation(self, count):
        return torch.arange(count).flip(0)

    def beta(self, alpha, count):
        return torch.full((count,), 0.25)


def test_augmentation_agrees_with_a_reference(fold):
    """Crops of the power spectrogram are mixed, scaled and masked; labels are mixed with the same weight."""
    config = replace(fold.config, probability=1.0, gain=(2.0, 2.0), mask_half_width=(3, 3))
    trainer, indices = TaggerTrainer(replace(fold, config=config)), torch.tensor([30, 35, 39])
    power, target = trainer.augment(fold.curated, fold.curated.truth, indices, Fixed(0, 1))
    unchanged = replace(fold, config=replace(config, probability=0.0))
    crops, labels = TaggerTrainer(unchanged).augment(fold.curated, fold.curated.truth, indices, Fixed(0, 1))
    mixed = 0.25 * crops + 0.75 * crops.flip(0)
    assert (power[:, :3] == 0).all()  # the mask's centre is band 0, its half-width 3
    torch.testing.assert_close(power[:, 3:], 2 * mixed[:, 3:])
    torch.testing.assert_close(target, 0.25 * labels + 0.75 * labels.flip(0))


def test_short_clips_have_a_random_position_in_their_crop(fold):
    config = replace(fold.config, probability=0.0)
    trainer = TaggerTrainer(replace(fold, config=config))
    assert fold.curated.frames[0] == 13
    silent = []
    for epoch in range(40):
        power, _ = trainer.augment(fold.curated, fold.curated.truth, torch.tensor([0]), EpochRng(0, epoch))
        heard = power[0].sum(dim=0).nonzero().flatten()
        assert len(heard) == 13
        silent.append(int(heard[0]))
    assert min(silent) <= 3
    assert max(silent) >= 32


def test_stage_2_slices_every_stream_along_time(fold):
    trainer = semi_trainer(replace(fold, config=replace(fold.config, probability=0.0)), slice_probability=1.0)
    power, _ = trainer.augment(fold.noisy, fold.noisy.truth, torch.arange(30), EpochRng(0, 1))
    kept = (power.sum(dim=1) > 0).sum(dim=1)  # frames of the 38 that a clip has in a crop of 48
    assert kept.min() < 30
    bands = power.sum(dim=2) > 0
    assert bands[kept > 0].all()  # no band is lost


def test_the_semi_stream_is_half_curated_and_half_noisy_from_four_fifths(fold):
    trainer = semi_trainer(fold)
    curated, noisy, semi = trainer.streams(EpochRng(0, 1))
    assert [len(batch) for batch in curated.pools[0].batches] == [8] * trainer.steps
    assert [len(batch) for batch in noisy.pools[0].batches] == [8] * trainer.steps
    hard, pseudo_labels = semi.pools
    assert [len(batch) for batch in hard.batches] == [4] * trainer.steps
    assert [len(batch) for batch in pseudo_labels.batches] == [4] * trainer.steps
    assert hard.target is fold.curated.truth
    assert pseudo_labels.target is trainer.pseudo_labels
    assert semi.head is trainer.network.curated
    kept = list(KFold(5, shuffle=True, random_state=42).split(np.arange(30)))[1][0]
    used = {
        n
        for epoch in range(20)
        for batch in trainer.streams(EpochRng(0, epoch))[2].pools[1].batches
        for n in batch.tolist()
    }
    assert used == set(kept.tolist())
    held_out = set(trainer.held_out.tolist())
    assert all(held_out.isdisjoint(batch.tolist()) for batch in (*curated.pools[0].batches, *hard.batches))


@pytest.mark.parametrize("joint", [False, True])
def test_the_loss_of_stage_2_agrees_with_a_reference(fold, joint):
    """BCE + BCE + 20 · MSE; batch statistics are those of each stream, or of all streams in a joint pass."""
    trainer = semi_trainer(replace(fold, config=replace(fold.config, joint_pass=joint)))
    network, rng = deepcopy(trainer.network).train(), EpochRng(3, 1)
    streams = trainer.streams(rng)
    parts = []
    for stream in streams:
        batches = [trainer.augment(p.clips, p.target, p.batches[0], rng) for p in stream.pools]
        parts.append((normalise(to_decibels(torch.cat([b[0] for b in batches]))), torch.cat([b[1] for b in batches])))
    if joint:
        features = network.features(torch.cat([level for level, _ in parts])).split(8)
    else:
        features = [network.features(level) for level, _ in parts]
    bce = F.binary_cross_entropy_with_logits
    expected = bce(network.curated(features[0]), parts[0][1]) + bce(network.noisy(features[1]), parts[1][1])
    expected = expected + 20 * (network.curated(features[2]).sigmoid() - parts[2][1]).square().mean()
    rng = EpochRng(3, 1)
    trainer.network.train()
    torch.testing.assert_close(trainer.step(trainer.streams(rng), 0, rng), expected.detach())


def test_the_learning_rate_is_a_cosine_with_restarts(fold):
    trainer = TaggerTrainer(replace(fold, config=replace(fold.config, epochs=5, cycle=2)))
    rates, step = [], trainer.optimizer.step
    trainer.optimizer.step = lambda: (rates.append(trainer.optimizer.param_groups[0]["lr"]), step())
    for epoch in (1, 2, 3):
        trainer.train(epoch)
    assert trainer.steps == 4
    assert rates[0] == rates[8] == 1e-3
    assert rates[4] == pytest.approx((1e-3 + 1e-6) / 2)
    assert rates[:8] == sorted(rates[:8], reverse=True)


def test_without_noisy_clips_the_noisy_head_is_not_trained(fold):
    trainer = TaggerTrainer(replace(fold, noisy=None))
    before = deepcopy(trainer.network.state_dict())
    trainer.train(1)
    changed = {
        name.split(".")[0]
        for name, value in trainer.network.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"stem", "stages", "curated"}


def test_an_error_names_unknown_clips_of_leave_out(fold):
    config = replace(fold.config, leave_out=("clip7", "clip7.wav", "clip99"))
    with pytest.raises(UserError, match=r"leave_out: .*curated has no clip clip7\.wav, clip99; fix the list"):
        TaggerTrainer(replace(fold, config=config))


def test_a_compiled_trunk_trains_the_same(fold, monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *a, **k: compile_(*a, **k, backend="eager"))  # no C++ in the tests
    losses = [TaggerTrainer(replace(fold, compiled=compiled)).train(1)["loss"] for compiled in (False, True)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
