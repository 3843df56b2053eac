"""The recipes of other corpora, end to end: run.sh says what to run, on tiny synthetic corpora in their own layouts."""

import shlex

import numpy as np
import pytest
import soundfile

from local.synthetic.layout import write_table
from local.synthetic.sounds import band_noise
from local.tau import SCENES
from tagasc.audio.packed import PackedAudio
from tagasc.utils.files import write_json
from tests.helpers import RATE, ROOT, Recipe, run, succeed, yaml_lines
from tests.tagasc.report.test_groups import table_of

pytestmark = pytest.mark.slow

SECONDS = 0.25
RECIPE = """
. "{root}/egs/{name}/recipe.sh"
systems="baseline beforecode_l3"
seeds=1
training=scene
scene_dir={corpus}
scene_seconds={seconds}
scene_rate={rate}
allow_partial=true
note="Synthetic corpus"
"""
SCENE_CORPUS = {"dcase2020": "tau2020", "dcase2022": "tau2022", "cochlscene": "cochlscene"}


def write_scenes(corpus):
    """Write a corpus as compose.py does, but easily learned: a scene is a band of noise; four places to train, two to test."""
    random, rows = np.random.default_rng(0), {"train": [], "test": []}
    (corpus / "audio").mkdir(parents=True)
    for number, scene in enumerate(SCENES):
        centre = 150 * 1.5**number
        for place in range(6):
            part, city = ("train", "paris") if place < 4 else ("test", ("lyon", "milan")[place % 2])
            name = f"audio/{scene}-{city}-{10 * number + place}-0-a.wav"
            wave = (
                0.1
                * random.uniform(0.5, 1.5)
                * band_noise(random, int(SECONDS * RATE), RATE, centre / 1.1, centre * 1.1)
            )
            soundfile.write(corpus / name, wave.clip(-1, 1), RATE)
            rows[part].append((name, scene))
    for table, part in (("train", "train"), ("evaluate", "test")):
        write_table(corpus / f"evaluation_setup/fold1_{table}.csv", [("filename", "scene_label"), *rows[part]], "\t")
    write_json(corpus / "soundscapes.json", {})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The scenes, recorded with devices in the layout of each corpus."""
    folder = tmp_path_factory.mktemp("recorded")
    write_scenes(folder / "composed")
    for layout in SCENE_CORPUS.values():
        succeed("local/synthetic/devices.py", folder / "composed", folder / layout, "--layout", layout)
    return folder


def finish(name, folder, recorded, tagger, monkeypatch, epochs, *options):
    """Run a recipe's stages 1 to 8, in this process; return its report and its commands."""
    corpus, seconds = SCENE_CORPUS[name], SECONDS / (10 if name == "dcase2022" else 1)
    (folder / "conf").mkdir(parents=True)
    text = RECIPE.format(root=ROOT, name=name, corpus=recorded / corpus, seconds=seconds, rate=RATE)
    (folder / "recipe.sh").write_text(text)
    trunk = {"stem_filters": 32, "block_filters": [32, 32], "code_size": 16}
    (folder / "conf/trunk_table1.yaml").write_text(yaml_lines(trunk))
    training = {"epochs": epochs, "batch": 16, "crop_seconds": "null", "learning_rate": 0.003, "mixup_from_epoch": 99}
    (folder / "conf/scene.yaml").write_text(yaml_lines(training))
    status, commands = Recipe(folder).run("--dry-run", "--stage", 1, "--tags-from", tagger, *options)
    assert status == 0, commands
    monkeypatch.chdir(folder)
    for command in commands.splitlines():
        program, *arguments = shlex.split(command)
        place = "local" if (ROOT / "local" / program).exists() else "steps"
        outcome = run(f"{place}/{program}", *arguments)
        assert outcome.status == 0, outcome.said
    return (folder / "exp/report/RESULTS.md").read_text(), commands


def test_dcase2020_reports_devices_and_unseen_ones_are_worse(recorded, tagger, tmp_path, monkeypatch):
    page, commands = finish("dcase2020", tmp_path / "recipe", recorded, tagger, monkeypatch, 8)
    assert "tau2020.py" in commands
    rows = table_of(page, "Accuracy by device")
    unseen = {f"{device} (unseen)" for device in ("s4", "s5", "s6")}
    assert set(rows) == {"a", "b", "c", "s1", "s2", "s3", "all seen", "all unseen"} | unseen
    assert {rows[device]["clips"] for device in ("a", *unseen)} == {"20"}
    for system in ("baseline %", "beforecode_l3 %"):
        seen, others = (float(rows[f"all {kind}"][system].split()[0]) for kind in ("seen", "unseen"))
        assert seen > others + 10
    assert "test+unused" not in page
    assert "**Selected on test**" not in page
    assert "selected on test %" not in page
    assert not (tmp_path / "recipe/dump/audio/tau2020_unused").exists()
    assert "milan (unseen)" in table_of(page, "Accuracy by city")
    assert len((tmp_path / "recipe/exp/report/output.csv").read_text().splitlines()) == 1 + 9 * 20


@pytest.mark.parametrize("joined", ["tags", "clips"])
def test_dcase2022_marks_joined_segments(recorded, tagger, tmp_path, monkeypatch, joined):
    options = ("--join-segments", joined, "--systems", "beforecode_l3", "--seeds", 1)
    page, commands = finish("dcase2022", tmp_path / "recipe", recorded, tagger, monkeypatch, 1, *options)
    assert f"--join-segments {joined}" in commands
    titles = [line for line in page.splitlines() if line.startswith("#") and "How this was made" not in line]
    assert all(line.endswith("(joined segments)") for line in titles)
    assert page.count("hear") == 1  # the explanation at the top
    packed = PackedAudio(tmp_path / "recipe/dump/audio/tau2022_test")
    assert len(packed) == 9 * 20 * (10 if joined == "tags" else 1)
    with np.load(tmp_path / "recipe/dump/tags/tiny/tau2022_test.npz") as tags:
        values = tags["values"]
    assert len(values) == len(packed)
    if joined == "tags":
        assert (values.reshape(180, 10, -1) == values[::10, None]).all()


def test_cochlscene(recorded, tagger, tmp_path, monkeypatch):
    options = ("--systems", "baseline", "--seeds", 1)
    page, _ = finish("cochlscene", tmp_path / "recipe", recorded, tagger, monkeypatch, 1, *options)
    assert "The 20 test clips are from 20 locations." in page
    for scene in ("Bus", "CrowdedIndoor", "Restroom"):
        assert f"| {scene} |" in page
