"""GPU-only code: CUDA graphs, fused Adam, bfloat16, storage of audio; with tiny networks on noise.

All other tests hide the GPU. ``test_on_a_gpu`` runs the rest of this file in a process that sees it, if there is one.
The first thing to run on a new card, with the first failure's traceback:

    TAGASC_TEST_DEVICE=cuda python -m pytest tests/test_gpu.py -x

TAGASC_TEST_DEVICE=cpu runs the file on the CPU, as far as possible.
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
from tagasc.benchmark.rungs import compare, require_float32
from tagasc.benchmark.scene import SceneBenchmark
from tagasc.scene.config import SceneTraining
from tagasc.scene.inference import codes_and_logits
from tagasc.scene.network import SceneNetwork
from tagasc.scene.training import SceneTrainer
from tagasc.tagger.clips import TaggedClips
from tagasc.tagger.config import TaggerTraining
from tagasc.tagger.inference import Ensemble
from tagasc.tagger.training import FoldSetup, TaggerTrainer
from tagasc.training.augment import EpochRng
from tagasc.training.cuda_graph import CudaGraph, _side_stream
from tagasc.training.ladder import Ladder
from tagasc.training.loop import fit
from tagasc.utils.device import allow_tf32, choose_device
from tagasc.utils.errors import UserError
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
    pytest.skip("not run: no GPU", allow_module_level=True)
CPU = torch.device("cpu")
STORAGE = ("gpu", "pinned", "disk") if GPU else ("auto",)
FAST = "captured" if GPU else "compiled"
RUNGS = ("plain", "compiled", "captured") if GPU else ("plain", "compiled")
TINY_SCENES = SceneBenchmark(TRUNKS["table1"], SceneTraining(batch=8, crop_seconds=0.5), 0.6, 16000)
TRAINING = SceneTraining(
    epochs=2, batch=4, crop_seconds=9.7, mixup_alpha=1.0, mixup_from_epoch=2, learning_rate=1e-3, schedule="cosine"
)


@pytest.mark.skipif(WANTED is not None, reason="this is its subprocess")
def test_on_a_gpu():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", __file__], env={**ENVIRONMENT, "TAGASC_TEST_DEVICE": "cuda"},
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    if done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        pytest.skip("not run: no GPU")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def device():
    if WANTED is None:
        pytest.skip("runs in test_on_a_gpu")
    return choose_device(WANTED, deterministic=True)


@pytest.fixture(scope="module")
def clips(device, tmp_path_factory):
    """The same clips, from two folders, by storage, and on the CPU."""
    folders = [packed_noise(tmp_path_factory.mktemp("gpu") / "p", seed) for seed in (0, 1)]
    by_storage = {storage: made_up([AudioStore(folder, device, storage) for folder in folders]) for storage in STORAGE}
    return {**by_storage, "cpu": made_up([AudioStore(folder, CPU) for folder in folders])}


def trainer_of(clips, rung="plain"):
    return SceneTrainer(TRAINING, TRUNKS["table1"], SYSTEM, clips, None, seed=1, rung=rung)


def last_layers(trainer):
    layers = (trainer.network.code, trainer.network.output)
    return torch.cat([layer.weight.detach().flatten() for layer in layers]).cpu()


def trained(clips, rung="plain", compiled=True):
    """Return the losses of two epochs, and the change of the last layers' weights."""
    trainer = trainer_of(clips, rung)
    trainer.network.compiled = compiled and rung != "plain"
    start = last_layers(trainer)
    losses = [trainer.train(epoch)["loss"] for epoch in (1, 2)]
    assert (trainer.step._graph._graph is not None) == (rung == "captured")
    trainer.itself = trainer  # only the garbage collector frees it, with its graph
    return losses, last_layers(trainer) - start


def distance(values, reference):
    reference = torch.as_tensor(reference)
    return float((torch.as_tensor(values) - reference).norm() / reference.norm())


def too_much():
    """Ask for more memory than any GPU has."""
    return torch.empty(2**45, device="cuda")


@pytest.mark.parametrize("storage", STORAGE)
def test_batches_equal_the_cpus_for_every_storage(clips, storage):
    rng = EpochRng(0, 1)
    indices, starts = (rng.integers(torch.full((50, 4), below)) for below in (24, 400))
    batches, reference = (
        torch.stack([batch.clone() for batch in clips[name].store.batches(indices, starts, 973)])
        for name in (storage, "cpu")
    )
    assert torch.equal(batches.cpu(), reference)


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize(
    ("rung", "compiled", "loss_tolerance", "weight_tolerance"),
    [("plain", False, 1e-6, 1e-4), ("captured", False, 1e-4, 1e-2), (FAST, True, 1e-2, 0.2)],
    ids=["plain", "captured only", "captured"],
)
def test_captured_and_compiled_steps_learn_as_plain_ones(
    clips, storage, rung, compiled, loss_tolerance, weight_tolerance
):
    """Two epochs of one plan, the second with mixup; compiled code rounds to bfloat16 at other points."""
    if rung not in RUNGS:
        pytest.skip("needs CUDA graphs")
    expected, change = trained(clips[STORAGE[0]])
    losses, our_change = trained(clips[storage], rung, compiled)
    assert losses == pytest.approx(expected, rel=loss_tolerance)
    assert distance(our_change, change) <= weight_tolerance


def test_trainings_in_one_process_are_independent(clips):
    """The second captures its graph before, the third after the garbage collector frees the first one's."""
    losses = [trained(clips[STORAGE[0]], FAST)[0] for _ in range(2)]
    gc.collect()
    assert losses[0] == losses[1] == trained(clips[STORAGE[0]], FAST)[0]


def test_every_rung_agrees_with_plain_float32_steps_in_both_precisions(device):
    """As stage 5 and steps/check_gpu.py test it; no rung falls."""
    ladder = Ladder("auto" if GPU else "always", device)
    verdicts = list(compare(ladder, TINY_SCENES, ["float32", "bfloat16"]))
    assert [(verdict.precision, verdict.rung, verdict.differs) for verdict in verdicts] == [
        (precision, rung, "") for precision in ("float32", "bfloat16") for rung in RUNGS
    ]


def test_float32_is_not_tf32(device):
    require_float32(device)
    if GPU and torch.cuda.is_tf32_supported():
        allow_tf32(True)
        try:
            with pytest.raises(UserError, match="as in TF32"):
                require_float32(device)
        finally:
            allow_tf32(False)


class FailingGraph(CudaGraph):
    """Fails in its first capture: by waiting for the CPU, or by asking for more memory than there is."""

    failure = None

    def __call__(self, work):
        def fails():
            work()
            FailingGraph.failure()

        super().__call__(fails if self.captures and self._graph is None and FailingGraph.failure else work)


@pytest.mark.skipif(not GPU, reason="needs CUDA graphs")
@pytest.mark.parametrize("failure", [lambda: torch.ones(1, device="cuda").item(), too_much], ids=["waits", "memory"])
def test_a_failed_capture_ends_with_the_weights_of_compiled_steps(clips, tmp_path, monkeypatch, failure):
    """The process can compute, and capture again, after it."""
    gpu_clips = clips["gpu"]
    expected = trained(gpu_clips, "compiled")
    monkeypatch.setattr("tagasc.scene.step.CudaGraph", FailingGraph)
    monkeypatch.setattr(FailingGraph, "failure", failure)
    ladder, rungs = Ladder("auto", gpu_clips.device), []

    def work(rung):
        rungs.append(rung)
        return trained(gpu_clips, rung)

    result = ladder.run(work)
    assert rungs == ["captured", "compiled"]
    assert result[0] == expected[0]
    assert torch.equal(result[1], expected[1])
    monkeypatch.setattr(FailingGraph, "failure", None)
    assert trained(gpu_clips, "captured")[0] == pytest.approx(expected[0], rel=1e-4)


@pytest.mark.skipif(not GPU, reason="needs a GPU's memory")
def test_codes_that_do_not_fit_are_computed_in_smaller_batches(clips, monkeypatch):
    network, forward, sizes = trainer_of(clips["gpu"]).network, SceneNetwork.forward, []
    expected = codes_and_logits(network, clips["gpu"])

    def limited(network, samples, *arguments):
        sizes.append(len(samples))
        if len(samples) > 6:
            too_much()
        return forward(network, samples, *arguments)

    monkeypatch.setattr(SceneNetwork, "forward", limited)
    monkeypatch.setattr("tagasc.training.ladder._that_fit", {})
    for values, wanted in zip(codes_and_logits(network, clips["gpu"]), expected, strict=True):
        assert distance(values, wanted) <= 3e-2
    assert sizes == [24, 12, *[6] * 4]


@pytest.mark.skipif(not GPU, reason="needs a GPU's memory")
def test_the_memory_of_trainings_in_one_process_levels_off(clips):
    ladder, reserved = Ladder("auto", clips["gpu"].device), []
    for _ in range(3):
        ladder.run(lambda rung: trainer_of(clips["gpu"], rung).train(1))
        reserved.append(torch.cuda.memory_reserved())
    assert ladder.rung == "captured"
    assert reserved[2] <= reserved[1]


@pytest.mark.skipif(not GPU, reason="needs a GPU")
def test_a_corpus_leaves_the_gpu_and_trains_as_before(device, tmp_path):
    store = AudioStore(packed_noise(tmp_path / "p"), device)
    assert store.storage == "gpu"
    gpu_clips = made_up([store])
    before = trained(gpu_clips, "captured")
    assert store.leave_gpu() in ("in pinned memory", "read from disk")
    after = trained(gpu_clips, "captured")
    assert before[0] == after[0]
    assert torch.equal(before[1], after[1])


@pytest.mark.skipif(not GPU, reason="needs CUDA streams")
def test_copies_never_use_the_stream_under_graph_capture(device):
    """A copy there would break the capture; torch reuses its 32 streams round-robin."""
    buffers = [DeviceBuffer((4,), torch.int16, device, staged=False) for _ in range(100)]
    used = {buffer._stream.cuda_stream for buffer in buffers}
    assert len(used) == 1
    assert not used & {_side_stream().cuda_stream, torch.cuda.current_stream().cuda_stream}


@pytest.mark.skipif(not GPU, reason="needs CUDA graphs")
def test_a_failed_capture_restores_the_current_stream(device):
    before, values = torch.cuda.current_stream(), torch.ones(3, device=device)
    with pytest.raises(RuntimeError):
        CudaGraph(eager_calls=0)(lambda: float(values.sum()))  # synchronises, which a capture forbids
    assert torch.cuda.current_stream() == before


def test_training_is_nearly_the_same_without_deterministic_algorithms(clips):
    expected, change = trained(clips[STORAGE[0]])
    choose_device(WANTED)
    try:
        losses, our_change = trained(clips[STORAGE[0]], FAST)
    finally:
        choose_device(WANTED, deterministic=True)
    assert losses == pytest.approx(expected, rel=1e-2)
    assert distance(our_change, change) <= 0.2


def cut_and_resumed(before, after, folder):
    """Train one trainer for an epoch, and resume with the other from its checkpoint."""
    cut_after(before, 1)
    with pytest.raises(Stop):
        fit(before, folder, 2, before.metadata())
    fit(after, folder, 2, after.metadata())
    assert {int(state["step"]) for state in after.optimizer.state.values()} == {2 * after.steps_per_epoch}


@pytest.mark.parametrize("rung", RUNGS)
def test_a_resumed_training_ends_at_the_same_weights(clips, tmp_path, rung):
    uninterrupted, *parts = (trainer_of(clips[STORAGE[0]], rung) for _ in range(3))
    fit(uninterrupted, tmp_path / "whole", 2, uninterrupted.metadata())
    cut_and_resumed(*parts, tmp_path / "cut")
    assert (tmp_path / "cut/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


@pytest.mark.parametrize(("first", "second"), [("cpu", STORAGE[0]), (STORAGE[0], "cpu")])
def test_a_checkpoint_resumes_on_another_device(clips, tmp_path, first, second):
    _, change = trained(clips["cpu"])
    before, after = (trainer_of(clips[name], "plain" if name == "cpu" else FAST) for name in (first, second))
    start = last_layers(after)
    cut_and_resumed(before, after, tmp_path)
    assert distance(last_layers(after) - start, change) <= 0.2


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("compiled", [False, True])
def test_codes_and_logits_equal_the_cpus(device, clips, storage, compiled):
    trainer = trainer_of(clips["cpu"])
    trainer.train(1)
    reference = codes_and_logits(trainer.network, clips["cpu"])
    network = deepcopy(trainer.network).to(device)
    network.compiled = compiled
    outputs = codes_and_logits(network, clips[storage])
    for values, expected in zip(outputs, reference, strict=True):
        assert distance(values, expected) <= 3e-2


@pytest.mark.parametrize("compiled", [False, True])
def test_the_tagger_learns_as_on_the_cpu(device, tmp_path, compiled):
    folders = [packed(tmp_path / str(n), noise(n, [6000] * 30), MEL.sampling_rate) for n in (0, 1)]
    config = TaggerTraining(epochs=2, cycle=2, batch=8, crop_frames=32, mask_half_width=(1, 4), folds=2)
    losses = []
    for target in (CPU, device):
        curated, noisy = (TaggedClips(folder, CLASSES, MEL, target) for folder in folders)
        fold = FoldSetup(0, curated, noisy, config, TINY, MEL, 1, tmp_path, target, compiled and target == device)
        trainer = TaggerTrainer(fold)
        losses.append(trainer.train(1)["loss"])
        assert 0 < trainer.validate()["validation_lwlrap"] <= 1
    assert losses[1] == pytest.approx(losses[0], rel=3e-2)


def test_tags_equal_the_cpus(device, tmp_path):
    network = tiny()
    network.curated[-1].weight.data.mul_(50)  # spreads tags over 0..1
    scenes = PackedAudio(packed(tmp_path / "scenes", noise(0, [16000, 9000, 16000], channels=2), 16000))
    folder = packed(tmp_path / "clips", noise(1, [4410, 14700, 5000, 33333]), MEL.sampling_rate)
    tags = []
    for target in (CPU, device):
        ensemble = Ensemble([deepcopy(network).to(target)], MEL, CLASSES, (0, 8))
        clips = TaggedClips(folder, None, MEL, target)
        tags.append(np.concatenate([ensemble.tag_scenes(scenes, target), ensemble.tags(clips, torch.arange(4))]))
    np.testing.assert_allclose(tags[1], tags[0], atol=3e-2)
