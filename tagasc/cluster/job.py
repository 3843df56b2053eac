"""What runs on the node: python -P -m tagasc.cluster.job TRIES STAGE_TO PROGRAM [OPTION...]

Fits the program to the allocation, copies packed audio to the node's scratch, and marks how the program ended. Slurm
sends SIGUSR1 ahead of a job's end: the program then stops, and the job is requeued.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

MARK = "# job"
OUT_OF_TIME = 124  # as the command timeout does
_ALLOCATED = ("--nj", "--scene-threads")  # options whose value is the job's number of CPUs


def step_name() -> str:
    """Return the name of this step's log without suffix, such as ``5.scenes.0``."""
    return Path(os.environ.get("TAGASC_LOG", "step.log")).stem


def output(number: str) -> Path:
    """Return the file of a job's output, for a number or Slurm's ``%j``; its console has the suffix ``.console``."""
    return Path("exp/log/slurm") / f"{step_name()}.{number}.output"


def main() -> None:
    """Run the program named on the command line; end with its status."""
    tries, stage_to, *command = sys.argv[1:]
    stopped = Stop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, stopped)
    say(f"began on {os.uname().nodename} with {processors()} CPUs")
    status = 128 + signal.SIGTERM
    with suppress(Interrupted), staged(fitted(command, processors()), stage_to) as words:
        status = stopped.run(words)
        status = status if status >= 0 else 128 - status
    if stopped.signals and status != 0:
        status = stop(stopped.signals, int(tries))
    say(f"status {status}")
    sys.exit(status)


def start(words: list[str]) -> subprocess.Popen:
    """Start the program; what it shows on a terminal goes to a file, which is copied to that of run.sh."""
    path = output(os.environ.get("SLURM_JOB_ID", "")).with_suffix(".console")
    path.parent.mkdir(parents=True, exist_ok=True)
    console = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    variables = {"TAGASC_CONSOLE_FD": str(console), **environment(processors())}
    return subprocess.Popen(words, env={**os.environ, **variables}, pass_fds=[console])


class Interrupted(Exception):
    """A signal arrived before the program began."""


class Stop:
    """Signal handler that ends the program.

    Attributes:
        signals: signals that have arrived.
    """

    def __init__(self) -> None:
        self.signals: list[int] = []
        self._child: subprocess.Popen | None = None
        self._starting = False

    def __call__(self, number: int, _: object) -> None:
        """Note the signal, and pass it on as SIGTERM."""
        self.signals.append(number)
        if self._child:
            self._child.terminate()
        elif not self._starting:
            raise Interrupted

    def run(self, words: list[str]) -> int:
        """Run the program; return its status, as wait does."""
        self._starting = True  # a signal that arrives while the process is made must not leave it behind
        self._child = start(words)
        if self.signals:
            self._child.terminate()
        return self._child.wait()


def stop(signals: list[int], tries: int) -> int:
    """Mark that the program was stopped; return its status if the job is to end."""
    if signal.SIGUSR1 in signals:
        if int(os.environ.get("SLURM_RESTART_COUNT") or 0) + 1 >= tries:
            print(f"error: stopped {tries} times by Slurm, so it stays undone; raise its --time or slurm.py --tries")
            return OUT_OF_TIME
        say("stopped ahead of its end, and requeued")
        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)
    else:
        say("stopped by Slurm")
    sys.exit(128 + signal.SIGTERM)  # without a status: Slurm knows whether the job was cancelled or requeued


def say(text: str) -> None:
    """Print a mark, by which ``tagasc.cluster.submit`` knows what became of the program."""
    print(f"{MARK} {os.environ.get('SLURM_JOB_ID', '')} {text}", flush=True)


def processors() -> int:
    """Return the number of CPUs that the job has."""
    here = len(os.sched_getaffinity(0))
    return min(int(os.environ.get("SLURM_CPUS_PER_TASK") or here), here)


def environment(cpus: int) -> dict[str, str]:
    """Return the variables that depend on the allocation, not on the computer that submitted the job."""
    return {"OMP_NUM_THREADS": str(cpus), "TORCHINDUCTOR_COMPILE_THREADS": str(cpus), "TAGASC_PROCESSES": "1"}


def fitted(command: list[str], cpus: int) -> list[str]:
    """Give a program as many processes as the job has CPUs."""
    pairs = pairwise(["", *command])
    return [str(cpus) if name in _ALLOCATED and value.isdigit() else value for name, value in pairs]


@contextmanager
def staged(command: list[str], stage_to: str) -> Iterator[list[str]]:
    """Copy a corpus's packed audio to a folder of the node; yield the command that reads it there; delete the copy.

    Other corpora become links. Where the folder is missing or too small, the program reads the shared one.

    Args:
        command: a program and its options; only one with ``--audio`` and ``--corpus`` reads packed audio.
        stage_to: folder of the node, may hold variables as ``$TMPDIR``; empty for none.
    """
    values = dict(pairwise(command))
    if not stage_to or "--audio" not in values or "--corpus" not in values:
        yield command
        return
    target, audio = Path(os.path.expandvars(stage_to)), Path(values["--audio"])
    own = [path for path in audio.iterdir() if path.name.rpartition("_")[0] == values["--corpus"]]
    size = sum(file.stat().st_size for path in own for file in path.iterdir())
    if not target.is_dir() or shutil.disk_usage(target).free < 1.05 * size:
        print(f"warning: {target} has no room for {size / 1e9:.2f} GB, so {audio} is read instead", flush=True)
        yield command
        return
    with TemporaryDirectory(prefix="tagasc.", dir=target) as copy:
        for path in audio.iterdir():
            if path in own:
                shutil.copytree(path, Path(copy, path.name))
            else:
                Path(copy, path.name).symlink_to(path.resolve())
        print(f"copied {size / 1e9:.2f} GB of packed audio to {copy}", flush=True)
        position = command.index("--audio") + 1
        yield [*command[:position], copy, *command[position + 1 :]]


if __name__ == "__main__":
    main()
