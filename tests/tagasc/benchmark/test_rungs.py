"""Rungs that compute something else are found, with stand-ins for compiled and captured steps."""

import pytest
import torch

from tagasc.benchmark import rungs
from tagasc.benchmark.rungs import compare, require_float32, self_test
from tagasc.benchmark.scene import SceneBenchmark
from tagasc.scene import network
from tagasc.scene.config import SceneTraining
from tagasc.scene.network import REGIONS
from tagasc.scene.step import SceneStep
from tagasc.training.cuda_graph import CudaGraph
from tagasc.training.ladder import RUNGS, Ladder
from tagasc.utils.device import computing_in
from tagasc.utils.errors import UserError
from tagasc.utils.log import log
from tests.helpers import CPU, TRUNKS, run

WHAT = SceneBenchmark(TRUNKS["table1"], SceneTraining(batch=4, crop_seconds=0.2), 0.3, 8000)


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch, caplog):
    class Eager(CudaGraph):
        captures = True

        def __call__(self, work):
            work()

    monkeypatch.setattr(log, "propagate", True)
    monkeypatch.setattr("tagasc.scene.step.CudaGraph", Eager)
    monkeypatch.setattr(network, "compiled_regions", lambda: REGIONS)


def ladder_at(rung, mode="auto"):
    ladder = Ladder(mode, CPU)
    ladder._rung = rung
    return ladder


def test_rungs_that_compute_the_same_stay():
    ladder = ladder_at("captured")
    verdicts = list(compare(ladder, WHAT, ["float32"]))
    assert [verdict.rung for verdict in verdicts] == ["plain", "compiled", "captured"]
    assert all(set(verdict.deviations.values()) == {0.0} for verdict in verdicts)
    assert ladder.rung == "captured"
    assert len(verdicts[0].outcome.losses) == 8


def test_bfloat16_differs_only_by_rounding():
    (verdict,) = compare(ladder_at("plain"), WHAT, ["bfloat16"])
    assert verdict.differs == ""
    assert min(verdict.deviations.values()) > 0


def no_statistics(trunk, *arguments):
    """Batch normalisation whose running statistics stay behind."""
    for module in trunk.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
    return REGIONS[0](trunk, *arguments)


WRONG = {
    "values": {1: lambda block, x: REGIONS[1](block, x) * 1.03},
    "statistics": {0: no_statistics},
    "gradients": {1: lambda block, x: REGIONS[1](block, x.detach())},
}


@pytest.mark.parametrize(("wrong", "precision"), [*((wrong, "float32") for wrong in WRONG), ("gradients", "bfloat16")])
def test_a_compiled_rung_that_differs_is_not_used(monkeypatch, caplog, precision, wrong):
    monkeypatch.setattr(network, "compiled_regions", lambda: tuple(WRONG[wrong].get(n, REGIONS[n]) for n in range(3)))
    ladder = ladder_at("captured")
    with computing_in(precision):
        ladder.run(self_test, ladder, WHAT)
    assert ladder.rung == "plain"
    assert "compiled steps fail, continuing with plain ones: they differ from plain float32 ones: " in caplog.text


def test_with_always_a_rung_that_differs_is_an_error(monkeypatch):
    monkeypatch.setattr(network, "compiled_regions", lambda: (REGIONS[0], WRONG["values"][1], REGIONS[2]))
    with pytest.raises(UserError, match="--compile always: compiled steps fail: they differ"):
        self_test("compiled", ladder_at("captured", "always"), WHAT)


def same_batch(step, plan):
    """As a graph that reads the memory of its first batch."""
    first = getattr(step, "first", plan)
    step.first = first
    return begin(step, first)


def nothing_mixed(step, plan):
    begin(step, plan)
    step._mixes = False


def rate_kept_at_zero(step, plan):
    begin(step, plan)
    step._set_learning_rate = lambda rate: step.optimizer.param_groups[0].update(lr=0.0)


begin = SceneStep._begin


@pytest.mark.parametrize("wrong", [same_batch, nothing_mixed, rate_kept_at_zero])
def test_a_captured_rung_that_differs_is_not_used(monkeypatch, caplog, wrong):
    monkeypatch.setattr(SceneStep, "_begin", lambda step, plan: (wrong if step._captures else begin)(step, plan))
    ladder = ladder_at("captured")
    self_test("captured", ladder, WHAT)
    assert ladder.rung == "compiled"
    assert "captured steps fail, continuing with compiled ones: they differ" in caplog.text


@pytest.mark.parametrize("failing", ["compiled", "captured"])
def test_a_rung_that_fails_is_not_used(monkeypatch, caplog, failing):
    step = SceneStep._step

    def fails(self):
        if (failing == "captured" and self._captures) or (failing == "compiled" and self.network.compiled):
            raise RuntimeError("nothing works")
        step(self)

    monkeypatch.setattr(SceneStep, "_step", fails)
    ladder = ladder_at("captured")
    self_test("captured", ladder, WHAT)
    assert ladder.rung == {"compiled": "plain", "captured": "compiled"}[failing]
    assert "nothing works" in caplog.text


def test_plain_bfloat16_steps_that_differ_are_a_warning(monkeypatch, caplog):
    """And the other kinds may differ as much."""
    monkeypatch.setattr(rungs, "BFLOAT16", dict.fromkeys(rungs.BFLOAT16, 0.0))
    ladder = ladder_at("compiled")
    with computing_in("bfloat16"):
        self_test("compiled", ladder, WHAT)
    assert "bfloat16 differs from float32 in loss by" in caplog.text
    assert ladder.rung == "compiled"


def test_float32_that_is_tf32_is_an_error(monkeypatch):
    assert require_float32(CPU) < 1e-5
    rounded = lambda x: (x.view(torch.int32) & ~0x1FFF).view(torch.float32)  # 10 bits of the mantissa are left
    product = torch.Tensor.__matmul__
    tf32 = lambda x, y: product(rounded(x), rounded(y)) if x.dtype == torch.float32 else product(x, y)
    monkeypatch.setattr(torch.Tensor, "__matmul__", tf32)
    with pytest.raises(UserError, match="as in TF32; unset NVIDIA_TF32_OVERRIDE"):
        require_float32(CPU)


def test_the_check_of_a_gpu_says_that_there_is_none():
    outcome = run("steps/check_gpu.py")
    assert (outcome.status, outcome.said.strip()) == (0, "not run: no GPU")
    assert "no usable GPU" in run("steps/check_gpu.py", "--device", "cuda").error


SMALL = """--device cpu --trunk.stem_filters 8 --trunk.block_filters [8,8] --training.batch 4 --training.crop_seconds 0.4
    --seconds 0.5 --sampling-rate 8000""".split()


def test_the_check_lists_every_rung_and_precision():
    said = run("steps/check_gpu.py", *SMALL, "--compile", "always").said
    rows = [line.split()[:2] for line in said.splitlines() if line.split()[1:2] and line.split()[1] in RUNGS]
    assert rows == [[precision, rung] for precision in ("float32", "bfloat16") for rung in ("plain", "compiled")]
    assert "all agree; trainings use compiled steps" in said


def test_the_check_fails_if_a_rung_does(monkeypatch):
    monkeypatch.setattr(network, "compiled_regions", lambda: (REGIONS[0], WRONG["values"][1], REGIONS[2]))
    outcome = run("steps/check_gpu.py", *SMALL, "--compile", "always")
    assert outcome.status == 1
    assert "compiled steps fail: they differ" in outcome.error
