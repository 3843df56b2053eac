"""What only a GPU has: CUDA graphs, fused Adam, bfloat16, audio that lies elsewhere; with tiny networks on noise.

All other tests hide the GPU. Where there is one, ``test_on_a_gpu`` runs the rest of this file in a process that sees it.
By hand, TAGASC_TEST_DEVICE=cpu runs the same on the CPU, as far as it goes there.
"""

import gc
import os
import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch

from tagasc.audio.packed import PackedAudio
from tagasc.audio.prefetch import DeviceBuffer
from tagasc.audio.store import AudioStore
from tagasc.scene.config import SceneTraining
from tagasc.scene.inference import codes_and_logits
from tagasc.scene.training import SceneTrainer
from tagasc.tagger.clips import TaggedClips
from tagasc.tagger.config import TaggerTraining
from tagasc.tagger.inference import Ensemble
from tagasc.tagger.training import FoldSetup, TaggerTrainer
from tagasc.training.augment import EpochRng
from tagasc.training.cuda_graph import CudaGraph, _side_stream
from tagasc.training.loop import fit
from tagasc.utils.device import choose_device
from tests.helpers import (
    CLASSES,
    ENVIRONMENT,
    MEL,
    ROOT,
    SYSTEM,
    TINY,
    TRUNKS,
    Stop,
    cut_after,
    made_up,
    noise,
    packed,
    packed_noise,
    tiny,
)

WANTED = os.environ.get("TAGASC_TEST_DEVICE")
GPU = WANTED == "cuda"
if GPU and not torch.cuda.is_available():
    pytest.skip("torch sees no GPU", allow_module_level=True)
CPU = torch.device("cpu")
STORAGE = ("gpu", "pinned", "disk") if GPU else ("auto",)
TRAINING = SceneTraining(
    epochs=2, batch=4, crop_seconds=9.7, mixup_alpha=1.0, mixup_from_epoch=2, learning_rate=1e-3, schedule="cosine"
)


@pytest.mark.skipif(WANTED is not None, reason="this is the process that it starts")
def test_on_a_gpu():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", __file__], env={**ENVIRONMENT, "TAGASC_TEST_DEVICE": "cuda"},
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    if done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        pytest.skip("torch sees no GPU")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def device():
    if WANTED is None:
        pytest.skip("runs in test_on_a_gpu")
    return choose_device(WANTED, deterministic=True)


@pytest.fixture(scope="module")
def clips(device, tmp_path_factory):
    """The same clips, in two folders, by where their audio lies, and on the CPU."""
    folders = [packed_noise(tmp_path_factory.mktemp("gpu") / "p", seed) for seed in (0, 1)]
    found = {storage: made_up([AudioStore(folder, device, storage) for folder in folders]) for storage in STORAGE}
    return {**found, "cpu": made_up([AudioStore(folder, CPU) for folder in folders])}


def task_of(clips, compiled=False):
    return SceneTrainer(TRAINING, TRUNKS["table1"], SYSTEM, clips, None, seed=1, compiled=compiled)


def last_layers(task):
    return torch.cat([layer.weight.detach().flatten() for layer in (task.network.code, task.network.output)]).cpu()


def trained(clips, compiled=False, captured=False):
    """Losses of two epochs, and how far the last layers' weights went."""
    task = task_of(clips, compiled)
    task.step._captures = captured and GPU
    start = last_layers(task)
    losses = [task.train(epoch)["loss"] for epoch in (1, 2)]
    assert (task.step._graph._graph is not None) == task.step._captures
    task.itself = task  # only the garbage collector frees it, with its graph
    return losses, last_layers(task) - start


def distance(found, wanted):
    return float((torch.as_tensor(found) - torch.as_tensor(wanted)).norm() / torch.as_tensor(wanted).norm())


@pytest.mark.parametrize("storage", STORAGE)
def test_batches_are_the_cpus_wherever_the_audio_lies(clips, storage):
    rng = EpochRng(0, 1)
    which, starts = (rng.integers(torch.full((50, 4), below)) for below in (24, 400))
    found, wanted = (
        torch.stack([batch.clone() for batch in clips[place].store.batches(which, starts, 973)])
        for place in (storage, "cpu")
    )
    assert torch.equal(found.cpu(), wanted)


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize(
    ("compiled", "captured", "of_loss", "of_way"),
    [(False, False, 1e-6, 1e-4), (False, True, 1e-4, 1e-2), (True, True, 1e-2, 0.2)],
    ids=["plain", "captured", "compiled and captured"],
)
def test_every_step_learns_the_same(clips, storage, compiled, captured, of_loss, of_way):
    """Over two epochs of one plan, the second with mixup; what is compiled rounds to bfloat16 in other places."""
    wanted, way = trained(clips[STORAGE[0]])
    losses, our_way = trained(clips[storage], compiled, captured)
    assert losses == pytest.approx(wanted, rel=of_loss)
    assert distance(our_way, way) <= of_way


def test_one_training_after_another(clips):
    """The second records its graph while the first one's waits for the garbage collector; the third after it."""
    found = [trained(clips[STORAGE[0]], compiled=True, captured=True)[0] for _ in range(2)]
    gc.collect()
    assert found[0] == found[1] == trained(clips[STORAGE[0]], compiled=True, captured=True)[0]


@pytest.mark.skipif(not GPU, reason="of CUDA's streams")
def test_no_copy_is_on_the_stream_that_a_graph_is_recorded_on(device):
    """Which would spoil the recording; torch has 32 streams, and gives out the next in turn."""
    slots = [DeviceBuffer((4,), torch.int16, device, staged=False) for _ in range(100)]
    used = {slot._stream.cuda_stream for slot in slots}
    assert len(used) == 1
    assert not used & {_side_stream().cuda_stream, torch.cuda.current_stream().cuda_stream}


@pytest.mark.skipif(not GPU, reason="of CUDA's graphs")
def test_a_recording_that_fails_leaves_the_stream_as_it_was(device):
    before, values = torch.cuda.current_stream(), torch.ones(3, device=device)
    with pytest.raises(RuntimeError):
        CudaGraph(plain_calls=0)(lambda: float(values.sum()))  # waits for the GPU, which no recording may
    assert torch.cuda.current_stream() == before


def test_without_deterministic_algorithms_it_learns_nearly_the_same(clips):
    wanted, way = trained(clips[STORAGE[0]])
    choose_device(WANTED)
    try:
        losses, our_way = trained(clips[STORAGE[0]], compiled=True, captured=True)
    finally:
        choose_device(WANTED, deterministic=True)
    assert losses == pytest.approx(wanted, rel=1e-2)
    assert distance(our_way, way) <= 0.2


def cut_and_resumed(before, after, folder):
    """Train one task for an epoch, and let the other go on from its checkpoint."""
    cut_after(before, 1)
    with pytest.raises(Stop):
        fit(before, folder, 2, before.metadata())
    fit(after, folder, 2, after.metadata())
    assert {int(state["step"]) for state in after.optimizer.state.values()} == {2 * after.steps_per_epoch}


@pytest.mark.parametrize("compiled", [False, True])
def test_cut_and_resumed_ends_at_the_same_weights(clips, tmp_path, compiled):
    whole, *parts = (task_of(clips[STORAGE[0]], compiled) for _ in range(3))
    fit(whole, tmp_path / "whole", 2, whole.metadata())
    cut_and_resumed(*parts, tmp_path / "cut")
    assert (tmp_path / "cut/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


@pytest.mark.parametrize(("first", "second"), [("cpu", STORAGE[0]), (STORAGE[0], "cpu")])
def test_a_checkpoint_goes_on_on_another_device(clips, tmp_path, first, second):
    _, way = trained(clips["cpu"])
    before, after = (task_of(clips[place], compiled=place != "cpu") for place in (first, second))
    start = last_layers(after)
    cut_and_resumed(before, after, tmp_path)
    assert distance(last_layers(after) - start, way) <= 0.2


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("compiled", [False, True])
def test_codes_are_the_cpus(device, clips, storage, compiled):
    task = task_of(clips["cpu"])
    task.train(1)
    wanted = codes_and_logits(task.network, clips["cpu"])
    network = deepcopy(task.network).to(device)
    network.compiled = compiled
    found = codes_and_logits(network, clips[storage])
    for ours, theirs in zip(found, wanted, strict=True):
        assert distance(ours, theirs) <= 3e-2


@pytest.mark.parametrize("compiled", [False, True])
def test_the_tagger_learns_what_it_does_on_the_cpu(device, tmp_path, compiled):
    folders = [packed(tmp_path / str(n), noise(n, [6000] * 30), MEL.sampling_rate) for n in (0, 1)]
    config = TaggerTraining(epochs=2, cycle=2, batch=8, crop_frames=32, mask_half_width=(1, 4), folds=2)
    losses = []
    for place in (CPU, device):
        curated, noisy = (TaggedClips(folder, CLASSES, MEL, place) for folder in folders)
        fold = FoldSetup(0, curated, noisy, config, TINY, MEL, 1, tmp_path, place, compiled and place == device)
        task = TaggerTrainer(fold)
        losses.append(task.train(1)["loss"])
        assert 0 < task.validate()["validation_lwlrap"] <= 1
    assert losses[1] == pytest.approx(losses[0], rel=3e-2)


def test_tags_are_the_cpus(device, tmp_path):
    network = tiny()
    network.curated[-1].weight.data.mul_(50)  # tags all over 0..1
    scenes = PackedAudio(packed(tmp_path / "scenes", noise(0, [16000, 9000, 16000], channels=2), 16000))
    folder = packed(tmp_path / "clips", noise(1, [4410, 14700, 5000, 33333]), MEL.sampling_rate)
    found = []
    for place in (CPU, device):
        ensemble = Ensemble([deepcopy(network).to(place)], MEL, CLASSES, (0, 8))
        clips = TaggedClips(folder, None, MEL, place)
        found.append(np.concatenate([ensemble.tag_scenes(scenes, place), ensemble.tags(clips, torch.arange(4))]))
    np.testing.assert_allclose(found[1], found[0], atol=3e-2)
