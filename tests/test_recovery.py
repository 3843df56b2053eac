"""What run.sh does when a result is outdated, a program fails, or a run is killed: it says how to resume, and resumes."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tagasc.utils.files import digest, read_json, write_json
from tests.helpers import ROOT, Recipe

slow = pytest.mark.slow


@slow
def test_results_of_an_older_tagger_are_outdated(finished, tmp_path):
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder)
    conf = recipe.folder / "conf/tagger.yaml"
    conf.write_text(conf.read_text().replace("crop_frames: 32", "crop_frames: 24"))
    status, output = recipe.run("--stage", 3, "--stop-stage", 3)
    assert status == 1
    assert "training.crop_frames was 32 and is 24" in output
    assert "--force trains it again" in output
    status, output = recipe.run("--stage", 3, "--stop-stage", 3, "--force")
    assert status == 0, output
    status, output = recipe.run("--stage", 8)
    assert "tag vectors of test: its input tagger has changed" in (recipe.folder / "exp/report/RESULTS.md").read_text()
    status, output = recipe.run("--stage", 4)
    assert output.count("outdated (its input tagger has changed since), made again") == 4
    assert status == 1, output  # networks trained on the old tags are not discarded without --force
    assert "its input tags train has changed since" in output
    status, output = recipe.run("--stage", 5, "--stop-stage", 7, "--systems", "baseline")
    assert status == 0, output  # the baseline uses no tags
    assert output.count("up to date") == 2


@slow
def test_a_failure_says_where_and_how_to_go_on(finished, tmp_path):
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder, ignore=shutil.ignore_patterns("tags", "svm"))
    status, output = recipe.run("--stage", 5, "--stop-stage", 7, "--seeds", "1 2")
    assert status == 1
    assert "stage 5 (scenes) failed with status 1" in output
    assert "tau2019_train.npz does not exist; run stage 4 (tags) to create it" in output
    assert f"Log: {recipe.folder}/exp/log/5.scenes.log" in output
    assert "Traceback" not in output
    resume = next(line for line in output.splitlines() if line.startswith("To resume: ")).removeprefix("To resume: ")
    assert "--seeds 1\\ 2" in resume
    assert resume.endswith("--stage 4")  # which makes what is missing
    (recipe.folder / "exp/table1-tiny/codes/baseline/seed1/.123.train.npz").write_bytes(b"left by a killed run")
    environment = {**os.environ, "TAGASC_PYTHON": sys.executable}
    done = subprocess.run(["bash", "-c", resume], capture_output=True, text=True, env=environment, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    experiment = recipe.folder / "exp/table1-tiny"
    assert len(list((experiment / "svm").glob("*/seed*/scores.json"))) == 5  # and tags alone
    for name in ("baseline", "shared_h4_l3"):
        first, second = (experiment / f"scene/{name}/seed{seed}/model.safetensors" for seed in (1, 2))
        assert digest(first) != digest(second)


@slow
def test_a_program_killed_without_output_is_reported(finished, tmp_path):
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder)
    (tmp_path / "python").write_text(
        f'#!/bin/sh\ncase "$*" in *score_svm*) kill -9 $$;; esac\nexec {sys.executable} "$@"\n'
    )
    (tmp_path / "python").chmod(0o755)
    environment = {**os.environ, "TAGASC_PYTHON": str(tmp_path / "python")}
    done = subprocess.run(recipe.command("--stage", 7), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 137
    assert "(no output)" in done.stderr
    assert "To resume: " in done.stderr


@slow
def test_force_redoes_only_what_is_selected(finished, tmp_path):
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder)
    status, output = recipe.run("--stage", 5, "--stop-stage", 5, "--systems", "baseline", "--force")
    assert status == 0, output
    assert "already trained" not in output
    status, output = recipe.run("--stage", 5, "--stop-stage", 7)
    assert status == 0, output
    assert output.count("already trained") == 2
    assert output.count("up to date") == 5  # the same seed gave the same weights, so nothing is outdated


@slow
def test_a_failed_run_is_listed_with_its_own_log_only(finished, tmp_path):
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder)
    path = recipe.folder / "exp/table1-tiny/scene/baseline/seed1/provenance.json"
    record = read_json(path, "")
    write_json(path, record | {"config": record["config"] | {"epochs": 7}})
    options = ("--stage", 5, "--stop-stage", 5, "--nj", 2, "--controls", "@constant")
    status, output = recipe.run(*options)
    assert status == 1
    assert "baseline.seed1 failed: " in output
    assert (recipe.folder / "exp/table1-tiny/scene/shared_h4_l3@constant/seed1/model.safetensors").exists()
    assert "5.scenes." in output
    assert "5.controls." not in output  # that program succeeded
    assert output.splitlines()[-1].startswith("To resume: ")  # without --force, see above
    assert "--stage 5" in output.splitlines()[-1]


def resume_stage(output):
    """The stage at which the printed command resumes."""
    commands = [line for line in output.splitlines() if line.startswith("To resume: ")]
    return int(commands[-1].rpartition(" --stage ")[2])


@slow
def test_a_shared_stage_in_which_all_runs_fail_has_failed(finished, tmp_path):
    """Each of two processes sees one failure of its own."""
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder, ignore=shutil.ignore_patterns("scene", "codes", "svm"))
    conf = recipe.folder / "conf/scene.yaml"
    conf.write_text(conf.read_text().replace("learning_rate: 0.003", "learning_rate: 1.0e+30"))
    status, output = recipe.run("--stage", 5, "--nj", 2)
    assert status == 1
    assert "stage 5 (scenes) failed" in output
    assert "2 of 2 runs failed" in output
    assert "stage 6" not in output
    assert resume_stage(output) == 5


@slow
def test_after_earlier_failures_the_command_resumes_at_the_first(finished, tmp_path):
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder, ignore=shutil.ignore_patterns("codes", "svm"))
    scene = recipe.folder / "exp/table1-tiny/scene"
    shutil.rmtree(scene / "shared_h4_l3")
    (scene / "shared_h4_l3/seed1").mkdir(parents=True)
    (scene / "shared_h4_l3/seed1/thesis.tex").write_text("text")  # which training would delete
    status, output = recipe.run("--stage", 4)
    assert status != 0
    assert (
        "holds thesis.tex" in output.rpartition("done")[2] or output.count("holds thesis.tex") >= 2
    )  # told at the end
    assert resume_stage(output) == 5


@pytest.mark.parametrize(("stage", "first"), [pytest.param(3, 2, marks=slow), pytest.param(4, 2, marks=slow), (7, 6)])
def test_what_an_error_says_to_run_is_where_the_command_resumes(recipe, tmp_path, stage, first):
    """The stages before have not run."""
    new = Recipe(tmp_path / "new")
    shutil.copytree(recipe.folder, new.folder, ignore=shutil.ignore_patterns("corpora", "data", "dump", "exp", ".lock"))
    status, output = new.run("--stage", stage)
    assert status == 1
    assert f"run stage {first} (" in output
    assert resume_stage(output) == first


@pytest.mark.parametrize(
    ("launcher", "said"),
    [
        ("exit 0", "the program did not reach its end"),
        ('"$@" & sleep 0.1; kill -9 $!; exit 0', "did not reach its end"),
    ],
    ids=["never started", "killed"],
)
def test_a_launcher_that_reports_success_for_a_lost_program_is_not_believed(recipe, tmp_path, launcher, said):
    """Slurm's srun does so if a node dies."""
    new = Recipe(tmp_path / "new")
    shutil.copytree(recipe.folder, new.folder, ignore=shutil.ignore_patterns("corpora", "data", "dump", "exp", ".lock"))
    (tmp_path / "launcher").write_text(f"#!/bin/bash\n{launcher}\n")
    (tmp_path / "launcher").chmod(0o755)
    with (new.folder / "recipe.sh").open("a") as file:
        file.write(f"cpu_cmd={tmp_path}/launcher gpu_cmd=$cpu_cmd\n")
    status, output = new.run("--stage", 2, "--stop-stage", 2)
    assert status == 1
    assert said in output
    assert resume_stage(output) == 2


@slow
def test_a_limit_on_file_size_ends_the_stage_and_is_named(finished, tmp_path):
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder, ignore=shutil.ignore_patterns("scene", "codes", "svm"))
    limited = [
        "bash",
        "-c",
        'trap "" XFSZ; ulimit -f 20; exec "$@"',
        "_",
        *recipe.command("--stage", 5, "--stop-stage", 5),
    ]
    environment = {**os.environ, "TAGASC_PYTHON": sys.executable}
    done = subprocess.run(limited, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert "the file may not grow so large; raise the limit (ulimit -f)" in done.stderr
    assert "Traceback" not in done.stderr
    assert "run 2 of 2" not in (recipe.folder / "exp/log/5.scenes.log").read_text()
    status, output = recipe.run("--stage", 5)
    assert status == 0, output
    assert recipe.digests() == finished.digests()


def test_what_killed_programs_left_is_deleted(recipe, tmp_path):
    new = Recipe(tmp_path / "new")
    shutil.copytree(recipe.folder, new.folder, ignore=shutil.ignore_patterns("corpora", "data", "dump", "exp", ".lock"))
    host, ended = os.uname().nodename[:24], subprocess.Popen(["true"])
    ended.wait()
    left = [
        f"dump/audio/.tmp.{host}.{ended.pid}.0a1b.tau2019_train",
        f"exp/x/.tmp.{host}.{ended.pid}.0a1b.model.safetensors",
    ]
    left += [f"exp/x/.{ended.pid}.old.codes", f"data/.{ended.pid}.index.json"]
    kept = [
        f"exp/x/.tmp.{host}.{os.getpid()}.0a1b.model.safetensors",
        f"exp/x/.tmp.other.{ended.pid}.0a1b.history.json",
    ]
    for name in (*left, *kept):
        (new.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (new.folder / name).write_text("half")
    new.run("--stage", 2, "--stop-stage", 2)
    assert [name for name in (*left, *kept) if (new.folder / name).exists()] == kept


def test_two_runs_at_once_are_refused(finished):
    with (finished.folder / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, output = finished.run("--stage", 8)
    assert (status, output) == (1, f"error: this recipe is in use; wait, or end what uses it: kill {os.getpid()}\n")


def unfinished(recipe, folder):
    """A copy in which nothing has run."""
    ignored = shutil.ignore_patterns("corpora", "data", "dump", "exp", ".lock")
    return Recipe(shutil.copytree(recipe.folder, folder, ignore=ignored))


@pytest.mark.parametrize("how", ["link", "folder"])
def test_a_lock_that_is_no_file_is_named_and_nothing_overwritten(recipe, tmp_path, how):
    new, precious = unfinished(recipe, tmp_path / "new"), tmp_path / "precious"
    precious.write_text("text")
    if how == "link":
        (new.folder / ".lock").symlink_to(precious)
    else:
        (new.folder / ".lock").mkdir()
    status, output = new.run("--stage", 8)
    assert (status, output.count("\n")) == (1, 1)
    assert ".lock is a link or a folder" in output
    assert precious.read_text() == "text"


def test_a_file_system_without_locks_is_not_taken_for_another_run(recipe, tmp_path, monkeypatch):
    (tmp_path / "flock").write_text("#!/bin/sh\necho 'flock: 9: Function not implemented' >&2\nexit 71\n")
    (tmp_path / "flock").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    status, output = unfinished(recipe, tmp_path / "new").run("--stage", 8)
    assert (status, output.count("\n")) == (1, 1)
    assert "does not support locks (flock); mount it with them" in output


def test_what_a_killed_run_left_is_named_not_the_dead_process(recipe, tmp_path):
    new = unfinished(recipe, tmp_path / "new")
    lock = new.folder / ".lock"
    lock.write_text("process 999999999 on here at x[$(touch ran)]\n")
    step = subprocess.Popen(["flock", lock, "sleep", "60"])
    while subprocess.run(["flock", "--nonblock", lock, "true"], check=False).returncode == 0:
        time.sleep(0.01)
    try:
        status, output = new.run("--stage", 8)
    finally:
        subprocess.run(["bash", "-c", "kill " + output.rpartition("kill ")[2]], check=True)
        step.wait()
    assert status == 1
    assert str(step.pid) in output.split()
    assert "999999999" not in output
    assert not (new.folder / "ran").exists()


@pytest.mark.parametrize("name", ["commands", "8.report.log"])
def test_a_log_that_cannot_be_written_is_one_line(recipe, tmp_path, name):
    new = unfinished(recipe, tmp_path / "new")
    (new.folder / "exp/log" / name).mkdir(parents=True)
    status, output = new.run("--stage", 8)
    assert status == 1
    assert re.findall("error: .*", output) == output.splitlines()[-1:]
    assert f"exp/log/{name} is not writable; change its owner" in output


def test_what_a_log_holds_does_not_command_the_terminal(recipe, tmp_path):
    new = unfinished(recipe, tmp_path / "new")
    with (new.folder / "recipe.sh").open("a") as file:
        file.write("download() { run x bash -c 'printf \"error: a\\0b\\e[31mc\\xc2\\x9bd é\\n\"; exit 1'; }\n")
    status, output = new.run("--stop-stage", 0)
    assert status == 1
    assert "    error: ab[31mcd é\n" in output


def wait_for(path, process, seconds=120):
    for _ in range(seconds * 20):
        if path.exists():
            return
        assert process.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


LONG = ("--stage", 5, "--stop-stage", 5, "--systems", "shared_h4_l3")
TRAINED = "exp/table1-tiny/scene/shared_h4_l3/seed1"


def to_train_long(finished, folder):
    """A copy without scene networks, whose training lasts long enough to be stopped."""
    recipe = Recipe(folder)
    shutil.copytree(finished.folder, recipe.folder, ignore=shutil.ignore_patterns("scene", "codes", "svm"))
    conf = recipe.folder / "conf/scene.yaml"
    conf.write_text(conf.read_text().replace("epochs: 2", "epochs: 60"))
    return recipe


@pytest.fixture(scope="module")
def uninterrupted(finished, tmp_path_factory):
    """The weights of an uninterrupted training."""
    recipe = to_train_long(finished, tmp_path_factory.mktemp("uninterrupted") / "whole")
    status, output = recipe.run(*LONG)
    assert status == 0, output
    return (recipe.folder / TRAINED / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("how", "status"),
    [(signal.SIGKILL, -9), pytest.param(signal.SIGINT, 130, marks=slow), pytest.param(signal.SIGTERM, 143, marks=slow)],
)
def test_a_killed_run_resumes_to_the_same_weights(finished, uninterrupted, tmp_path, how, status):
    """After a kill or an interruption in training, the same command ends with the weights of an uninterrupted run."""
    recipe = to_train_long(finished, tmp_path / "cut")
    run = recipe.folder / TRAINED
    environment = {**os.environ, "TAGASC_PYTHON": sys.executable}
    process = subprocess.Popen(
        recipe.command(*LONG),
        env=environment,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        # In the background Ctrl-C is ignored, by the tests and by what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for(run / "checkpoint.pt", process)
    if how == signal.SIGTERM:
        process.terminate()  # run.sh alone, which passes it on
    else:
        os.killpg(process.pid, how)
    _, output = process.communicate()
    assert process.returncode == status
    assert not (run / "model.safetensors").exists()
    if how != signal.SIGKILL:
        assert f"To resume: {ROOT}/run.sh" in output
    code, output = recipe.run(*LONG)
    assert code == 0, output
    assert "resuming after epoch" in output
    assert (run / "model.safetensors").read_bytes() == uninterrupted
