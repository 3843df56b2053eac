"""What run.sh does when a result is outdated, a program fails, or a run is killed: it says how to resume, and resumes."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tagasc.utils.files import digest
from tests.helpers import ROOT, Recipe


def test_what_was_made_from_an_older_tagger_is_outdated(finished, tmp_path):
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder)
    conf = recipe.folder / "conf/tagger.yaml"
    conf.write_text(conf.read_text().replace("crop_frames: 32", "crop_frames: 24"))
    status, said = recipe.run("--stage", 3, "--stop-stage", 3)
    assert status == 1
    assert "training.crop_frames was 32 and is 24" in said
    assert "--force trains it again" in said
    status, said = recipe.run("--stage", 3, "--stop-stage", 3, "--force")
    assert status == 0, said
    status, said = recipe.run("--stage", 8)
    assert "tag vectors of test: its input tagger has changed" in (recipe.folder / "exp/report/RESULTS.md").read_text()
    status, said = recipe.run("--stage", 4)
    assert said.count("outdated (its input tagger has changed since), made again") == 4
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
    assert "tau2019_train.npz does not exist; run stage 4 (tags) to create it" in said
    assert f"Log: {recipe.folder}/exp/log/5.scenes.log" in said
    assert "Traceback" not in said
    resume = next(line for line in said.splitlines() if line.startswith("To resume: ")).removeprefix("To resume: ")
    assert "--seeds 1\\ 2" in resume
    assert resume.endswith("--stage 5")
    shutil.copytree(finished.folder / "dump/tags", recipe.folder / "dump/tags")
    (recipe.folder / "exp/table1-tiny/codes/baseline/seed1/.123.train.npz").write_bytes(b"left by a killed run")
    environment = {**os.environ, "TAGASC_PYTHON": sys.executable}
    done = subprocess.run(["bash", "-c", resume], capture_output=True, text=True, env=environment, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    experiment = recipe.folder / "exp/table1-tiny"
    assert len(list((experiment / "svm").glob("*/seed*/scores.json"))) == 5  # and tags alone
    for name in ("baseline", "shared_h4_l3"):
        first, second = (experiment / f"scene/{name}/seed{seed}/model.safetensors" for seed in (1, 2))
        assert digest(first) != digest(second)


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
    assert "(no output)" in done.stderr
    assert "To resume: " in done.stderr


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


def test_a_failed_run_is_told_of_in_its_own_log_alone(finished, tmp_path):
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder)
    (recipe.folder / "exp/table1-tiny/scene/baseline/seed1/provenance.json").unlink()
    options = ("--stage", 5, "--stop-stage", 5, "--nj", 2, "--controls", "@constant")
    status, said = recipe.run(*options)
    assert status == 1
    assert "baseline.seed1 failed: " in said
    assert (recipe.folder / "exp/table1-tiny/scene/shared_h4_l3@constant/seed1/model.safetensors").exists()
    assert "5.scenes." in said
    assert "5.controls." not in said  # that step did well
    assert said.splitlines()[-1].startswith("To resume: ")  # without --force, see above
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


def wait_for(path, process, seconds=120):
    for _ in range(seconds * 20):
        if path.exists():
            return
        assert process.poll() is None, "it ended before it could be stopped"
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


LONG = ("--stage", 5, "--stop-stage", 5, "--systems", "shared_h4_l3")
TRAINED = "exp/table1-tiny/scene/shared_h4_l3/seed1"


def to_train_long(finished, folder):
    """A copy with no scene network yet, which is to be trained for so many epochs that it can be stopped."""
    recipe = Recipe(folder)
    shutil.copytree(finished.folder, recipe.folder, ignore=shutil.ignore_patterns("scene", "codes", "svm"))
    conf = recipe.folder / "conf/scene.yaml"
    conf.write_text(conf.read_text().replace("epochs: 2", "epochs: 60"))
    return recipe


@pytest.fixture(scope="module")
def uninterrupted(finished, tmp_path_factory):
    """The weights of a training that nothing stopped."""
    recipe = to_train_long(finished, tmp_path_factory.mktemp("uninterrupted") / "whole")
    status, said = recipe.run(*LONG)
    assert status == 0, said
    return (recipe.folder / TRAINED / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("how", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_killed_run_resume_to_the_same_weights(finished, uninterrupted, tmp_path, how, status):
    """Killed or interrupted in training, the same command then ends at an uninterrupted run's weights."""
    recipe = to_train_long(finished, tmp_path / "cut")
    run = recipe.folder / TRAINED
    environment = {**os.environ, "TAGASC_PYTHON": sys.executable}
    process = subprocess.Popen(
        recipe.command(*LONG),
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
        assert f"To resume: {ROOT}/run.sh" in said
    code, said = recipe.run(*LONG)
    assert code == 0, said
    assert "resuming after epoch" in said
    assert (run / "model.safetensors").read_bytes() == uninterrupted
