"""Submission, against a small Slurm of shell scripts; tests/test_slurm.py uses the real one."""

import os
import re
import subprocess
import sys

import pytest

from tests.helpers import ROOT, run

# The job runs at once. What squeue reports is in the file "states", a line a call, the last one for ever.
SBATCH = """#!/bin/bash
n=$(($(cat number 2>/dev/null || echo 10) + 1)); echo $n >number; echo $n
printf '%s\\n' "$*" >>submitted
for word; do [[ $word != --output=* ]] || output=${word#*=}; [[ $word != --job-name=* ]] || echo "${word#*=}" >name; done
cat >script
[[ -e lose ]] || SLURM_JOB_ID=$n PATH=/usr/bin:/bin bash script >"${output/\\%j/$n}" 2>&1 || true
"""
SQUEUE = """#!/bin/bash
[[ ! -e silent ]] || { rm silent; exit 1; }
if [[ "$*" != *--states=all* ]]; then [[ ! -s left ]] || { cat left; sed -i 1d left; }; exit; fi
state=$(head -n 1 states); [[ $(wc -l <states) == 1 ]] || sed -i 1d states
[[ $state == GONE ]] || echo "$(cat number)|$state|10:00|$(cat name)|c|node|1"
"""
SCANCEL = '#!/bin/sh\necho "$@" >>cancelled\n'


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder of a recipe, with the scripts on PATH."""
    for name, text in {"sbatch": SBATCH, "squeue": SQUEUE, "scancel": SCANCEL}.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("TAGASC_LOG", "exp/log/7.svm.log")
    monkeypatch.setenv("TAGASC_RUN", "1 2 3")
    monkeypatch.delenv("TAGASC_CONSOLE_FD", raising=False)
    folder = tmp_path / "ma réc"
    folder.mkdir()
    (folder / "states").write_text("RUNNING\n")
    monkeypatch.chdir(folder)
    return folder


def step(*command, options="--poll 0.01 --patience 0.05"):
    return run("utils/slurm.py", *options.split(), *command)


@pytest.mark.parametrize("status", [0, 3])
def test_the_programs_output_and_status_are_those_of_the_step(slurm, status):
    outcome = step("sh", "-c", f"echo 'a  b'; echo $OMP_WAIT_POLICY; exit {status}")
    assert outcome.status == status
    assert f"a  b\n\n# job 11 status {status}\n" in outcome.said.replace("passive", "")
    assert f"job 11: {'ended with status 3' if status else 'done'}\n" in outcome.said
    (line,) = (slurm / "submitted").read_text().splitlines()
    assert re.search(r"--job-name=tagasc\.ma-r-c\.[0-9a-f]{8}\.7\.svm ", line)
    assert "--requeue" in line.split()


def test_the_environment_is_in_the_script(slurm, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:it's")
    monkeypatch.setenv("SECRET_TOKEN", "secret")
    monkeypatch.setenv("TAGASC_STAGE", "stage 7 (svm)")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    step("true")
    script = (slurm / "script").read_text()
    assert f"""export PYTHONPATH='{ROOT}:it'"'"'s'\n""" in script
    assert "export TAGASC_STAGE='stage 7 (svm)'\n" in script
    assert "CUDA_VISIBLE" not in script
    assert "secret" not in script


def test_what_a_program_shows_reaches_the_terminal_and_what_it_logs_the_log(slurm):
    program = ["bash", "-c", "echo shown >&$TAGASC_CONSOLE_FD; echo logged; echo $SLURM_RESTART_COUNT"]
    with (slurm / "terminal").open("w") as terminal:
        done = subprocess.run(
            [sys.executable, ROOT / "utils/slurm.py", "--poll", "0.01", *program],
            env={**os.environ, "PYTHONPATH": str(ROOT), "SLURM_RESTART_COUNT": "9"}
            | {"TAGASC_CONSOLE_FD": str(terminal.fileno())},
            pass_fds=[terminal.fileno()], capture_output=True, text=True, check=True,
        )  # fmt: skip
    shown = (slurm / "terminal").read_text()
    assert done.stdout.endswith(" CPUs\nlogged\n\n# job 11 status 0\n")
    assert "shown" not in done.stdout + done.stderr
    assert shown.startswith("shown\n")
    assert "logged" not in shown


def test_a_lost_job_is_submitted_again_up_to_a_limit(slurm):
    (slurm / "lose").touch()
    (slurm / "states").write_text("PENDING\nRUNNING\nNODE_FAIL\n")
    outcome = step("true", options="--poll 0.01 --tries 3")
    assert outcome.status == 1
    assert "job 11: running on node|1, 10:00 left" in outcome.said
    assert "job 12 is lost; submitted again (2 of 2)" in outcome.said
    assert "was lost: 11, 12, 13; look for the cause" in outcome.error
    assert len((slurm / "submitted").read_text().splitlines()) == 3


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "GONE"])
def test_a_job_without_the_mark_of_its_end_is_lost_whatever_slurm_says(slurm, state):
    """The process that writes the mark is killed."""
    (slurm / "states").write_text(f"{state}\n")
    outcome = step("sh", "-c", "kill -9 $PPID", options="--poll 0.01 --patience 0.05 --tries 2")
    assert "was lost: 11, 12;" in outcome.error


def waiting():
    """Start a step whose jobs do not end."""
    command = [sys.executable, ROOT / "utils/slurm.py", "--poll", "0.01", "true"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED"])
def test_a_job_that_does_not_begin_is_not_tried_again(slurm, state):
    """The node lacks our Python, for example."""
    (slurm / "lose").touch()
    (slurm / "states").write_text(f"{state}\n")
    assert "job 11 did not begin its program" in step("true").error
    assert len((slurm / "submitted").read_text().splitlines()) == 1


def test_an_interrupted_step_cancels_its_job(slurm):
    (slurm / "lose").touch()
    with waiting() as process:
        assert "job 11: running" in process.stderr.readline()
        process.terminate()
        assert "interrupted; job tagasc." in process.stderr.read()
    assert process.returncode == 1
    name = (slurm / "name").read_text().strip()
    assert (slurm / "cancelled").read_text().split()[1:] == [f"--name={name}"]


@pytest.mark.parametrize(
    ("state", "said"), [("CANCELLED", "job 11 was cancelled; run the same"), ("OUT_OF_MEMORY", "raise its --mem")]
)
def test_a_job_that_need_not_be_tried_again_is_an_error(slurm, state, said):
    (slurm / "lose").touch()
    (slurm / "states").write_text(f"{state}\n")
    assert said in step("true").error
    assert len((slurm / "submitted").read_text().splitlines()) == 1


def test_a_requeued_job_is_told(slurm):
    (slurm / "lose").touch()
    (slurm / "states").write_text("RUNNING\nPENDING\nRUNNING\nCANCELLED\n")
    assert "job 11: requeued, pending node|1" in step("true").said


def leave(slurm, name, count):
    """Let squeue list jobs of earlier runs, one less a call: of this folder, of this run, and of another folder."""
    step("true")
    prefix = (slurm / "name").read_text().strip().removesuffix("7.svm")
    line = f"9|RUNNING|1:00|{prefix}{name}|another-run|node\n"
    (slurm / "left").write_text(line * count)


@pytest.mark.parametrize("how", ["wait", "cancel"])
def test_jobs_of_an_earlier_run_are_waited_for_or_cancelled(slurm, how):
    leave(slurm, "5.scenes.0", 2)
    outcome = step("true", options=f"--poll 0.01 --leftovers {how}")
    assert outcome.status == 0
    told = {"wait": "waiting for it (to cancel it: scancel 9)", "cancel": "cancelled"}[how]
    assert (
        outcome.said.count(
            f"job 9 of an earlier run, 5.scenes.0, is running on node, 1:00 left before its time limit: {told}"
        )
        == 1
    )
    cancelled = (slurm / "cancelled").read_text().splitlines()
    assert any(line.endswith(" 9") for line in cancelled) == (how == "cancel")
    assert (slurm / "left").read_text() == ""


def test_an_interruption_does_not_cancel_jobs_of_an_earlier_run(slurm):
    leave(slurm, "7.svm", 1000)
    (slurm / "cancelled").unlink(missing_ok=True)
    with waiting() as process:
        assert "job 9 of an earlier run" in process.stderr.readline()
        process.terminate()
        assert "error: interrupted before the job was submitted" in process.stderr.read()
    assert process.returncode == 130
    assert not (slurm / "cancelled").exists()


def test_without_an_answer_nothing_is_submitted(slurm):
    (slurm / "silent").touch()
    assert "squeue fails" in step("true").error
    assert not (slurm / "submitted").exists()


def test_a_job_that_slurm_refuses_is_one_line(slurm):
    (slurm.parent / "bin/sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid\n partition' >&2; exit 1")
    assert "sbatch refused the job: sbatch: error: invalid partition; check" in step("true").said


def test_without_slurm_one_line_says_so(slurm, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert step("true").error.startswith("squeue is missing; run this on a node")
