"""The step that trains, against the network as the paper draws it."""

import logging
import shutil
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from tagasc.audio.store import AudioStore
from tagasc.scene.config import SceneTraining
from tagasc.scene.fusion import Fusion
from tagasc.scene.inference import codes_and_logits
from tagasc.scene.network import SceneNetwork, compiled_regions, fold_batch_norm
from tagasc.scene.reference import ReferenceNetwork, as_convolution
from tagasc.scene.step import EpochPlan, SceneStep
from tagasc.scene.systems import System
from tagasc.scene.training import SceneTrainer
from tagasc.scene.trunk import Block, Trunk, TrunkConfig
from tagasc.training.augment import mix
from tests.helpers import CPU, SYSTEM, TRUNKS, made_up, packed_noise

BATCH, FRAMES = 6, 12 * 27 * 3 + 1


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return made_up([AudioStore(packed_noise(tmp_path_factory.mktemp("step") / "p"), CPU)])


def batch(clips, dtype):
    torch.manual_seed(3)
    samples = torch.randn(BATCH, FRAMES, 2, dtype=dtype).clamp(-1, 1)
    return samples, torch.rand(BATCH, 5, dtype=dtype), F.one_hot(torch.arange(BATCH) % 3, 3).to(dtype)


def by_the_paper(plain, samples, tags, target, mixing):
    """Pre-emphasis, mixup, network and loss, written out."""
    wave = (samples[:, 1:] - 0.97 * samples[:, :-1]) * 32000
    order, weight = mixing
    wave, tags, target = (weight * x + (1 - weight) * x[order] for x in (wave, tags, target))
    return -(target * plain(wave, tags)[1].log_softmax(1)).sum(1).mean()


def built(clips, trunk, dtype, **settings):
    torch.manual_seed(1)
    network = SceneNetwork(TRUNKS[trunk], SYSTEM, 3, tags=5).to(dtype)
    plain = ReferenceNetwork(network)
    return SceneStep(network, clips, SceneTraining(mixup_alpha=1.0, **settings), FRAMES), plain


def gradients(step, plain):
    """Pairs of gradients by name, ours in the plain network's shape."""
    named = dict(step.network.named_parameters())
    for name, value in plain.named_parameters():
        ours = named.get(name, named.get(f"trunk.{name}")).grad
        ours = as_convolution(ours, 2) if name == "stem.weight" else ours
        yield name, ours.squeeze(2) if ours is not None and ours.dim() == 4 else ours, value.grad


@pytest.mark.parametrize("trunk", TRUNKS)
def test_forward_and_gradients_are_the_plain_networks(clips, trunk):
    step, plain = built(clips, trunk, torch.float64)
    values, mixing = (
        batch(clips, torch.float64),
        (torch.arange(BATCH).roll(2), torch.tensor([0.7], dtype=torch.float64)),
    )
    ours, theirs = step.loss(*values, mixing), by_the_paper(plain, *values, mixing)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    ours.backward()
    theirs.backward()
    compared = 0
    for name, mine, wanted in gradients(step, plain):
        compared += 1
        if name.endswith(("stem.bias", "conv1.bias", "conv2.bias", "extra.bias")):
            # A bias before batch normalisation shifts nothing; its gradient is rounding, and left out.
            assert mine is None, name
            assert wanted.norm() <= 1e-9, name
            continue
        assert (mine - wanted).norm() <= 1e-9 * wanted.norm(), name
    assert compared == len(list(step.network.parameters()))
    for name, wanted in plain.named_buffers():
        if "running" in name:  # what evaluation normalises with
            torch.testing.assert_close(step.network.trunk.get_buffer(name), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_float32_forward_is_the_plain_networks(clips, trunk):
    step, plain = built(clips, trunk, torch.float32)
    samples, tags, _ = batch(clips, torch.float32)
    wave = (samples[:, 1:] - 0.97 * samples[:, :-1]) * 32000
    code, _ = step.network(samples, tags)
    wanted, _ = plain(wave, tags)
    assert (code - wanted).norm() <= 1e-5 * wanted.norm()


def test_bfloat16_stays_near(clips, monkeypatch):
    """The trunk in bfloat16, as on a GPU, the head in float32."""
    bfloat16 = torch.autocast("cpu", torch.bfloat16)
    seen, to_feature_map = [], Fusion.to_feature_map

    def spy(fusion, feature_map, tags):
        seen.append((feature_map.dtype, torch.is_autocast_enabled("cpu")))
        return to_feature_map(fusion, feature_map, tags)

    monkeypatch.setattr("tagasc.scene.network.autocast", lambda device: bfloat16)
    monkeypatch.setattr(Fusion, "to_feature_map", spy)
    step, plain = built(clips, "table1", torch.float32)
    samples, tags, target = batch(clips, torch.float32)
    mixing = (torch.arange(BATCH).roll(2), torch.tensor([0.7]))
    wave, mixed_tags = mix((samples[:, 1:] - 0.97 * samples[:, :-1]) * 32000, *mixing), mix(tags, *mixing)
    assert step.network.feature_map(samples).dtype == torch.bfloat16
    code, _ = step.network(samples, tags, mixing)
    loss = step.loss(samples, tags, target, mixing)
    assert {values.dtype for values in codes_and_logits(step.network, clips)} == {np.dtype("float32")}
    assert set(seen) == {(torch.float32, False)}
    wanted, _ = plain(wave, mixed_tags)
    assert (code - wanted).norm() <= 3e-2 * wanted.norm()
    loss.backward()
    by_the_paper(plain, samples, tags, target, mixing).backward()
    mine, theirs = (
        torch.cat([pair[side].flatten() for pair in gradients(step, plain) if pair[1] is not None]) for side in (1, 2)
    )
    assert F.cosine_similarity(mine, theirs, dim=0) >= 0.9


def test_an_epoch_takes_the_plans_crops_mixtures_and_rates(clips):
    """Against a loop with the plain network and Adam, from the stored samples on."""
    step, plain = built(clips, "table1", torch.float32, weight_decay=1e-3)
    plan = EpochPlan(
        torch.randperm(12).reshape(2, BATCH),
        torch.randint(0, 400, (2, BATCH)),
        torch.stack([torch.arange(BATCH).roll(1), torch.arange(BATCH).roll(3)]),
        torch.tensor([[0.6], [0.9]]),
        torch.tensor([[1e-3], [5e-4]], dtype=torch.float64),
    )
    optimizer = torch.optim.Adam(plain.parameters(), weight_decay=1e-3, amsgrad=True)
    audio = np.asarray(clips.packed.samples, np.float32).reshape(12, 1400, 2) / 32768
    losses = []
    for number in range(2):
        cuts = zip(plan.clip_indices[number], plan.crop_starts[number], strict=True)
        samples = torch.from_numpy(np.stack([audio[clip, start : start + FRAMES] for clip, start in cuts]))
        target = F.one_hot(plan.clip_indices[number] % 3, 3).float()
        optimizer.param_groups[0]["lr"] = float(plan.learning_rate[number])
        optimizer.zero_grad()
        loss = by_the_paper(
            plain,
            samples,
            clips.tags[plan.clip_indices[number]],
            target,
            (plan.mixup_order[number], plan.mixup_weight[number]),
        )
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert step.epoch(plan, "") == pytest.approx(np.mean(losses), rel=1e-4)
    for ours, wanted in ((step.network.code, plain.code), (step.network.output, plain.output)):
        torch.testing.assert_close(ours.weight, wanted.weight, rtol=1e-3, atol=1e-5)


def test_the_step_of_a_gpu_never_waits_for_the_cpu(clips, monkeypatch, tmp_path):
    """On fake CUDA tensors: whatever depends on a value, or mixes devices, is an error there.

    Gather and forward pass are the real ones; bfloat16, the backward pass, fused Adam, compiling are not covered.
    """
    monkeypatch.setattr(Trunk, "to", lambda trunk, **_: trunk)  # fake parameters cannot be converted
    monkeypatch.setattr("tagasc.audio.store._choose_storage", lambda *_: ("gpu", "as asked"))
    cuda, more = torch.device("cuda"), packed_noise(tmp_path / "more", seed=1)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = made_up([AudioStore(packed, cuda, "gpu") for packed in (clips.packed, more)])
        mode.allow_non_fake_inputs = False  # from here on a real tensor is an error
        with cuda:
            network = SceneNetwork(TRUNKS["table1"], SYSTEM, 3, tags=5)
        step = SceneStep(network, fake, SceneTraining(mixup_alpha=1.0, centre_loss=0.1), FRAMES)
        shape = (2, BATCH)
        whole = [torch.zeros(shape, dtype=torch.int64) for _ in range(3)]
        step._captures = True
        step._begin(EpochPlan(*whole, torch.ones(2, 1), torch.ones(2, 1, dtype=torch.float64)))

        step.optimizer.param_groups[0]["fused"] = None  # the fused kernel is not known to fake tensors

        def gradients(loss):  # the engine of autograd wants a real GPU
            for value in network.parameters():
                value.grad = torch.zeros_like(value)

        monkeypatch.setattr(torch.Tensor, "backward", gradients)
        assert fake.store.on_gpu
        for _ in range(2):
            step._step()
        assert step._loss.device.type == "cuda"
        with pytest.raises(Exception, match=r"(?i)data.?dependent|_local_scalar_dense"):
            float(step._loss)  # this test can tell


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on the CPU")
def test_a_checkpoints_averages_take_the_layout_of_their_weights(clips, monkeypatch):
    """Of a wide network a CPU's checkpoint is contiguous; fused Adam, on a GPU, wants it channels-last."""

    def task():
        settings = SceneTraining(epochs=2, batch=BATCH, crop_seconds=9.7, learning_rate=1e-3)
        return SceneTrainer(settings, TRUNKS["wide"], SYSTEM, clips, None, 1, False)

    def layouts(of):
        weight = of.network.trunk.blocks[0].conv1.weight
        return {value.stride() for value in (weight, *of.optimizer.state[weight].values()) if value.dim()}

    first = task()
    first.train(1)
    monkeypatch.setattr("tagasc.scene.step.WIDE", 1000)  # as where there is a GPU
    second = task()
    second.network.load_state_dict(first.network.state_dict())
    second.optimizer.load_state_dict(deepcopy(first.optimizer.state_dict()))
    assert second.train(2)["loss"] == pytest.approx(first.train(2)["loss"], rel=1e-5)
    assert layouts(first) == {(384, 3, 3, 1)}
    assert layouts(second) == {(384, 1, 384, 128)}
    assert fold_batch_norm(first.network).trunk.blocks[0].conv1.weight.stride() == (384, 1, 384, 128)  # for evaluation


def test_systems_share_what_was_compiled(clips):
    """Compiled once for two systems, for training and for codes, and equal to the plain network but for rounding."""
    compiled_regions.cache_clear()
    torch._dynamo.reset()
    counts = torch._dynamo.utils.counters
    counts.clear()
    trunk = TrunkConfig(8, (8, 8), code_size=4)
    settings = SceneTraining(epochs=1, batch=BATCH, crop_seconds=9.7, mixup_alpha=0.0, learning_rate=1e-3)
    for system in (System(), System(heads=4)):
        found = []
        for compiled in (False, True):
            of_system = clips if system.uses_tags else clips.tagged(None)
            task = SceneTrainer(settings, trunk, system, of_system, None, 1, compiled)
            found.append((task.train(1)["loss"], codes_and_logits(task.network, of_system)[0]))
        (plain_loss, plain_codes), (loss, codes) = found
        assert loss == pytest.approx(plain_loss, rel=1e-4)
        assert np.abs(codes - plain_codes).max() <= 1e-3 * np.abs(plain_codes).max()
    assert counts["stats"]["unique_graphs"] == 6  # up to the first block, the second, what stands behind it


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on the CPU")
def test_a_compiled_block_uses_memory_as_little_as_it_can(caplog):
    """Kept for the backward pass: input, what stands before and behind the first norm, before the second, and a byte a
    maximum. Read and written in all, convolutions included: 27.8 times the input, by the compiler's own count; 32.8
    without ``_RECOMPUTE``, more with the biases' gradients.
    """
    compiled_regions.cache_clear()
    torch._dynamo.reset()
    caplog.set_level(logging.INFO, "torch._inductor.compile_fx")  # or it does not count
    counts = torch._inductor.metrics
    counts.reset()
    block = Block(8, 8, 0.3).to(memory_format=torch.channels_last)
    x = torch.randn(4, 8, 1, 272).to(memory_format=torch.channels_last).requires_grad_()
    kept = []
    with torch.compiler.config.patch(force_disable_caches=True):
        with torch.autograd.graph.saved_tensors_hooks(lambda value: kept.append(value) or value, lambda value: value):
            y = compiled_regions()[1](block, x)
        y.sum().backward()
    large = [(value.dtype, value.numel()) for value in kept if value.numel() > 1000]
    assert sorted(large, key=str) == [(torch.float32, x.numel())] * 4 + [(torch.int8, 4 * 8 * 90)]
    assert 0 < counts.num_bytes_accessed <= 29 * 4 * x.numel()


def test_a_compiler_may_make_every_part_of_the_papers_network_in_many_shapes():
    """Beyond torch's limit a part would run as it is, with no more than a warning."""
    compiled_regions.cache_clear()
    with torch._dynamo.config.patch(recompile_limit=8):
        compiled_regions()
        parts = len(TrunkConfig().block_filters) + 1  # the first holds a block, behind the last comes one more
        assert torch._dynamo.config.recompile_limit >= 2 * 4 * parts  # to train and to use, of four lengths
        assert torch._dynamo.config.recompile_limit <= torch._dynamo.config.accumulated_recompile_limit
    compiled_regions.cache_clear()
