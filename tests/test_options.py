"""How run.sh is called: options, help, dry runs; what is called wrongly is one clear line."""

import os
import re
import shutil
import subprocess
import sys
import venv

import pytest

from tests.helpers import ROOT, Recipe


@pytest.mark.parametrize("tagger", ["hf:someone/model", "tags.npz"])
def test_a_tagger_made_elsewhere_wants_no_tagging_corpus(tagger, recipe):
    status, said = recipe.run("--dry-run", "--tagger", tagger)
    assert status == 0
    assert not [program for program in ("fsdkaggle2019.py", "data/fsdkaggle2019", "train_tagger") if program in said]
    assert "extract_tags.py" in said


def test_dry_run_prints_the_commands_and_runs_nothing(recipe, tmp_path):
    fresh = Recipe(tmp_path / "fresh")
    shutil.copytree(recipe.folder / "conf", fresh.folder / "conf")
    shutil.copy(recipe.folder / "recipe.sh", fresh.folder)
    status, said = fresh.run("--dry-run", "--seeds", "1 2 3")
    assert status == 0, said
    assert [step in said for step in ("compose.py", "pack_audio.py", "train_scene.py", "report.py")] == [True] * 4
    assert "--seeds 1\\ 2\\ 3" in said
    assert sorted(path.name for path in fresh.folder.iterdir()) == ["conf", "recipe.sh"]


@pytest.fixture(scope="module")
def copy(finished, tmp_path_factory):
    """Of a finished recipe, since calls that fail leave logs, which other tests read."""
    recipe = Recipe(tmp_path_factory.mktemp("options") / "copy")
    shutil.copytree(finished.folder, recipe.folder)
    return recipe


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sytems", "all"], "unknown option --sytems"),
        (["--stop_stage", "2"], "options have dashes"),
        (["--stage"], "--stage needs a value"),
        (["--stage", "9"], "stages go from 0 to 8"),
        (["--stage", "5", "--stop-stage", "4"], "stages go from 0 to 8"),
        (["--seeds=1", "--nj", "two"], "--nj must be a whole number"),
        (["--force=maybe"], "--force is true or false"),
        (["mini"], "mini is no option"),
        (["--recipe", "nowhere"], "there is no recipe nowhere"),
        (["--stage", "5", "--ngpu", "1"], "has no usable GPU"),
        (["--stage", "5", "--ngpu", "2"], "has no usable GPU"),
        (["--stage", "0", "--corpus-seed", "-1", "--force"], "--seed must not be negative"),
        (["--stage", "0", "--clips-per-location", "0", "--force"], "must be positive"),
        (["--stage", "0", "--group", "(", "--force"], "is no pattern"),
        (["--stage", "8", "--seeds", "x"], "must be whole numbers"),
        (["--stage", "8", "--systems", " "], "--systems ' ' names none; take all, table2, table3, "),
        (["--stage", "8", "--systems", "*"], "there is no system '*'"),
        (["--stage", "09"], "stages go from 0 to 8"),
        (["--stage", "8", "--systems", "att_h3"], "there is no system 'att_h3'; take all, table2, table3, "),
        (["--stage", "8", "--systems", "all att_h3@shuffled"], "there is no system 'att_h3@shuffled'"),
        (["--stage", "8", "--systems", "baseline@shuffled"], "baseline@shuffled: baseline uses no tags to alter"),
        (["--stage", "8", "--systems", "shared_h4_l3@other"], "its control is one of @shuffled @constant"),
        (["--stage", "8", "--controls", "shuffled"], "takes @shuffled @constant @within @oracle, not shuffled"),
        (["--stage", "8", "--trunk", "tabel1"], "conf/trunk_tabel1.yaml; --trunk is one of table1"),
        (["--stage", "8", "--tagger", "/no/tags.npz"], "/no/tags.npz does not exist"),
        (["--stage", "8", "--activation", "softmx"], "--activation is one of auto sigmoid softmax"),
        (["--stage", "8", "--sample-format", "int8"], "--sample-format is one of int16 float32"),
    ],
)
def test_a_wrong_option_is_one_clear_line(copy, options, said):
    status, output = copy.run(*options)
    assert status in (1, 2)
    assert said in output
    assert "Traceback" not in output


def test_a_number_may_have_leading_zeros(recipe):
    status, said = recipe.run("--dry-run", "--stage", "08", "--nj", "08")
    assert status == 0, said
    assert "report.py" in said
    assert "value too great" not in said


def test_a_variable_of_the_environment_may_be_called_as_an_option_is(recipe):
    environment = {**os.environ, "TAGASC_PYTHON": sys.executable, "tagger": "other", "seeds": "4 5", "group": "x"}
    command = recipe.command("--dry-run", "--stage", 3, "--tagger", "mine", "--group", "y")
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "exp/tagger/mine" in done.stdout
    assert "--seeds 1 " in done.stdout
    shown = subprocess.run(recipe.command("--help"), capture_output=True, text=True, env=environment, check=True).stdout
    assert len(re.findall("--tagger ", shown)) == len(re.findall("--seeds ", shown)) == 1


def test_a_recipe_without_scene_networks_ends_before_them(recipe, tmp_path):
    bare = Recipe(tmp_path / "bare")
    shutil.copytree(recipe.folder / "conf", bare.folder / "conf")
    shutil.copy(recipe.folder / "recipe.sh", bare.folder)
    (bare.folder / "conf/scene.yaml").unlink()
    status, said = bare.run("--dry-run")
    assert status == 2
    assert "recipe bare trains no scene network without" in said
    assert bare.run("--dry-run", "--stop-stage", 4)[0] == 0


def test_bit_for_bit_is_asked_of_every_step_that_may_run_on_a_gpu(recipe):
    _, said = recipe.run("--dry-run", "--deterministic")
    asked = [line for line in said.splitlines() if "--deterministic" in line]
    for program in ("train_tagger.py", "extract_tags.py", "train_scene.py", "extract_codes.py"):
        assert any(program in line for line in asked), program


def test_an_estimate_is_of_what_will_run(recipe, tmp_path):
    status, said = recipe.run("--estimate", "--dry-run", "--nj", 4, "--protocol", "paper", "--final-fit", "all")
    assert status == 0, said
    for words in ("at_once 2", "--scene-threads 2", "protocol paper --work.final_fit all", "own_tagger true"):
        assert words in said
    status, said = recipe.run("--estimate", "--dry-run", "--ngpu", 4, "--tagger", "a.npz")
    assert "--work.gpus 4 --work.at_once 4" in said
    assert "own_tagger false" in said
    assert "--scene-threads" not in said
    plain = Recipe(tmp_path / "plain")
    shutil.copytree(recipe.folder / "conf", plain.folder / "conf")
    (plain.folder / "recipe.sh").write_text((recipe.folder / "recipe.sh").read_text() + "unset -f workload\n")
    assert "write a function workload" in plain.run("--estimate")[1]
    assert "/dump/audio --corpus tau2019 --tagging-corpus fsdkaggle2019" in plain.run("--estimate", "--dry-run")[1]


@pytest.mark.parametrize("systems", ["all", "table2 table5", "baseline shared_h4_l3@within @oracle"])
def test_every_kind_of_name_is_taken(recipe, systems):
    status, said = recipe.run("--systems", systems, "--seeds", "0 12", "--dry-run", "--controls", "@constant @within")
    assert status == 0, said


def test_help_tells_each_option_and_its_value(recipe):
    status, said = recipe.run("--help")
    assert status == 0
    for words in ("0 download", "8 report", "--stop-stage last stage to run [8]", "--dry-run print the commands, run"):
        assert words in " ".join(said.split())
    # The recipe sets a number of its own; what it means is told by the recipe that it sources.
    assert "--scene-train training clips of each scene [6]" in " ".join(said.split())


@pytest.mark.parametrize("name", sorted(path.parent.name for path in ROOT.glob("egs/*/recipe.sh")))
def test_help_of_every_recipe_has_short_lines(name):
    done = subprocess.run([ROOT / "run.sh", "--recipe", name, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 120
    assert "--trunk" in done.stdout
    assert "train the tagger's noisy head too" in done.stdout


def source_path(python, **environment):
    environment = {**os.environ, "TAGASC_PYTHON": str(python), **environment}
    command = ["bash", "-c", f". '{ROOT}/path.sh'"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return done.returncode, done.stderr.splitlines()


def test_a_python_of_ones_own_has_every_package_and_none_too_old(tmp_path):
    assert source_path(sys.executable) == (0, [])
    for package in ("scipy-1.9.3", "matplotlib-3.9", "torch-2.11.0a0+git"):
        (tmp_path / f"{package}.dist-info").mkdir()
        name, version = package.split("-")
        (tmp_path / f"{package}.dist-info/METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    status, (said,) = source_path(sys.executable, PYTHONPATH=str(tmp_path))
    assert status == 1
    assert "lacks scipy 1.15 or newer (there is 1.9.3), matplotlib 3.10 or newer (there is 3.9); install" in said
    venv.create(tmp_path / "bare")
    status, (said,) = source_path(tmp_path / "bare/bin/python", PYTHONPATH="")
    assert status == 1
    wanted = [re.split(r"\W", line)[0] for line in (ROOT / "requirements.txt").read_text().split()]
    assert [name for name in wanted if name not in said] == []


def test_a_gpu_that_is_there_is_asked_for(recipe, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: one that torch may not know'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    environment = {**os.environ, "TAGASC_PYTHON": sys.executable, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = recipe.command("--ngpu", "auto", "--stage", 5, "--dry-run")
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "--device cuda " in done.stdout
    assert "--device auto" not in done.stdout
