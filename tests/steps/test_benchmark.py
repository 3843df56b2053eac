import re

import pytest
import torch
import yaml

from steps.benchmark import Options
from tagasc.benchmark import tagger as tagger_speed
from tagasc.benchmark.measure import Speed
from tagasc.tagger.config import InferenceConfig, PseudoLabelConfig, SemiTraining, TaggerTraining
from tagasc.tagger.features import MelConfig
from tagasc.tagger.network import TaggerConfig
from tagasc.utils.files import read_json
from tests.helpers import run, succeed

BATCH = 2
SMALL = f"""--batch {BATCH} --seconds 0 --trunk.stem_filters 8 --trunk.block_filters [8,8] --scene.crop_seconds 0.5
    --work.seconds 1 --work.sampling_rate 4000 --work.train 60 --work.validation 20 --work.test 20 --work.unused 10""".split()
TAGGER = {
    "model": {"depths": [1, 1], "width": 8, "hidden": 16},
    "mel": {"sampling_rate": 8000, "n_fft": 256, "hop": 128, "mels": 32, "low": 20, "high": 4000},
}


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "tagger.yaml").write_text(yaml.safe_dump(TAGGER))
    files = ("--json", folder / "speeds.json", "--config", folder / "tagger.yaml")
    networks = ("--systems", "table2 @shuffled", "--seeds", "1 2")
    output = succeed("steps/benchmark.py", "all", *SMALL, *files, *networks)
    return output, read_json(folder / "speeds.json", "")


def test_every_part_is_measured_in_one_run(everything):
    output, result = everything
    assert list(dict.fromkeys(speed["part"] for speed in result["speeds"])) == ["scene", "tagger", "pack", "svm"]
    assert [s["what"].split(",")[0] for s in result["speeds"] if s["part"] == "scene"] == [
        "training step",
        "our training step",
        "our training step",
        "codes of whole clips",
    ]
    for speed in result["speeds"]:
        assert speed["calls"] == 2
        assert speed["what"] in output
    assert result["provenance"]["versions"]["torch"]


def test_ratios_are_relative_to_the_first_speed_of_a_part(everything):
    output, result = everything
    scene = [speed["clips_per_second"] for speed in result["speeds"] if speed["part"] == "scene"]
    printed = [float(value) for value in re.findall(r"^scene .*? ([\d.]+) +2 +[\d.]+\b", output, re.MULTILINE)]
    assert printed == pytest.approx([value / scene[0] for value in scene], abs=0.006)


def test_the_estimate_follows_from_the_speeds(everything):
    output, result = everything
    codes = next(s["clips_per_second"] for s in result["speeds"] if s["what"].startswith("codes"))
    assert result["estimate"]["codes"] == pytest.approx(9 * 2 * 90 / codes)  # nine systems, two seeds
    assert result["estimate"]["download"] is None
    assert "not estimated" in output
    assert "total" in output


def test_defaults_of_the_tagger_are_those_of_stage_3():
    groups = {
        "model": TaggerConfig,
        "mel": MelConfig,
        "training": TaggerTraining,
        "pseudo_labels": PseudoLabelConfig,
        "semi": SemiTraining,
        "inference": InferenceConfig,
    }
    options = Options("tagger")
    assert {name: getattr(options, name) for name in groups} == {name: cls() for name, cls in groups.items()}
    assert (options.folds, options.stages) == ("0", 1)


def test_the_tagger_is_measured_with_its_training_settings(tmp_path):
    mel = MelConfig(sampling_rate=8000, n_fft=256, hop=128, mels=32, low=20, high=4000)
    training = TaggerTraining(batch=2, crop_frames=40, mask_half_width=(1, 4), leave_out=("a",))
    trainer = tagger_speed._trainer(
        tmp_path, TaggerConfig(depths=(1,), width=8, hidden=8), mel, training, False, torch.device("cpu")
    )
    assert (trainer.config.batch, trainer.config.crop_frames, trainer.config.mask_half_width) == (2, 40, (1, 4))


def test_only_the_scene_network_uses_scene_threads(monkeypatch):
    threads = []

    def measured(*_):
        threads.append(torch.get_num_threads())
        yield Speed("fake", 1.0, 2)

    monkeypatch.setattr("tagasc.benchmark.scene.measure_scene", measured)
    before = torch.get_num_threads()
    succeed("steps/benchmark.py", "scene", "--scene-threads", before - 1)
    assert [*threads, torch.get_num_threads()] == [before - 1, before]


def test_invalid_options_are_one_line_errors():
    assert run("steps/benchmark.py", "heater").status == 2
    assert "--batch at least 2" in run("steps/benchmark.py", "tagger", "--batch", 1).error
    assert "--seconds must" in run("steps/benchmark.py", "svm", "--seconds", ".nan").error
    few = run("steps/benchmark.py", "svm", "--work.train", 10, "--work.validation", 20)
    assert "train must exceed validation" in few.error
    outcome = run("steps/benchmark.py", "all", "--systems", "att_h3")
    assert "there is no system 'att_h3'" in outcome.error
    assert "clips/s" not in outcome.error  # the error comes before the measurements
    assert "needs a GPU" in run("steps/benchmark.py", "scene", "--audio-cache", "gpu", "--device", "cpu").error
