"""Follows a job: its state by Slurm, its output, and the mark at its program's end."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tagasc.cluster import slurm
from tagasc.cluster.job import MARK, output
from tagasc.cluster.options import Options
from tagasc.cluster.slurm import Job
from tagasc.utils.errors import UserError
from tagasc.utils.log import console, log

_OUTPUT_POLL = 1.0  # seconds


class Watch:
    """Follows one job from its submission to its end."""

    def __init__(self, options: Options, name: str, number: str) -> None:
        """Begin with the job that Slurm has just accepted."""
        self.options, self.name, self.number = options, name, number
        self.output = lines_of(output(number))
        self.console = lines_of(output(number).with_suffix(".console"))
        self.mark, self.shown, self.silent = "", "", False

    def status(self) -> int | None:
        """Wait for the job's end; return its program's status, or None if the job is lost.

        Raises:
            UserError: somebody cancelled the job, it used too much memory, or the node lacks our Python.
        """
        asked, ended = -self.options.poll, None
        while True:
            self.copy()
            if self.mark.startswith("status "):
                slurm.cancel("--state=PENDING", self.number)  # Slurm may have requeued it with its node
                self.copy()
                status = int(self.mark.split()[1])
                log.info("job %s: %s", self.number, f"ended with status {status}" if status else "done")
                return status
            now = time.monotonic()
            if now - asked >= self.options.poll:
                asked, job = now, self.ask()
                if job and job.state not in slurm.ENDED:
                    ended = None
                elif job and ended is not None and self.is_final(job, now - ended):
                    self.copy()
                    if not self.mark.startswith("status "):
                        return None
                elif job and ended is None:
                    ended = now
            time.sleep(min(_OUTPUT_POLL, self.options.poll))

    def is_final(self, job: Job, seconds: float) -> bool:
        """Return whether a job is lost that ended without a mark ``seconds`` ago.

        Raises:
            UserError: it need not be submitted again.
        """
        if job.state == "CANCELLED":
            raise UserError(f"job {self.number} was cancelled; run the same command again to resume")
        if job.state == "OUT_OF_MEMORY":
            raise UserError(f"job {self.number} used more memory than it asked for; raise its --mem in cmd.sh")
        if seconds >= self.options.patience and job.state in ("COMPLETED", "FAILED") and not self.mark:
            python = os.environ.get("PYTHON", sys.executable)
            raise UserError(f"job {self.number} did not begin its program; see above, and whether nodes have {python}")
        stopped = self.mark.startswith("stopped")
        return job.state in slurm.LOST or stopped or seconds >= self.options.patience

    def ask(self) -> Job | None:
        """Ask Slurm for the job's state, and show a change; None if it does not answer."""
        listed = slurm.jobs("--states=all", f"--name={self.name}")
        if listed is None:
            if not self.silent:
                log.info("Slurm does not answer; job %s is watched by its output", self.number)
            self.silent = True
            return None
        self.silent = False
        job = next((job for job in listed if job.number == self.number), None)
        job = job or Job(self.number, "GONE", "", self.name, "", "")
        again = "requeued, " if self.shown and job.state == "PENDING" and not self.shown.startswith("PENDING") else ""
        state = f"{job.state} {job.where}"
        if state != self.shown:
            log.info("job %s: %s%s", self.number, again, described(job))
            self.shown = state
        return job

    def copy(self) -> None:
        """Copy new output to the log, and what the program shows to the terminal."""
        for line in next(self.console):
            if not console.stderr:
                console.print(line)
        for line in next(self.output):
            print(line, flush=True)
            if line.startswith(f"{MARK} {self.number} "):
                self.mark = line.removeprefix(f"{MARK} {self.number} ")


def lines_of(path: Path) -> Iterator[list[str]]:
    """Yield, time and again, the whole lines that were appended to a file; it need not exist yet."""
    position, rest = 0, b""
    while True:
        new = b""
        if path.exists():
            with path.open("rb") as file:  # opened again, since a network file system then looks for new content
                file.seek(position)
                new = file.read()
        position += len(new)
        *lines, rest = (rest + new).split(b"\n")
        yield [line.decode("utf-8", "replace") for line in lines]


def described(job: Job) -> str:
    """Describe a job's state in words."""
    if job.state == "RUNNING":
        limit = "" if job.time_left == "UNLIMITED" else f", {job.time_left} left before its time limit"
        return f"running on {job.where}{limit}"
    if job.state == "PENDING" and job.where != "(None)":
        return f"pending {job.where}"
    return job.state.lower().replace("_", " ")
