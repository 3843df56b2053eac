"""What runs on the node: the allocation counts, the end is marked, staged audio is removed."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tagasc.cluster.job import environment, fitted, processors
from tests.helpers import ROOT


def job(folder, *command, stage_to="", tries=3, wait=True, **variables):
    """Run it in a folder, as job 7."""
    given = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SLURM_JOB_ID": "7",
        "TAGASC_LOG": "exp/log/5.scenes.log",
        **variables,
    }
    words = [sys.executable, "-P", "-m", "tagasc.cluster.job", str(tries), str(stage_to), *map(str, command)]
    process = subprocess.Popen(
        words, cwd=folder, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if not wait:
        return process
    return ended(process)


def ended(process):
    """Return status and output, after the line that says where it began."""
    began, *lines = process.communicate(timeout=60)[0].splitlines()
    assert began == f"# job 7 began on {os.uname().nodename} with {processors()} CPUs"
    return process.returncode, lines


@pytest.mark.parametrize(("command", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
def test_the_end_is_marked_with_the_programs_status(tmp_path, command, status):
    assert job(tmp_path, "sh", "-c", command) == (status, [f"# job 7 status {status}"])


def test_processes_and_threads_are_the_allocations(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert processors() == 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4096")
    assert processors() == len(os.sched_getaffinity(0))
    command = "a.py --nj 64 --scene-threads 9 --seeds 64 --out --nj".split()
    assert fitted(command, 8) == "a.py --nj 8 --scene-threads 8 --seeds 64 --out --nj".split()
    assert environment(8) == {"OMP_NUM_THREADS": "8", "TORCHINDUCTOR_COMPILE_THREADS": "8", "TAGASC_PROCESSES": "1"}


def audio(folder):
    for name in ("tau_train", "tau_test", "fsd_train"):
        (folder / "audio" / name).mkdir(parents=True)
        (folder / "audio" / name / "audio.npy").write_text(name)


SHOW = ("bash", "-c", 'find "$2" | sort; find "$2/" -name "tau*" -type l; cat "$2"/*/audio.npy', "_")


def test_packed_audio_is_copied_and_removed(tmp_path):
    audio(tmp_path)
    (tmp_path / "scratch").mkdir()
    status, lines = job(
        tmp_path, *SHOW, "--audio", "audio", "--corpus", "tau", stage_to="$PLACE/scratch", PLACE=str(tmp_path)
    )
    assert status == 0
    copied, *found, end = lines
    copy = copied.split(" to ")[1]
    assert copy.startswith(f"{tmp_path}/scratch/tagasc.")
    names = ("", "/fsd_train", "/tau_test", "/tau_test/audio.npy", "/tau_train", "/tau_train/audio.npy")
    assert found[:6] == [f"{copy}{name}" for name in names]
    assert found[6:] == ["fsd_traintau_testtau_train# job 7 status 0"] or end.endswith("# job 7 status 0")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_without_room_the_shared_audio_is_read(tmp_path):
    audio(tmp_path)
    status, lines = job(tmp_path, "echo", "--audio", "audio", "--corpus", "tau", stage_to="$NO_SUCH_VARIABLE")
    assert status == 0
    assert lines[0].startswith("warning: $NO_SUCH_VARIABLE has no room for ")
    assert lines[1] == "--audio audio --corpus tau"


def interrupted(folder, number, **variables):
    """Stop a job that has begun, and whose copy is there; return its status and output."""
    audio(folder)
    (folder / "scratch").mkdir()
    (folder / "scontrol").write_text(f'#!/bin/sh\necho "$@" >>{folder}/requeued\n')
    (folder / "scontrol").chmod(0o755)
    command = ("bash", "-c", "trap 'exit 130' TERM; touch begun; while :; do sleep 0.05; done", "_")
    process = job(
        folder, *command, "--audio", "audio", "--corpus", "tau", stage_to="scratch", wait=False,
        PATH=f"{folder}:{os.environ['PATH']}", **variables,
    )  # fmt: skip
    while not (folder / "begun").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    status, lines = ended(process)
    assert list((folder / "scratch").iterdir()) == []
    return status, lines[1:]


def test_ahead_of_its_end_a_job_is_requeued(tmp_path):
    assert interrupted(tmp_path, signal.SIGUSR1) == (143, ["# job 7 stopped ahead of its end, and requeued"])
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"


def test_a_job_is_requeued_a_limited_number_of_times(tmp_path):
    status, lines = interrupted(tmp_path, signal.SIGUSR1, SLURM_RESTART_COUNT="2")
    assert (status, lines[-1]) == (124, "# job 7 status 124")
    assert lines[0].startswith("error: stopped 3 times by Slurm")
    assert not (tmp_path / "requeued").exists()


def test_a_job_that_slurm_ends_has_no_status(tmp_path):
    """Slurm knows whether it was cancelled or requeued."""
    assert interrupted(tmp_path, signal.SIGTERM) == (143, ["# job 7 stopped by Slurm"])
    assert not (tmp_path / "requeued").exists()
