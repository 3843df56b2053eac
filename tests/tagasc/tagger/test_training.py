"""The tagger's inference, augmentation, streams and losses, compared with reference implementations."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold
from torchaudio.transforms import MelSpectrogram, Resample

from tagasc.audio.packed import PackedAudio
from tagasc.tagger.clips import ClipPool, TaggedClips, group_by_padded_length
from tagasc.tagger.config import SemiTraining, TaggerTraining
from tagasc.tagger.features import normalise, to_decibels
from tagasc.tagger.inference import Ensemble
from tagasc.tagger.network import NOISY_LOSSES, TaggerConfig, TaggerNetwork
from tagasc.tagger.semi import SemiTrainer, sharpen
from tagasc.tagger.training import FoldSetup, TaggerTrainer
from tagasc.training.augment import EpochRng
from tagasc.utils.errors import UserError
from tests.helpers import CLASSES, CPU, MEL, TINY, noise, packed, tiny

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_tags_are_computed_in_smaller_batches_where_memory_is_full(tmp_path, monkeypatch):
    scenes = PackedAudio(packed(tmp_path / "scenes", noise(0, [16000, 9000] * 5, channels=2), 16000))
    clips = TaggedClips(packed(tmp_path / "clips", noise(1, [4410] * 7), MEL.sampling_rate), None, MEL, CPU)
    ensemble, sizes = Ensemble([tiny()], MEL, CLASSES, (0, 8)), []
    tag = lambda: np.concatenate([ensemble.tag_scenes(scenes, CPU), ensemble.tags(clips, torch.arange(7))])
    expected, features = tag(), TaggerNetwork.features

    def limited(network, level):
        sizes.append(len(level))
        if len(level) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return features(network, level)

    monkeypatch.setattr(TaggerNetwork, "features", limited)
    monkeypatch.setattr("tagasc.training.ladder._that_fit", {})
    np.testing.assert_allclose(tag(), expected, atol=1e-5)
    assert sizes == [5, *[2, 2, 2, 2, 1, 1] * 2, *[2, 2, 2, 1] * 2]  # once too many, then never again


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


def pool_of(clips):
    return ClipPool((clips,), clips.truth, torch.arange(len(clips)))


class Fixed(EpochRng):
    """Fixed random numbers: crops from the start, each clip mixed with the second of its pool, λ = 1/4."""

    def integers(self, below):
        return (below == 40).long()

    def beta(self, alpha, count):
        return torch.full((count,), 0.25)


def test_augmentation_agrees_with_a_reference(fold):
    """Crops of the power spectrogram are mixed, scaled and masked; labels are mixed with the same weight."""
    config = replace(fold.config, probability=1.0, gain=(2.0, 2.0), mask_half_width=(3, 3))
    trainer, indices = TaggerTrainer(replace(fold, config=config)), torch.tensor([30, 35, 39])
    pool = pool_of(fold.curated)
    power, target = trainer.augment(pool, indices, Fixed(0, 1))
    unchanged = TaggerTrainer(replace(fold, config=replace(config, probability=0.0)))
    crops, labels = unchanged.augment(pool, torch.tensor([30, 35, 39, 1]), Fixed(0, 1))
    assert (power[:, :3] == 0).all()  # the mask's centre is band 0, its half-width 3
    torch.testing.assert_close(power[:, 3:], 2 * (0.25 * crops[:3] + 0.75 * crops[3])[:, 3:])
    torch.testing.assert_close(target, 0.25 * labels[:3] + 0.75 * labels[3])


def test_mixup_draws_its_partners_from_the_whole_stream(fold):
    """A batch of one clip, repeated, meets every clip of its stream, and none that is held out, half of the time."""
    trainer = TaggerTrainer(replace(fold, noisy=None))
    pool = ClipPool((fold.curated,), torch.eye(40), trainer.training_indices)
    index = trainer.training_indices[:1]
    _, targets = trainer.augment(pool, index.repeat(800), EpochRng(0, 1))
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(800))
    partners = targets.clone()
    partners[:, index] = 0
    assert set(partners.any(dim=0).nonzero().flatten().tolist()) == set(trainer.training_indices[1:].tolist())
    assert 0.44 < partners.any(dim=1).float().mean() < 0.56
    weights = partners.sum(dim=1)[partners.any(dim=1)]
    assert abs(float(weights.mean()) - 0.5) < 0.04  # λ ~ Beta(1, 1), uniform
    assert abs(float(weights.std()) - 12**-0.5) < 0.03


def test_short_clips_have_a_random_position_in_their_crop(fold):
    config = replace(fold.config, probability=0.0)
    trainer = TaggerTrainer(replace(fold, config=config))
    assert fold.curated.frames[0] == 13
    silent = []
    for epoch in range(40):
        power, _ = trainer.augment(pool_of(fold.curated), torch.tensor([0]), EpochRng(0, epoch))
        heard = power[0].sum(dim=0).nonzero().flatten()
        assert len(heard) == 13
        silent.append(int(heard[0]))
    assert min(silent) <= 3
    assert max(silent) >= 32


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 20_000), min_size=1, max_size=4), st.integers(0, 1000))
def test_no_labelled_crop_of_an_audible_clip_is_silent(fold, lengths, seed):
    """At least a quarter of a clip, or of the crop of a longer one, is heard in every crop that stage 2 takes of it."""
    with TemporaryDirectory() as folder:
        clips = TaggedClips(packed(Path(folder) / "clips", noise(seed, lengths), 14700), CLASSES, MEL, CPU)
        trainer = semi_trainer(replace(fold, config=replace(fold.config, probability=0.0)), slice_probability=1.0)
        indices = torch.arange(len(lengths)).repeat(30)
        power = trainer.crop(pool_of(clips), indices, EpochRng(seed, 1))
    heard = (power.sum(dim=1) > 0).sum(dim=1)
    assert (heard >= 0.25 * clips.frames[indices].clamp(max=48)).all()


def test_stage_2_slices_clips_along_time_and_places_short_ones_again(fold):
    trainer = semi_trainer(replace(fold, config=replace(fold.config, probability=0.0)), slice_probability=1.0)
    power = trainer.crop(pool_of(fold.noisy), torch.arange(30).repeat(20), EpochRng(0, 1))
    heard = power.sum(dim=1) > 0
    kept = heard.sum(dim=1)  # frames of the 38 that a clip has, in a crop of 48
    assert kept.min() == 10
    assert kept.max() == 38
    assert abs(float(kept.float().mean()) - 0.625 * 38) < 1
    assert (power.sum(dim=2) > 0).all()  # no band is lost
    assert all(mask.nonzero().flatten().diff().eq(1).all() for mask in heard)
    first = heard.float().argmax(dim=1)
    assert first.min() == 0
    assert (first + kept).max() == 48
    # What is kept comes from any part of the clip: it equals a piece of the whole clip's spectrogram.
    whole = pool_of(fold.noisy).crops(torch.tensor([0]), torch.zeros(1, dtype=torch.int64), 38, trainer.mel_power)[0]
    sources = []
    for row in range(0, 600, 30):
        part = power[row, :, first[row] : first[row] + kept[row]]
        distances = (whole.unfold(1, part.shape[1], 1) - part.unsqueeze(1)).abs().sum(dim=(0, 2))
        assert distances.min() < 1e-4 * part.sum()
        sources.append(int(distances.argmin()))
    assert max(sources) - min(sources) > 10


def test_the_third_stream_is_drawn_from_curated_and_noisy_clips_as_one_pool(fold):
    """On average half of it is curated, and mixup's partners come from both as often as there are clips."""
    trainer = semi_trainer(fold)
    curated, noisy, semi = trainer.streams(EpochRng(0, 1))
    assert [len(batch) for batch in curated.batches] == [8] * trainer.steps
    assert [len(batch) for batch in noisy.batches] == [8] * trainer.steps
    assert [len(batch) for batch in semi.batches] == [8] * trainer.steps
    torch.testing.assert_close(semi.pool.target[:40], fold.curated.truth)
    torch.testing.assert_close(semi.pool.target[40:].sum(dim=1), torch.ones(30))
    assert semi.head is trainer.network.curated
    kept = 40 + list(KFold(5, shuffle=True, random_state=42).split(np.arange(30)))[1][0]
    training = trainer.training_indices.tolist()
    assert semi.pool.members.tolist() == [*training, *kept]
    drawn = torch.cat([torch.cat(trainer.streams(EpochRng(0, epoch))[2].batches) for epoch in range(60)])
    counts = drawn.bincount(minlength=70)
    assert set(counts.nonzero().flatten().tolist()) == {*training, *kept.tolist()}
    assert abs(float((drawn < 40).float().mean()) - 0.5) < 0.04
    for members in (training, kept):  # uniform within each
        share = counts[members] / counts[members].sum()
        assert share.min() * len(members) > 0.4
        assert share.max() * len(members) < 1.8
    twice = [
        len(set(batch.tolist())) < 8 for epoch in range(20) for batch in trainer.streams(EpochRng(0, epoch))[2].batches
    ]
    assert any(twice)  # with replacement
    held_out = set(trainer.held_out.tolist())
    assert held_out.isdisjoint([*torch.cat(curated.batches).tolist(), *drawn.tolist()])


def test_noisy_clips_are_shuffled_again_only_after_a_pass_over_all(fold):
    trainer = TaggerTrainer(fold)
    drawn = []
    for epoch in range(1, 17):  # 32 clips an epoch, of 30
        trainer.epoch = epoch
        drawn += torch.cat(trainer.streams(EpochRng(0, epoch))[1].batches).tolist()
    passes = [drawn[start : start + 30] for start in range(0, len(drawn) - 30, 30)]
    assert all(sorted(numbers) == list(range(30)) for numbers in passes)
    assert passes[0] != passes[1]


def test_an_epoch_trains_on_every_curated_clip(fold):
    """Also on those of the incomplete last batch; a single clip is left out, since it has no batch statistics."""
    trainer = TaggerTrainer(replace(fold, config=replace(fold.config, batch=12)))
    curated, noisy = trainer.streams(EpochRng(0, 1))
    assert [len(batch) for batch in curated.batches] == [12, 12, 8]
    assert [len(batch) for batch in noisy.batches] == [12, 12, 12]
    assert sorted(torch.cat(curated.batches).tolist()) == sorted(trainer.training_indices.tolist())
    assert trainer.train(1)["loss"] > 0
    assert TaggerTrainer(replace(fold, config=replace(fold.config, batch=31), noisy=None)).steps == 1


def test_the_noisy_heads_loss_follows_its_option(fold):
    """released: binary cross-entropy of σ(σ(logit)), as in the released code; bce: of σ(logit)."""
    logits, target = torch.tensor([[[-4.0, 0.3], [2.0, -0.7]], [[1, 0], [0.4, 1]]], dtype=torch.float64)
    expected = {}
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    for name, p in (("bce", sigmoid(logits.numpy())), ("released", sigmoid(sigmoid(logits.numpy())))):
        expected[name] = -(target.numpy() * np.log(p) + (1 - target.numpy()) * np.log(1 - p)).mean()
    for name in ("released", "bce"):
        trainer = semi_trainer(replace(fold, config=replace(fold.config, noisy_loss=name)))
        for stage in (TaggerTrainer(replace(fold, config=replace(fold.config, noisy_loss=name))), trainer):
            curated, noisy = stage.streams(EpochRng(0, 1))[:2]
            assert float(noisy.loss(logits, target)) == pytest.approx(expected[name], rel=1e-12)
            assert float(curated.loss(logits, target)) == pytest.approx(expected["bce"], rel=1e-12)
    # A missed positive at logit -4 hardly pulls in the released loss.
    for name, pull in (("released", 0.009), ("bce", 0.98)):
        logit = torch.tensor([[-4.0]], requires_grad=True)
        NOISY_LOSSES[name](logit, torch.ones(1, 1)).backward()
        assert -float(logit.grad) == pytest.approx(pull, abs=0.003)
    assert TaggerTraining().noisy_loss == "released"


def test_the_stem_keeps_pytorchs_initialisation():
    """The first convolution is uniform with root mean square 1/√(3·49); the others are normal by their fan-out."""
    torch.manual_seed(0)
    network = TaggerNetwork(TaggerConfig(), 80)
    stem = network.stem[0].weight
    assert float(stem.detach().square().mean().sqrt()) == pytest.approx(147**-0.5, rel=0.03)
    assert float(stem.detach().abs().max()) <= 1 / 7
    inner = network.stages[1][1].conv1.weight
    assert float(inner.detach().std()) == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.03)
    assert float(inner.detach().abs().max()) > 3 * float(inner.detach().std())


@pytest.mark.parametrize("joint", [False, True])
def test_the_loss_of_stage_2_agrees_with_a_reference(fold, joint):
    """BCE + BCE + 20 · MSE; batch statistics are those of each stream, or of all streams in a joint pass."""
    trainer = semi_trainer(replace(fold, config=replace(fold.config, joint_pass=joint, noisy_loss="bce")))
    network, rng = deepcopy(trainer.network).train(), EpochRng(3, 1)
    streams = trainer.streams(rng)
    parts = []
    for stream in streams:
        power, target = trainer.augment(stream.pool, stream.batches[0], rng)
        parts.append((normalise(to_decibels(power)), target))
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
