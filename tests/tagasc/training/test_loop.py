"""Resumed trainings end at the same weights, bit for bit on the CPU with the same number of threads."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tagasc.scene.config import SceneTraining
from tagasc.scene.corpus import SceneCorpus, TagOptions
from tagasc.scene.systems import read_systems, select
from tagasc.scene.training import SceneTrainer
from tagasc.scene.trunk import TrunkConfig
from tagasc.training.loop import fit
from tagasc.training.result import check_result_folder
from tagasc.training.weights import read_weights, save_weights
from tagasc.utils import provenance
from tagasc.utils.device import should_compile
from tagasc.utils.errors import UserError
from tagasc.utils.files import read_json
from tagasc.utils.log import log
from tests.helpers import CPU, ROOT, Stop, cut_after


def scene_trainer(audio, tags, seed=3):
    every = select(read_systems(ROOT / "egs/systems.yaml"), ["all"], ROOT)
    corpus = SceneCorpus(audio, "tau2019", tags, CPU)
    clips = [corpus.clips([split], TagOptions()) for split in ("train", "validation")]
    training = SceneTraining(epochs=5, batch=8, crop_seconds=0.5, mixup_from_epoch=2, schedule="cosine")
    trunk = TrunkConfig(8, (8, 8, 8, 8), code_size=6)
    return SceneTrainer(training, trunk, every["shared_h4_l3"].system, *clips, seed)


def test_a_resumed_scene_network_has_the_same_weights(audio, tags, tmp_path):
    uninterrupted = scene_trainer(audio, tags)
    fit(uninterrupted, tmp_path / "whole", 5, uninterrupted.metadata())
    for epochs in (2, 4):
        cut = scene_trainer(audio, tags)
        cut_after(cut, epochs)
        with pytest.raises(Stop):
            fit(cut, tmp_path / "cut", 5, cut.metadata())
    torch.rand(11)  # the state of the global generator must not matter
    last = scene_trainer(audio, tags)
    fit(last, tmp_path / "cut", 5, last.metadata())
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "cut/model.safetensors").read_bytes()
    histories = [read_json(tmp_path / name / "history.json", "") for name in ("whole", "cut")]
    for history in histories:
        for row in history["epochs"]:
            del row["seconds"]
    assert histories[0] == histories[1]
    assert not (tmp_path / "cut/checkpoint.pt").exists()


def test_weights_and_order_of_clips_depend_on_the_seed(audio, tags):
    trainers = [scene_trainer(audio, tags, seed) for seed in (3, 3, 4)]
    same, other = ([trainer.network.state_dict() for trainer in pair] for pair in (trainers[:2], trainers[1:]))
    drawn = [name for name in same[0] if name.endswith("conv1.weight") or name == "code.weight"]
    for name in drawn:
        assert torch.equal(same[0][name], same[1][name])
        assert not torch.equal(other[0][name], other[1][name])
    plans = [trainer.plan(1).clip_indices for trainer in trainers]
    assert torch.equal(plans[0], plans[1])
    assert not torch.equal(plans[1], plans[2])


class Scripted:
    """A trainer with given validation scores."""

    def __init__(self, scores, loss=1.0):
        self.network = nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.network.parameters(), 0.1)
        self.scores, self.loss = iter(scores), loss

    def train(self, epoch):
        self.network.weight.data.fill_(epoch)
        return {"loss": self.loss}

    def validate(self):
        return {"score": next(self.scores)}


def test_weights_of_the_first_best_epoch_are_kept(tmp_path):
    fit(Scripted([0.1, 0.5, 0.5, 0.2]), tmp_path, 4, {"what": "scripted"})
    state, metadata = read_weights(tmp_path / "model.safetensors", "")
    assert state["weight"].item() == 2
    assert metadata["what"] == "scripted"
    assert read_json(tmp_path / "history.json", "")["best_epoch"] == 2


def test_a_loss_that_is_not_finite_is_an_error(tmp_path):
    with pytest.raises(UserError, match="not finite"):
        fit(Scripted([0.1], float("nan")), tmp_path, 1, {})
    assert not (tmp_path / "model.safetensors").exists()


def test_a_training_without_a_finished_epoch_is_replaced(tmp_path):
    assert check_result_folder(tmp_path / "run", provenance.record("train", {"batch": 5000}, {}), force=False)
    assert check_result_folder(tmp_path / "run", provenance.record("train", {"batch": 12}, {}), force=False)
    assert provenance.read(tmp_path / "run")["config"] == {"batch": 12}


def test_weights_without_a_record_are_an_error(tmp_path):
    save_weights(tmp_path / "run/model.safetensors", {"x": torch.ones(3)}, {})
    with pytest.raises(UserError, match=r"no readable provenance\.json; move the folder away, or delete it"):
        check_result_folder(tmp_path / "run", provenance.record("train", {}, {}), force=False)


def trained(folder, scores=(0.1, 0.5)):
    """Train a scripted network in a folder; return the record."""
    record = provenance.record("train", {"lr": 0.1}, {"tags": "f00"})
    assert check_result_folder(folder, record, force=False)
    fit(Scripted(scores), folder, len(scores), {})
    return record


def flip(path, at=-1):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["history.json", "provenance.json"])
@pytest.mark.parametrize(
    "damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b""), lambda path: flip(path, 40)]
)
def test_lost_curves_and_records_are_made_again_without_training(tmp_path, name, damage):
    record = trained(tmp_path / "run")
    weights = (tmp_path / "run/model.safetensors").read_bytes()
    curves = read_json(tmp_path / "run/history.json", "")
    damage(tmp_path / "run" / name)
    assert not check_result_folder(tmp_path / "run", record, force=False)
    history = read_json(tmp_path / "run/history.json", "")
    assert history["best_epoch"] == 2
    assert [row["score"] for row in history["epochs"]] == [row["score"] for row in curves["epochs"]]
    assert provenance.difference(provenance.read(tmp_path / "run"), record) is None
    assert (tmp_path / "run/model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("at", [5, 40, -1])
def test_damaged_weights_are_noticed_and_trained_again(tmp_path, at):
    record = trained(tmp_path / "run")
    path = tmp_path / "run/model.safetensors"
    flip(path, at)
    with pytest.raises(UserError, match=r"is damaged .*; run stage 5 again"):
        read_weights(path, "stage 5")
    assert check_result_folder(tmp_path / "run", record, force=False)
    fit(Scripted([0.1, 0.5]), tmp_path / "run", 2, {})
    assert not check_result_folder(tmp_path / "run", record, force=False)


def test_a_missing_or_damaged_snapshot_is_trained_again(tmp_path):
    for damage in (lambda path: path.unlink(), flip):
        record, snapshot = trained(tmp_path / "run"), tmp_path / "run/snapshot1.safetensors"
        save_weights(snapshot, {"x": torch.ones(3)}, {})
        assert not check_result_folder(tmp_path / "run", record, False, [snapshot])
        damage(snapshot)
        assert check_result_folder(tmp_path / "run", record, False, [snapshot])


def test_a_damaged_checkpoint_starts_over_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(
        nn.Linear, "reset_parameters", lambda self: [nn.init.zeros_(part) for part in self.parameters()]
    )
    fit(Scripted([0.1, 0.5]), tmp_path / "whole", 2, {})
    for at in (200, 700, -30):
        cut = Scripted([0.1])
        cut_after(cut, 1)
        with pytest.raises(Stop):
            fit(cut, tmp_path / "cut", 2, {})
        flip(tmp_path / "cut/checkpoint.pt", at)
        fit(Scripted([0.1, 0.5]), tmp_path / "cut", 2, {})
        files = (tmp_path / name / "model.safetensors" for name in ("whole", "cut"))
        assert len({file.read_bytes() for file in files}) == 1
        (tmp_path / "cut/model.safetensors").unlink()


def test_weights_get_the_mode_that_the_user_wants(tmp_path):
    before = os.umask(0o027)
    try:
        save_weights(tmp_path / "model.safetensors", {"x": torch.ones(3)}, {})
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("about", ["[" * 200_000, "1", '{"a": '])
def test_strange_metadata_of_weights_is_damage(tmp_path, about):
    save_file({"x": torch.ones(3)}, tmp_path / "model.safetensors", {"about": about})
    with pytest.raises(UserError, match="is damaged"):
        read_weights(tmp_path / "model.safetensors", "stage 5")


def test_a_training_of_another_configuration_is_kept_unless_forced(tmp_path):
    first = provenance.record("train", {"lr": 0.1}, {})
    assert check_result_folder(tmp_path / "run", first, force=False)
    save_weights(tmp_path / "run/model.safetensors", {"x": torch.ones(3)}, {})
    assert not check_result_folder(tmp_path / "run", first, force=False)
    other = provenance.record("train", {"lr": 0.2}, {})
    with pytest.raises(UserError, match=r"lr was 0\.1 and is 0\.2"):
        check_result_folder(tmp_path / "run", other, force=False)
    assert (tmp_path / "run/model.safetensors").exists()
    assert check_result_folder(tmp_path / "run", other, force=True)
    assert not (tmp_path / "run/model.safetensors").exists()


def test_truncated_weights_are_an_error(tmp_path):
    save_weights(tmp_path / "model.safetensors", {"x": torch.ones(3)}, {})
    content = (tmp_path / "model.safetensors").read_bytes()
    for size in (0, 7, 60, len(content) - 4):
        (tmp_path / "model.safetensors").write_bytes(content[:size])
        with pytest.raises(UserError, match="is damaged"):
            read_weights(tmp_path / "model.safetensors", "stage 5")


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("broken-in").touch, ())

    torch.save({"network": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="holds more than weights"):
        fit(Scripted([0.1]), tmp_path, 1, {})
    assert not (tmp_path / "broken-in").exists()


@pytest.mark.parametrize("works", [True, False])
def test_networks_are_compiled_on_a_gpu_if_compilation_works(monkeypatch, caplog, works):
    """A missing compiler, header or driver costs speed, not the run."""

    def compiler(function):
        def compiled(values):
            if not works:
                raise RuntimeError("Failed to find\na C compiler")
            return function(values)

        return compiled

    monkeypatch.setattr(log, "propagate", True)
    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(torch, "zeros", lambda count, device: torch.ones(count))
    assert should_compile("auto", torch.device("cuda")) is works
    assert ("training is slower: Failed to find a C compiler" in caplog.text) is not works


def test_choosing_a_device_does_not_import_the_compiler():
    """The import takes seconds, even in programs whose results are up to date."""
    script = "import sys; from tagasc.utils.device import choose_device; choose_device('cpu'); sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def test_networks_are_compiled_on_a_cpu_on_request_only():
    assert [should_compile(mode, CPU) for mode in ("auto", "never", "always")] == [False, False, True]
