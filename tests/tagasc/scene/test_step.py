"""The training step, compared with the reference network."""

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


def reference_loss(reference, samples, tags, target, mixing):
    """Compute pre-emphasis, mixup, network and loss, written out."""
    wave = (samples[:, 1:] - 0.97 * samples[:, :-1]) * 32000
    order, weight = mixing
    wave, tags, target = (weight * x + (1 - weight) * x[order] for x in (wave, tags, target))
    return -(target * reference(wave, tags)[1].log_softmax(1)).sum(1).mean()


def step_and_reference(clips, trunk, dtype, **settings):
    torch.manual_seed(1)
    network = SceneNetwork(TRUNKS[trunk], SYSTEM, 3, tags=5).to(dtype)
    reference = ReferenceNetwork(network)
    return SceneStep(network, clips, SceneTraining(mixup_alpha=1.0, **settings), FRAMES), reference


def gradients(step, reference):
    """Yield name, gradient and reference gradient, in the reference network's shape."""
    named = dict(step.network.named_parameters())
    for name, value in reference.named_parameters():
        ours = named.get(name, named.get(f"trunk.{name}")).grad
        ours = as_convolution(ours, 2) if name == "stem.weight" else ours
        yield name, ours.squeeze(2) if ours is not None and ours.dim() == 4 else ours, value.grad


@pytest.mark.parametrize("trunk", TRUNKS)
def test_forward_and_gradients_are_the_reference_networks(clips, trunk):
    step, reference = step_and_reference(clips, trunk, torch.float64)
    values, mixing = (
        batch(clips, torch.float64),
        (torch.arange(BATCH).roll(2), torch.tensor([0.7], dtype=torch.float64)),
    )
    loss, wanted_loss = step.loss(*values, mixing), reference_loss(reference, *values, mixing)
    assert loss.item() == pytest.approx(wanted_loss.item(), rel=1e-12)
    loss.backward()
    wanted_loss.backward()
    compared = 0
    for name, gradient, wanted in gradients(step, reference):
        compared += 1
        if name.endswith(("stem.bias", "conv1.bias", "conv2.bias", "extra.bias")):
            # A bias before batch normalisation has no effect; its gradient is rounding error, and left out.
            assert gradient is None, name
            assert wanted.norm() <= 1e-9, name
            continue
        assert (gradient - wanted).norm() <= 1e-9 * wanted.norm(), name
    assert compared == len(list(step.network.parameters()))
    for name, wanted in reference.named_buffers():
        if "running" in name:  # what evaluation normalises with
            torch.testing.assert_close(step.network.trunk.get_buffer(name), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_float32_forward_is_the_reference_networks(clips, trunk):
    step, reference = step_and_reference(clips, trunk, torch.float32)
    samples, tags, _ = batch(clips, torch.float32)
    wave = (samples[:, 1:] - 0.97 * samples[:, :-1]) * 32000
    code, _ = step.network(samples, tags)
    wanted, _ = reference(wave, tags)
    assert (code - wanted).norm() <= 1e-5 * wanted.norm()


def test_bfloat16_stays_near(clips, monkeypatch):
    """The trunk runs in bfloat16, as on a GPU; all layers after it run in float32."""
    bfloat16 = torch.autocast("cpu", torch.bfloat16)
    seen, to_feature_map = [], Fusion.to_feature_map

    def spy(fusion, feature_map, tags):
        seen.append((feature_map.dtype, torch.is_autocast_enabled("cpu")))
        return to_feature_map(fusion, feature_map, tags)

    monkeypatch.setattr("tagasc.scene.network.autocast", lambda device: bfloat16)
    monkeypatch.setattr(Fusion, "to_feature_map", spy)
    step, reference = step_and_reference(clips, "table1", torch.float32)
    samples, tags, target = batch(clips, torch.float32)
    mixing = (torch.arange(BATCH).roll(2), torch.tensor([0.7]))
    wave, mixed_tags = mix((samples[:, 1:] - 0.97 * samples[:, :-1]) * 32000, *mixing), mix(tags, *mixing)
    assert step.network.feature_map(samples).dtype == torch.bfloat16
    code, _ = step.network(samples, tags, mixing)
    loss = step.loss(samples, tags, target, mixing)
    assert {values.dtype for values in codes_and_logits(step.network, clips)} == {np.dtype("float32")}
    assert set(seen) == {(torch.float32, False)}
    wanted, _ = reference(wave, mixed_tags)
    assert (code - wanted).norm() <= 3e-2 * wanted.norm()
    loss.backward()
    reference_loss(reference, samples, tags, target, mixing).backward()
    directions = (
        torch.cat([pair[side].flatten() for pair in gradients(step, reference) if pair[1] is not None])
        for side in (1, 2)
    )
    assert F.cosine_similarity(*directions, dim=0) >= 0.9


def test_an_epoch_uses_the_plans_crops_mixup_and_learning_rates(clips):
    """Compared with a loop over the stored samples with the reference network and Adam."""
    step, reference = step_and_reference(clips, "table1", torch.float32, weight_decay=1e-3)
    plan = EpochPlan(
        torch.randperm(12).reshape(2, BATCH),
        torch.randint(0, 400, (2, BATCH)),
        torch.stack([torch.arange(BATCH).roll(1), torch.arange(BATCH).roll(3)]),
        torch.tensor([[0.6], [0.9]]),
        torch.tensor([[1e-3], [5e-4]], dtype=torch.float64),
    )
    optimizer = torch.optim.Adam(reference.parameters(), weight_decay=1e-3, amsgrad=True)
    audio = np.asarray(clips.packed.samples, np.float32).reshape(12, 1400, 2) / 32768
    losses = []
    for number in range(2):
        cuts = zip(plan.clip_indices[number], plan.crop_starts[number], strict=True)
        samples = torch.from_numpy(np.stack([audio[clip, start : start + FRAMES] for clip, start in cuts]))
        target = F.one_hot(plan.clip_indices[number] % 3, 3).float()
        optimizer.param_groups[0]["lr"] = float(plan.learning_rate[number])
        optimizer.zero_grad()
        loss = reference_loss(
            reference,
            samples,
            clips.tags[plan.clip_indices[number]],
            target,
            (plan.mixup_order[number], plan.mixup_weight[number]),
        )
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert step.epoch(plan, "") == pytest.approx(np.mean(losses), rel=1e-4)
    for ours, wanted in ((step.network.code, reference.code), (step.network.output, reference.output)):
        torch.testing.assert_close(ours.weight, wanted.weight, rtol=1e-3, atol=1e-5)


def test_the_step_of_a_gpu_never_waits_for_the_cpu(clips, monkeypatch, tmp_path):
    """Fake CUDA tensors raise an error where a result depends on a value, or where devices mix.

    Gather and forward pass are covered; bfloat16, backward pass, fused Adam and compilation are not.
    """
    monkeypatch.setattr(Trunk, "to", lambda trunk, **_: trunk)  # fake parameters cannot be converted
    monkeypatch.setattr("tagasc.audio.store._choose_storage", lambda *_: ("gpu", "as asked"))
    cuda, more = torch.device("cuda"), packed_noise(tmp_path / "more", seed=1)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = made_up([AudioStore(packed, cuda, "gpu") for packed in (clips.packed, more)])
        mode.allow_non_fake_inputs = False  # a real tensor is an error from now on
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
            float(step._loss)  # the check works


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on the CPU")
def test_optimiser_averages_of_a_checkpoint_take_the_memory_format_of_the_weights(clips, monkeypatch):
    """A wide network's checkpoint from a CPU is contiguous; fused Adam on a GPU needs channels-last."""

    def new_trainer():
        settings = SceneTraining(epochs=2, batch=BATCH, crop_seconds=9.7, learning_rate=1e-3)
        return SceneTrainer(settings, TRUNKS["wide"], SYSTEM, clips, None, 1)

    def layouts(trainer):
        weight = trainer.network.trunk.blocks[0].conv1.weight
        return {value.stride() for value in (weight, *trainer.optimizer.state[weight].values()) if value.dim()}

    first = new_trainer()
    first.train(1)
    monkeypatch.setattr("tagasc.scene.step.WIDE", 1000)  # as on a GPU
    second = new_trainer()
    second.network.load_state_dict(first.network.state_dict())
    second.optimizer.load_state_dict(deepcopy(first.optimizer.state_dict()))
    assert second.train(2)["loss"] == pytest.approx(first.train(2)["loss"], rel=1e-5)
    assert layouts(first) == {(384, 3, 3, 1)}
    assert layouts(second) == {(384, 1, 384, 128)}
    assert fold_batch_norm(first.network).trunk.blocks[0].conv1.weight.stride() == (384, 1, 384, 128)  # for evaluation


def test_systems_share_compiled_regions(clips):
    """Two systems compile once, for training and for codes; results equal eager mode up to rounding."""
    compiled_regions.cache_clear()
    torch._dynamo.reset()
    counts = torch._dynamo.utils.counters
    counts.clear()
    trunk = TrunkConfig(8, (8, 8), code_size=4)
    settings = SceneTraining(epochs=1, batch=BATCH, crop_seconds=9.7, mixup_alpha=0.0, learning_rate=1e-3)
    for system in (System(), System(heads=4)):
        results = []
        for rung in ("plain", "compiled"):
            system_clips = clips if system.uses_tags else clips.tagged(None)
            trainer = SceneTrainer(settings, trunk, system, system_clips, None, 1, rung)
            results.append((trainer.train(1)["loss"], codes_and_logits(trainer.network, system_clips)[0]))
        (eager_loss, eager_codes), (loss, codes) = results
        assert loss == pytest.approx(eager_loss, rel=1e-4)
        assert np.abs(codes - eager_codes).max() <= 1e-3 * np.abs(eager_codes).max()
    assert counts["stats"]["unique_graphs"] == 6  # three regions, in training and in evaluation


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on the CPU")
def test_a_compiled_block_saves_and_moves_little_memory(caplog):
    """The backward pass needs the input, the first norm's input and output, the second's input, and a byte per maximum.

    The compiler counts 27.8 times the input as read and written, convolutions included; without ``_RECOMPUTE`` 32.8.
    """
    compiled_regions.cache_clear()
    torch._dynamo.reset()
    caplog.set_level(logging.INFO, "torch._inductor.compile_fx")  # otherwise it does not count
    counts = torch._inductor.metrics
    counts.reset()
    block = Block(8, 8, 0.3).to(memory_format=torch.channels_last)
    x = torch.randn(4, 8, 1, 272).to(memory_format=torch.channels_last).requires_grad_()
    saved = []
    with torch.compiler.config.patch(force_disable_caches=True):
        with torch.autograd.graph.saved_tensors_hooks(lambda value: saved.append(value) or value, lambda value: value):
            y = compiled_regions()[1](block, x)
        y.sum().backward()
    large = [(value.dtype, value.numel()) for value in saved if value.numel() > 1000]
    assert sorted(large, key=str) == [(torch.float32, x.numel())] * 4 + [(torch.int8, 4 * 8 * 90)]
    assert 0 < counts.num_bytes_accessed <= 29 * 4 * x.numel()


def test_the_recompile_limit_allows_the_papers_network_in_many_shapes():
    """Beyond torch's limit a region would run eagerly, with only a warning."""
    compiled_regions.cache_clear()
    with torch._dynamo.config.patch(recompile_limit=8):
        compiled_regions()
        parts = len(TrunkConfig().block_filters) + 1  # the first region holds a block; the last region is extra
        assert torch._dynamo.config.recompile_limit >= 2 * 4 * parts  # training and evaluation, four lengths
        assert torch._dynamo.config.recompile_limit <= torch._dynamo.config.accumulated_recompile_limit
    compiled_regions.cache_clear()
