"""Whole recipes end to end, through run.sh, on a corpus of seconds; in a folder whose name has spaces and accents."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from tagasc.files import digest
from tests.conftest import ROOT, TAGGER, TRUNK

RECIPE = """
. "{root}/egs/mini/recipe.sh"
systems="baseline shared_h4_l3"
scene_seconds=1
scene_train=6
scene_test=3
clips_per_location=2
tagging_train=34
tagger=tiny
"""


@dataclass(frozen=True)
class Recipe:
    """A recipe's folder, and how a person runs it."""

    folder: Path

    def command(self, *options):
        return [str(ROOT / "run.sh"), "--recipe", str(self.folder), "--nj", "1", "--ngpu", "0", *map(str, options)]

    def run(self, *options):
        environment = {**os.environ, "TAGASC_PYTHON": sys.executable}
        done = subprocess.run(
            self.command(*options), capture_output=True, text=True, env=environment, cwd="/", check=False
        )
        return done.returncode, done.stdout + done.stderr

    def digests(self):
        """Digest of every result but logs, which tell the time."""
        kept = ("*.npz", "*.npy", "*.safetensors", "scores.json", "predictions.csv", "*.jsonl.gz")
        return {str(p.relative_to(self.folder)): digest(p) for pattern in kept for p in self.folder.rglob(pattern)}


def lines(settings):
    return "".join(f"{name}: {value}\n" for name, value in settings.items())


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes") / "ma réc été"
    (folder / "conf").mkdir(parents=True)
    (folder / "recipe.sh").write_text(RECIPE.format(root=ROOT))
    (folder / "conf/trunk_table1.yaml").write_text(lines(TRUNK))
    training = {"epochs": 2, "batch": 8, "crop_seconds": 0.5, "learning_rate": 0.003}
    (folder / "conf/scene.yaml").write_text(lines(training))
    tagger = dict(zip(TAGGER[::2], TAGGER[1::2], strict=True))
    groups = {}
    for name, value in tagger.items():
        group, key = name.removeprefix("--").split(".")
        groups.setdefault(group, {})[key] = value
    text = "".join(
        f"{group}:\n" + "".join(f"  {key}: {value}\n" for key, value in keys.items()) for group, keys in groups.items()
    )
    (folder / "conf/tagger.yaml").write_text(text)
    return Recipe(folder)


@pytest.fixture(scope="module")
def finished(recipe):
    """The recipe after one bare run."""
    status, said = recipe.run()
    assert status == 0, said
    return recipe


def test_every_log_tells_how_much_memory_was_taken(finished):
    logs = list((finished.folder / "exp/log").glob("[0-8].*.log"))
    assert len(logs) >= 9
    for log in logs:
        assert re.search(r": at most [\d.]+ GB of memory", log.read_text()), log


def test_a_bare_run_ends_with_a_report(finished):
    report = (finished.folder / "exp/report/RESULTS.md").read_text()
    for name in ("baseline", "shared_h4_l3", "Synthetic", "lwlrap", "scene clips, test", "test+unused", "torch 2."):
        assert name in report
    assert not re.search("Outdated|other settings", report)
    for picture in ("accuracies", "confusions", "curves", "tagger"):
        assert (finished.folder / f"exp/report/{picture}.png").stat().st_size > 5000
    assert list((finished.folder / "exp/table1-tiny/scene/baseline/seed1/tensorboard").iterdir())


def test_a_second_run_does_nothing_again(finished):
    before = finished.digests()
    changed = {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*.safetensors")}
    status, said = finished.run()
    assert status == 0, said
    assert said.count("already trained") == 3  # the tagger and two networks
    assert finished.digests() == before
    assert {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*.safetensors")} == changed


def test_the_same_command_elsewhere_gives_the_same_results(finished, tmp_path):
    other = Recipe(tmp_path / "other")
    shutil.copytree(finished.folder / "conf", other.folder / "conf")
    shutil.copy(finished.folder / "recipe.sh", other.folder)
    status, said = other.run("--stop-stage", 7)
    assert status == 0, said
    # Manifests hold paths, and what is made from them their hashes; the audio, weights and predictions must agree.
    wanted = [name for name in finished.digests() if name.endswith((".safetensors", ".npy", "predictions.csv"))]
    assert len(wanted) == 4 + 7 + 3  # the tagger has a snapshot beside its best weights
    assert {name: other.digests()[name] for name in wanted} == {name: finished.digests()[name] for name in wanted}


def test_what_was_made_from_an_older_tagger_is_outdated(finished, tmp_path):
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder)
    conf = recipe.folder / "conf/tagger.yaml"
    conf.write_text(conf.read_text().replace("crop_frames: 32", "crop_frames: 24"))
    status, said = recipe.run("--stage", 3, "--stop-stage", 3)
    assert status == 1
    assert "training.crop_frames was 32 and is 24" in said
    assert "--force trains it anew" in said
    status, said = recipe.run("--stage", 3, "--stop-stage", 3, "--force")
    assert status == 0, said
    status, said = recipe.run("--stage", 8)
    assert "tag vectors of test: its input tagger has changed" in (recipe.folder / "exp/report/RESULTS.md").read_text()
    status, said = recipe.run("--stage", 4)
    assert said.count("outdated (its input tagger has changed since), tagging again") == 4
    assert status == 1, said  # the networks were trained on the old tags; they are not thrown away unasked
    assert "its input tags train has changed since" in said
    status, said = recipe.run("--stage", 5, "--stop-stage", 7, "--systems", "baseline")
    assert status == 0, said  # the baseline uses no tags
    assert said.count("up to date") == 2


def test_a_failure_says_where_and_how_to_go_on(finished, tmp_path):
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder, ignore=shutil.ignore_patterns("tags", "svm"))
    status, said = recipe.run("--stage", 5, "--stop-stage", 7, "--seeds", "1 2")
    assert status == 1
    assert "stage 5 (scenes) failed with status 1" in said
    assert "tau2019_train.npz does not exist; stage 4 (tags) makes it" in said
    assert f"The log: {recipe.folder}/exp/log/5.scenes.log" in said
    assert "Traceback" not in said
    goes_on = next(line for line in said.splitlines() if line.startswith("To go on: ")).removeprefix("To go on: ")
    assert "--seeds 1\\ 2" in goes_on
    assert goes_on.endswith("--stage 5")
    shutil.copytree(finished.folder / "dump/tags", recipe.folder / "dump/tags")
    (recipe.folder / "exp/table1-tiny/codes/baseline/seed1/.123.train.npz").write_bytes(b"left by a killed run")
    environment = {**os.environ, "TAGASC_PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", "-c", goes_on], capture_output=True, text=True, env=environment, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list((recipe.folder / "exp/table1-tiny/svm").glob("*/seed*/scores.json"))) == 5  # and tags alone


def test_a_step_that_dies_without_a_word_is_told_of(finished, tmp_path):
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder)
    (tmp_path / "python").write_text(
        f'#!/bin/sh\ncase $1 in *score_svm*) kill -9 $$;; esac\nexec {sys.executable} "$@"\n'
    )
    (tmp_path / "python").chmod(0o755)
    environment = {**os.environ, "TAGASC_PYTHON": str(tmp_path / "python")}
    done = subprocess.run(recipe.command("--stage", 7), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 137
    assert "(it said nothing)" in done.stderr
    assert "To go on: " in done.stderr


def test_force_does_only_what_is_asked_over(finished, tmp_path):
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder)
    status, said = recipe.run("--stage", 5, "--stop-stage", 5, "--systems", "baseline", "--force")
    assert status == 0, said
    assert "already trained" not in said
    status, said = recipe.run("--stage", 5, "--stop-stage", 7)
    assert status == 0, said
    assert said.count("already trained") == 2
    assert said.count("up to date") == 5  # the same seed gave the same weights, so nothing is outdated


def test_every_fit_and_a_control_stand_in_the_report(finished, tmp_path):
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder)
    options = ("--protocol", "paper", "--final-fit", "all", "--controls", "@shuffled")
    status, said = recipe.run("--stage", 5, *options)
    assert status == 0, said
    experiment = recipe.folder / "exp/table1-tiny"
    for name in ("baseline", "shared_h4_l3", "shared_h4_l3@shuffled"):
        for place in (f"paper/scene/{name}/seed1/paper.json", f"final/svm/{name}/seed1/scores.json"):
            assert (experiment / place).exists(), place
    report = (recipe.folder / "exp/report/RESULTS.md").read_text()
    for words in ("train+validation", "final fit", "shared_h4_l3@shuffled", "tags of another clip"):
        assert words in report
    assert not re.search("Outdated|other settings", report)
    status, said = recipe.run("--stage", 5, *options)
    assert status == 0, said
    assert "kept epoch" not in said  # nothing is trained again


def test_on_the_cpu_processes_share_the_list_of_runs(finished, tmp_path):
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder, ignore=shutil.ignore_patterns("scene", "codes", "svm"))
    status, said = recipe.run("--stage", 5, "--stop-stage", 5, "--nj", 2, "--seeds", "1 2")
    assert status == 0, said
    logs = [(recipe.folder / f"exp/log/5.scenes.{number}.log").read_text() for number in (0, 1)]
    assert sum(log.count("kept epoch") for log in logs) == 4  # each run once
    assert len(list((recipe.folder / "exp/table1-tiny/scene").glob("*/seed*/model.safetensors"))) == 4


def test_a_failed_run_is_told_of_in_its_own_log_alone(finished, tmp_path):
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder)
    (recipe.folder / "exp/table1-tiny/scene/baseline/seed1/made_from.json").unlink()
    options = ("--stage", 5, "--stop-stage", 5, "--nj", 2, "--controls", "@constant")
    status, said = recipe.run(*options)
    assert status == 1
    assert "baseline.seed1 failed: " in said
    assert (recipe.folder / "exp/table1-tiny/scene/shared_h4_l3@constant/seed1/model.safetensors").exists()
    assert "5.scenes." in said
    assert "5.controls." not in said  # that step did well
    assert said.splitlines()[-1].startswith("To go on: ")  # without --force, see above
    assert "--stage 5" in said.splitlines()[-1]


def test_two_runs_at_once_are_refused(finished):
    with (finished.folder / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate()
        lock.write(f"12345 {int(time.time()) - 600}\n")
        lock.flush()
        status, said = finished.run("--stage", 8)
    assert status == 1
    assert "process 12345 has been running this recipe for 10 minutes" in said


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
    assert [step in said for step in ("soundscapes.py", "pack_audio.py", "train_scene.py", "report.py")] == [True] * 4
    assert "--seeds 1\\ 2\\ 3" in said
    assert sorted(path.name for path in fresh.folder.iterdir()) == ["conf", "recipe.sh"]


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
        (["--stage", "8", "--systems", "att_h3"], "there is no system 'att_h3'; take all, table2, table3, "),
        (["--stage", "8", "--systems", "all att_h3@shuffled"], "there is no system 'att_h3@shuffled'"),
        (["--stage", "8", "--systems", "baseline@shuffled"], "baseline@shuffled: baseline uses no tags to alter"),
        (["--stage", "8", "--systems", "shared_h4_l3@other"], "its control is one of @shuffled @constant"),
        (["--stage", "8", "--controls", "shuffled"], "takes @shuffled @constant @within @oracle, not shuffled"),
        (["--stage", "8", "--trunk", "tabel1"], "conf/trunk_tabel1.yaml; --trunk is one of table1"),
        (["--stage", "8", "--tagger", "/no/tags.npz"], "/no/tags.npz does not exist"),
        (["--stage", "8", "--activation", "softmx"], "--activation is one of auto sigmoid softmax"),
        (["--stage", "8", "--sample", "int8"], "--sample is one of int16 float32"),
    ],
)
def test_a_wrong_option_is_one_clear_line(finished, options, said):
    status, output = finished.run(*options)
    assert status in (1, 2)
    assert said in output
    assert "Traceback" not in output


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


def wait_for(path, process, seconds=120):
    for _ in range(seconds * 20):
        if path.exists():
            return
        assert process.poll() is None, "it ended before it could be stopped"
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


@pytest.mark.parametrize(("how", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_killed_run_goes_on_to_the_same_weights(finished, tmp_path, how, status):
    """Killed or interrupted in training, the same command then ends at an uninterrupted run's weights."""
    recipes = [Recipe(tmp_path / name) for name in ("cut", "whole")]
    for recipe in recipes:
        shutil.copytree(finished.folder, recipe.folder, ignore=shutil.ignore_patterns("scene", "codes", "svm"))
        conf = recipe.folder / "conf/scene.yaml"
        conf.write_text(conf.read_text().replace("epochs: 2", "epochs: 60"))
    options = ("--stage", 5, "--stop-stage", 5, "--systems", "shared_h4_l3")
    run = recipes[0].folder / "exp/table1-tiny/scene/shared_h4_l3/seed1"
    environment = {**os.environ, "TAGASC_PYTHON": sys.executable}
    process = subprocess.Popen(
        recipes[0].command(*options),
        env=environment,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background has Ctrl-C ignored, and so would all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for(run / "checkpoint.pt", process)
    if how == signal.SIGTERM:
        process.terminate()  # run.sh alone, which passes it on
    else:
        os.killpg(process.pid, how)
    _, said = process.communicate()
    assert process.returncode == status
    assert not (run / "model.safetensors").exists()
    if how != signal.SIGKILL:
        assert f"To go on: {ROOT}/run.sh" in said
    code, said = recipes[0].run(*options)
    assert code == 0, said
    assert "going on after epoch" in said
    assert recipes[1].run(*options)[0] == 0
    weights = [r.folder / "exp/table1-tiny/scene/shared_h4_l3/seed1/model.safetensors" for r in recipes]
    assert weights[0].read_bytes() == weights[1].read_bytes()
