"""Every command in README.md and docs/ is run, or printed by --dry-run: options that no longer exist fail here."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import load_manifest

from tests.helpers import ROOT

ENVIRONMENT = {**os.environ, "TAGASC_PYTHON": sys.executable}
ABLATION = "egs/tagger_ablation/ablation.sh ESC10_DIR"
TESTED_ELSEWHERE = {
    ABLATION: "below",
    "cp -r egs/template egs/cafes": "below",
    "cp -r egs/template egs/halls": "below",
    "mkdir egs/recorded && cp -r egs/mini/{recipe.sh,conf} egs/recorded": "the fixture",
    "benchmark.py tagger --seconds 5 --batch 8": "steps/test_benchmark.py",
    ". ./path.sh": "test_options.py",
    "check_tagger.py --tags-from py:/data/passt.py": "steps/test_check_tagger.py",
    "pip install -c constraints.txt -r requirements-export.txt": "tests/run.sh, which installs them",
    "predict.py egs/mini/exp/bundle/codecat egs/mini/corpora/TAU*/audio/"
    "{metro_station-barcelona-97,park-paris-124}-0-a.wav --explain why": "steps/test_bundle.py",
    "predict.py egs/mini/exp/bundle/codecat recordings/ more/*.mp3": "steps/test_bundle.py",
    "predict.py egs/mini/exp/bundle/codecat long.flac --hop 1 --csv windows.csv --explain why": "steps/test_bundle.py",
}


def commands(page):
    """Commands in a page's shell blocks, continued lines joined."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
EVERY = [(page, command) for page in PAGES for command in commands(page)]
RECIPES = [(page, command) for page, command in EVERY if command not in TESTED_ELSEWHERE]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The repository's own files, in a folder with a space in its name."""
    target = tmp_path_factory.mktemp("clone") / "tag asc"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    for name in ("cafes", "halls"):
        shutil.copytree(target / "egs/template", target / f"egs/{name}")
    shutil.copytree(target / "egs/mini", target / "egs/recorded")
    return target


def test_every_row_of_agreement_names_tests_that_exist():
    """A name without a file belongs to the file before it."""
    page = (ROOT / "docs/agreement.md").read_text(encoding="utf-8")
    rows = [line for line in page.partition("## Ours")[0].splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for row in rows:
        tests = re.findall(r"`(?:([\w/]+\.py)::)?(test_\w+)`", row)
        assert tests, row
        path = ROOT
        for file, name in tests:
            if file:
                path = ROOT / (file if file.startswith("tests/") else f"tests/tagasc/{file}")
            assert f"\ndef {name}(" in path.read_text(encoding="utf-8"), (path, name)


def test_commands_tested_elsewhere_are_in_a_page():
    assert TESTED_ELSEWHERE.keys() <= {command for _, command in EVERY}


def test_what_the_pages_export_is_trained_by_a_bare_run():
    trained = re.search(r'(?m)^systems="(.*?)"', (ROOT / "egs/mini/recipe.sh").read_text(encoding="utf-8"))[1].split()
    pages = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    exported = re.findall(r"(?:--export-system |egs/mini/exp/bundle/)(\w+)", pages)
    assert len(exported) >= 6
    assert set(exported) <= set(trained)


@pytest.mark.parametrize(("page", "command"), RECIPES)
def test_a_pages_commands_are_understood(copy, page, command):
    assert re.match(r"(\./run|egs/rehearsal|egs/events_or_regularisation/study)\.sh", command), (
        f"{page}: no test knows {command}"
    )
    done = subprocess.run(
        ["bash", "-c", f"{command} --dry-run"], cwd=copy, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_table_of_stages_in_the_readme_is_that_of_run_sh():
    stages = re.findall(r"(?m)^if stage (\d \w+);[^#]*# (.*)$", (ROOT / "run.sh").read_text())
    rows = re.findall(r"(?m)^\| (\d \w+) \| .* \| (.*) \|$", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert [(name, files.replace("→", "->").replace("\\", "")) for name, files in rows] == stages


@pytest.mark.parametrize("folder", ["steps", "local"])
def test_every_program_can_be_called_by_its_name(folder):
    programs = [path for path in (ROOT / folder).rglob("*.py") if "cli.run(main" in path.read_text(encoding="utf-8")]
    assert len(programs) > 5
    assert [path.name for path in programs if not os.access(path, os.X_OK)] == []


def test_a_recipes_own_run_script_means_that_recipe(copy):
    done = subprocess.run(
        ["bash", "-c", "cd egs/dcase2019 && ./run.sh --stage 3 --stop-stage 3 --dry-run"],
        cwd=copy, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--config conf/tagger.yaml" in done.stdout
    assert "exp/tagger/resnet34" in done.stdout


def make_corpora(folder):
    """Another shape than the paper's: mono, 16 kHz, 3 s, four scenes, no official split, three sounds."""
    random = np.random.default_rng(0)
    time = np.arange(3 * 16000) / 16000
    rows = []
    (folder / "clips").mkdir(parents=True)
    for number in range(64):
        scene = ("kitchen", "workshop", "café", "yard")[number % 4]
        wave = 0.1 * np.sin(2 * np.pi * (200 + 300 * (number % 4)) * time) + 0.01 * random.normal(size=len(time))
        soundfile.write(folder / f"clips/clip {number}.wav", wave, 16000)
        device = ("phone", "studio")[number // 4 % 2]
        rows.append((f"clips/clip {number}.wav", scene, f"place {number % 4}-{number // 8}", device))
        hall = folder.parent / f"halls/{scene}/{number % 4}-{number // 8}_{device}_{number}.wav"
        hall.parent.mkdir(parents=True, exist_ok=True)
        hall.hardlink_to(folder / f"clips/clip {number}.wav")
    write(folder / "scenes.csv", [("file", "scene", "location", "device"), *rows])
    rows = []
    for number in range(60):
        label = ("drill", "voice", "bell")[number % 3]
        wave = 0.1 * np.sin(2 * np.pi * (300 + 500 * (number % 3)) * time[: 8000 + 200 * number])
        soundfile.write(folder / f"clips/sound{number}.flac", wave, 16000)
        labels = f"{label},voice" if label == "drill" and number % 2 else label
        rows.append((f"clips/sound{number}.flac", labels, ("curated", "curated", "noisy", "test")[number // 3 % 4]))
    write(folder / "sounds.csv", [("file", "labels", "split"), *rows])


def write(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


SMALL = {
    "scene.yaml": {"epochs": 2, "batch": 8},
    "tagger.yaml": {"epochs": 2, "cycle": 2, "batch": 8, "width": 8, "hidden": 8},
    "trunk_table1.yaml": {"stem_filters": 8, "block_filters": "[8, 8, 8, 8, 8, 8, 8]"},
}


def shrink(conf: Path, *names: str):
    """Settings for seconds in place of hours, as one would by hand."""
    for name in names:
        text = (conf / name).read_text()
        for key, value in SMALL[name].items():
            text, count = re.subn(rf"(?m)^(\s*{key}:).*$", rf"\1 {value}", text)
            assert count
        (conf / name).write_text(text)


@pytest.mark.slow
def test_the_walk_through_of_adapting(copy, tmp_path):
    make_corpora(tmp_path / "cafes")
    for name in ("cafes", "halls"):
        shutil.rmtree(copy / f"egs/{name}")
    (module,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/adapting.md").read_text(encoding="utf-8"), re.DOTALL)
    (copy / "local/halls.py").write_text(f"#!/usr/bin/env python3\n{module}", encoding="utf-8")
    (copy / "local/halls.py").chmod(0o755)
    for command in commands("docs/adapting.md"):
        ours = re.sub("/data/(cafes|halls)", rf"{tmp_path}/\1", command)
        done = subprocess.run(
            ["bash", "-c", ours], cwd=copy, env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        if command.startswith("cp "):
            folder = copy / command.split()[-1]
            shrink(folder / "conf", *SMALL)
            recipe = folder / "recipe.sh"
            recipe.write_text(recipe.read_text().replace('seeds="1 2 3"', "seeds=1"))
    report = (copy / "egs/cafes/exp/report/RESULTS.md").read_text(encoding="utf-8")
    for name in ("café", "workshop", "shared_h4_l3", "codecat", "tagging corpus", "## Accuracy by device", "| phone |"):
        assert name in report
    by_folder, by_module = copy / "egs/halls/data/scene_csv", copy / "egs/halls/data/halls"
    header, *rows = (by_folder / "scenes.csv").read_text(encoding="utf-8").splitlines()
    assert (header, len(rows)) == ("file,scene,location,device", 64)
    for manifests in (by_folder, by_module):
        cuts = [cut for path in manifests.glob("*_cuts_*") for cut in load_manifest(path)]
        assert {cut.supervisions[0].custom["device"] for cut in cuts} == {"phone", "studio"}
        assert len(cuts) == 64
        assert len(list((copy / "egs/halls/dump/audio").glob(f"{manifests.name}_*/audio.npy"))) == 3


@pytest.mark.slow
def test_the_ablation_of_the_tagger(copy, tmp_path):
    """One test set and one seed, on made-up sounds."""
    random = np.random.default_rng(0)
    for number in range(30):
        path = tmp_path / f"sounds/{('bell', 'dog', 'rain')[number % 3]}/{number // 6 + 1}-{number}-A.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * random.normal(size=8000), 16000)
    shrink(copy / "egs/tagger_ablation/conf", "tagger.yaml")
    done = subprocess.run(
        ["bash", "-c", ABLATION.replace("ESC10_DIR", str(tmp_path / "sounds"))],
        cwd=copy, env={**ENVIRONMENT, "groups": "1", "seeds": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = (copy / "egs/tagger_ablation/exp/ABLATION.md").read_text().splitlines()[2:]
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in table]
    trainings = [
        "curated clips only",
        "and noisy head, released loss",
        "and stage 2",
        "and noisy head, bce",
        "and stage 2, bce",
    ]
    assert rows == [[training, "1", "6"] for training in trainings]
