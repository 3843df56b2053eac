"""Each rung is made to fail; the training must end with the weights of plain steps, bit for bit.

Without a GPU, a stand-in of the CUDA graph calls its work, and the compiled regions are the plain ones. On a GPU,
tests/test_gpu.py does the same with real ones.
"""

import gc
import weakref

import numpy as np
import pytest
import torch

from tagasc.audio.store import AudioStore
from tagasc.scene import inference, network
from tagasc.scene.config import SceneTraining
from tagasc.scene.corpus import CodeWindows, SceneCorpus
from tagasc.scene.inference import codes_and_logits
from tagasc.scene.network import REGIONS, SceneNetwork, compiled_regions
from tagasc.scene.training import SceneTrainer
from tagasc.scene.trunk import TrunkConfig
from tagasc.training import ladder
from tagasc.training.cuda_graph import CudaGraph
from tagasc.training.ladder import Ladder, RungError
from tagasc.training.loop import fit
from tagasc.utils.errors import UserError
from tagasc.utils.limits import describe_limit
from tagasc.utils.log import log
from tests.helpers import CPU, SYSTEM, TRUNKS, made_up, packed_noise

TRAINING = SceneTraining(epochs=3, batch=4, crop_seconds=9.7, mixup_alpha=1.0, mixup_from_epoch=2, learning_rate=1e-3)
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


@pytest.fixture
def clips(tmp_path):
    return made_up([AudioStore(packed_noise(tmp_path / "p"), CPU)])


@pytest.fixture(autouse=True)
def _visible_log(monkeypatch, caplog):
    monkeypatch.setattr(log, "propagate", True)


class StandIn(CudaGraph):
    """Calls its work, and fails once at a given capture or replay."""

    fails_at, error, calls = 0, RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing"), 0

    def __call__(self, work):
        if self._eager_calls:
            self._eager_calls -= 1
        else:
            StandIn.calls += 1
            if StandIn.calls == StandIn.fails_at:
                raise StandIn.error
        work()


@pytest.fixture
def stand_ins(monkeypatch):
    """Make captured and compiled steps possible on a CPU; ``fail`` makes a call of a compiled region fail."""
    monkeypatch.setattr("tagasc.scene.step.CudaGraph", StandIn)
    monkeypatch.setattr(StandIn, "calls", 0)

    def fail(when=lambda trunk, calls: False, error="Failed to find\nC compiler"):
        calls = []

        def first(trunk, *arguments):
            calls.append(trunk.training)
            if when(trunk, len(calls)):
                raise error if isinstance(error, Exception) else RuntimeError(error)
            return REGIONS[0](trunk, *arguments)

        monkeypatch.setattr(network, "compiled_regions", lambda: (first, *REGIONS[1:]))

    fail()
    return fail


def ladder_at(rung, mode="auto", **options):
    ladder = Ladder(mode, CPU, **options)
    ladder._rung = rung
    return ladder


def trained(clips, folder, ladder):
    """Train for three epochs, validate after each; return the file of the weights."""
    rungs = []

    def work(rung):
        rungs.append(rung)
        trainer = SceneTrainer(TRAINING, TRUNKS["table1"], SYSTEM, clips, clips, 1, rung)
        fit(trainer, folder, 3, trainer.metadata())

    ladder.run(work)
    return (folder / "model.safetensors").read_bytes(), rungs


def lines(caplog):
    return [record.message for record in caplog.records if "continuing" in record.message]


@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize("error", [StandIn.error, FULL], ids=["refused", "memory full"])
def test_a_failed_capture_ends_with_the_weights_of_plain_steps(
    clips, tmp_path, stand_ins, monkeypatch, caplog, epoch, error
):
    expected, _ = trained(clips, tmp_path / "plain", ladder_at("plain"))
    monkeypatch.setattr(StandIn, "fails_at", 1 if epoch == 1 else 4)  # nine steps, of which three are eager
    monkeypatch.setattr(StandIn, "error", error)
    ladder = ladder_at("captured")
    weights, rungs = trained(clips, tmp_path / "captured", ladder)
    assert StandIn.calls == StandIn.fails_at
    assert (weights, rungs, ladder.rung) == (expected, ["captured", "compiled"], "compiled")
    (line,) = lines(caplog)
    reason = "the GPU's memory is full" if error is FULL else "CUDA error: operation not permitted when stream is"
    assert line.startswith(f"captured steps fail, continuing with compiled ones: {reason}")


@pytest.mark.parametrize("training", [True, False], ids=["in a step", "in codes"])
@pytest.mark.parametrize("top", ["captured", "compiled"])
def test_failed_compilation_ends_with_the_weights_of_plain_steps(clips, tmp_path, stand_ins, caplog, top, training):
    expected, _ = trained(clips, tmp_path / "plain", ladder_at("plain"))
    stand_ins(lambda trunk, calls: trunk.training == training and (training or calls > 5))
    weights, rungs = trained(clips, tmp_path / "run", ladder_at(top))
    assert (weights, rungs) == (expected, [top, "plain"])
    assert lines(caplog) == ["compiled steps fail, continuing with plain ones: Failed to find C compiler"]


def test_all_rungs_end_with_the_same_weights(clips, tmp_path, stand_ins):
    results = {rung: trained(clips, tmp_path / rung, ladder_at(rung)) for rung in ("captured", "compiled", "plain")}
    assert len({weights for weights, _ in results.values()}) == 1
    assert StandIn.calls == 9 - 3


def test_a_ladder_never_rises_again(clips, tmp_path, stand_ins, monkeypatch):
    monkeypatch.setattr(StandIn, "fails_at", 1)
    ladder = ladder_at("captured")
    assert [trained(clips, tmp_path / name, ladder)[1] for name in "ab"] == [["captured", "compiled"], ["compiled"]]


def test_with_always_a_failure_is_an_error_with_its_reason(clips, tmp_path, stand_ins, monkeypatch):
    stand_ins(lambda trunk, calls: True)
    with pytest.raises(UserError, match="--compile always: compiled steps fail: Failed to find C compiler; use"):
        trained(clips, tmp_path / "run", ladder_at("compiled", "always"))
    stand_ins()
    monkeypatch.setattr(StandIn, "fails_at", 1)
    with pytest.raises(UserError, match="--compile always: captured steps fail: CUDA error: operation not permitted"):
        trained(clips, tmp_path / "run", ladder_at("captured", "always"))


def test_audio_leaves_the_gpu_before_a_rung_falls(clips, tmp_path, stand_ins, caplog):
    expected, _ = trained(clips, tmp_path / "plain", ladder_at("plain"))
    stand_ins(lambda trunk, calls: calls in (2, 5), FULL)
    places = ["in pinned memory", None]
    ladder = ladder_at("captured", free_gpu=lambda: places.pop(0))
    weights, rungs = trained(clips, tmp_path / "run", ladder)
    assert (weights, rungs) == (expected, ["captured", "captured", "compiled"])
    assert lines(caplog) == [
        "the GPU's memory is full, continuing with the audio in pinned memory",
        "captured steps fail, continuing with compiled ones: the GPU's memory is full",
    ]


def test_other_errors_do_not_lower_the_rung(stand_ins):
    ladder, tried = ladder_at("captured"), []

    def work(rung):
        tried.append(rung)
        raise {0: UserError("bad clip"), 1: ValueError("a bug"), 2: FULL}[len(tried) - 1]

    for kind in (UserError, ValueError):
        with pytest.raises(kind):
            ladder.run(work)
    assert tried == ["captured", "captured"]
    with pytest.raises(torch.OutOfMemoryError):  # nothing is left
        ladder_at("plain").run(work)


def test_memory_is_found_full_behind_the_error_of_a_capture(clips, tmp_path, caplog):
    """Leaving a failed capture raises another error."""

    def work(rung):
        if rung == "captured":
            try:
                raise FULL
            finally:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    ladder_at("captured").run(work)
    assert lines(caplog)[0].endswith("the GPU's memory is full")


def test_a_gpu_that_no_longer_responds_ends_the_sweep(monkeypatch):
    """After some errors every call fails until the process ends; a second try would only hide the first error."""
    lost = RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")

    def fails():
        raise lost

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", fails)
    with pytest.raises(RungError) as caught:
        ladder_at("captured").run(lambda rung: (_ for _ in ()).throw(RungError(rung, lost)))
    assert "illegal memory access" in describe_limit(caught.value)
    assert "--compile never" in describe_limit(lost)


def test_codes_are_computed_in_smaller_batches_where_memory_is_full(clips, monkeypatch, caplog):
    trainer = SceneTrainer(TRAINING, TRUNKS["table1"], SYSTEM, clips, clips, 1)
    expected = codes_and_logits(trainer.network, clips)
    forward, sizes = SceneNetwork.forward, []

    def limited(network, samples, tags):
        sizes.append(len(samples))
        if len(samples) > 3:
            raise FULL
        return forward(network, samples, tags)

    monkeypatch.setattr(SceneNetwork, "forward", limited)
    monkeypatch.setattr(ladder, "_that_fit", {})
    monkeypatch.setattr(inference, "_batch", lambda network, frames, device: 128)
    for _ in range(2):  # the second time it is known
        for values, wanted in zip(codes_and_logits(trainer.network, clips), expected, strict=True):
            np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    assert sizes == [12, 6, *[3] * 8]
    assert lines(caplog)[-1] == "the GPU's memory is full, continuing with codes in batches of 3 clips"


def test_memory_that_does_not_suffice_for_one_clip_is_an_error(clips, monkeypatch):
    def fails(network, samples, tags):
        raise FULL

    trainer = SceneTrainer(TRAINING, TRUNKS["table1"], SYSTEM, clips, clips, 1)
    monkeypatch.setattr(SceneNetwork, "forward", fails)
    windows = CodeWindows(torch.tensor([0]), torch.tensor([0]), 1400)
    with pytest.raises(torch.OutOfMemoryError):
        codes_and_logits(trainer.network, clips, windows)


def test_the_audio_of_a_corpus_leaves_the_gpu(tmp_path, monkeypatch):
    """The stores move in place, so that clips that were joined before read from their new place."""
    for split in ("train", "test"):
        packed_noise(tmp_path / f"noise_{split}")
    corpus = SceneCorpus(tmp_path, "noise", None, CPU)
    clips = corpus.clips(["train", "test"], None)
    assert corpus.leave_gpu() is None  # it is not there
    for store in clips.store.stores:
        store.storage = "gpu"
    assert clips.store.on_gpu
    assert corpus.leave_gpu() == "read from disk"
    assert not clips.store.on_gpu
    assert [store.storage for store in clips.store.stores] == ["disk", "disk"]


def test_a_finished_training_frees_its_network_at_once(clips, tmp_path, stand_ins):
    """And so a GPU's memory: 56 systems follow each other in a process. No garbage collection is needed."""
    kept = []

    def work(rung):
        trainer = SceneTrainer(TRAINING, TRUNKS["table1"], SYSTEM, clips, clips, 1, rung)
        kept.append(weakref.ref(trainer.network))
        fit(trainer, tmp_path / "run", 3, trainer.metadata())

    gc.disable()
    try:
        ladder_at("captured").run(work)
        assert kept[0]() is None
    finally:
        gc.enable()


@pytest.fixture
def dynamo(monkeypatch):
    """The compiled regions without the compiler's slow part: graphs and guards are made, no kernels."""
    compile = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, dynamic, options: compile(function, dynamic=dynamic, backend="eager")
    )
    compiled_regions.cache_clear()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with torch._dynamo.config.patch(recompile_limit=8, fail_on_recompile_limit_hit=False):
        yield torch._dynamo.utils.counters
    compiled_regions.cache_clear()
    torch._dynamo.reset()


def test_the_recompile_limit_lowers_the_rung(clips, tmp_path, dynamo, caplog):
    """torch would run the region eagerly from then on."""
    compiled_regions()
    torch._dynamo.config.recompile_limit = 2
    ladder = ladder_at("compiled")
    _, rungs = trained(clips, tmp_path / "run", ladder)
    assert rungs == ["compiled", "plain"]
    assert "compiled steps fail, continuing with plain ones" in lines(caplog)[0]
    assert "recompile_limit" in lines(caplog)[0]


def test_a_process_stays_below_the_recompile_limit(clips, dynamo):
    """Seven blocks; training and evaluation, three batch sizes, both trunks; another system compiles nothing new."""
    shapes = {"table1": TrunkConfig(4, (4,) * 7), "released": TrunkConfig(4, (4, 4, *(8,) * 5), True, True)}

    def run_all(size):
        for trunk in shapes.values():
            built = SceneNetwork(trunk, SYSTEM, 3, tags=5)
            built.compiled = True
            for training in (True, False):
                built.train(training)
                with torch.set_grad_enabled(training):
                    for batch in (2, 3, 4):
                        built(torch.randn(batch, size, 2), torch.rand(batch, 5))

    run_all(12 * 3**7 + 1)
    graphs = dynamo["stats"]["unique_graphs"]
    # Trunks, modes, sizes, regions: first, six blocks, last. Regions that are equal in both trunks are compiled once.
    assert 3 * 2 * 8 < graphs <= 2 * 2 * 3 * 8
    run_all(12 * 3**7 + 1)
    assert dynamo["stats"]["unique_graphs"] == graphs
    assert torch._dynamo.config.recompile_limit > 2 * 2 * 3 * 6 * 1.5  # the region of the six blocks
