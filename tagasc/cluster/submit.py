"""Runs a step of run.sh as a batch job: submits it, shows how it fares, copies its output, submits a lost job again.

Only the mark that ``tagasc.cluster.job`` writes at a program's end counts. Without it a job that has ended is lost,
whatever Slurm says, unless somebody has cancelled it.
"""

import hashlib
import os
import re
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

from tagasc.cluster import slurm
from tagasc.cluster.job import output, step_name
from tagasc.cluster.options import Options, parse
from tagasc.cluster.watch import Watch, described
from tagasc.utils.errors import UserError
from tagasc.utils.log import log, start_logging

# Variables that reach the job even if Slurm is told to export none; others do by Slurm's default.
_ENVIRONMENT = re.compile(
    "PATH|PYTHON.*|LD_LIBRARY_PATH|LANG|LC_.*|SLURM_CONF|OMP_WAIT_POLICY|MALLOC_.*|LHOTSE_.*|TAGASC_.*"
    "|HF_HOME|HF_HUB_(CACHE|OFFLINE)|TORCH_HOME|XDG_CACHE_HOME"
)
# Those of this computer, of a job that run.sh itself runs in, and of the user's other jobs.
_OWN = re.compile("TAGASC_CONSOLE_FD|CUDA_VISIBLE_DEVICES|SLURM_(?!CONF$).*|SBATCH_(WAIT|ARRAY_INX)")


def main() -> None:
    """Run ``utils/slurm.py``."""
    start_logging()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(Step(parse(sys.argv[1:], step_name())).run())
    except UserError as error:
        log.error("error: %s", error)
        sys.exit(error.status)
    except KeyboardInterrupt:
        log.error("error: interrupted before the job was submitted")
        sys.exit(130)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


class Step:
    """One step of ``run.sh``, to be run as a job.

    Attributes:
        options: what to run, and how.
        prefix: beginning of the names of all jobs of this recipe's folder.
        name: name of the step's job.
        run_id: the start of ``run.sh`` that the job belongs to, its comment in Slurm.
    """

    def __init__(self, options: Options) -> None:
        """Derive the job's name from the folder and the step."""
        folder = Path.cwd()
        digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
        self.options = options
        self.prefix = f"tagasc.{_plain(folder.name)}.{digest}."
        self.name = self.prefix + _plain(step_name())
        self.run_id = _plain(f"{os.uname().nodename}.{os.environ.get('TAGASC_RUN') or os.getpid()}")

    def run(self) -> int:
        """Run the step to its end; return the program's status."""
        self.clear_leftovers()
        folder = output("").parent
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{step_name()}.[0-9]*.*"):
            old.unlink(missing_ok=True)
        lost = []
        try:
            while len(lost) < self.options.tries:
                number = self.submit()
                status = Watch(self.options, self.name, number).status()
                if status is not None:
                    return status
                lost.append(number)
                if len(lost) < self.options.tries:
                    log.info("job %s is lost; submitted again (%d of %d)", number, len(lost), self.options.tries - 1)
        except KeyboardInterrupt:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            slurm.cancel(f"--name={self.name}")
            raise UserError(f"interrupted; job {self.name} is cancelled") from None
        raise UserError(
            f"every job of {self.name} was lost: {', '.join(lost)}; look for the cause with sinfo and sacct"
        )

    def clear_leftovers(self) -> None:
        """Wait for jobs of an earlier run in this folder, or cancel them.

        Raises:
            UserError: Slurm does not answer.
        """
        shown, cancel = set(), self.options.leftovers == "cancel"
        while True:
            listed = slurm.jobs()
            if listed is None:
                raise UserError(
                    "squeue fails, so jobs of an earlier run cannot be found; look at sinfo, then run again"
                )
            left = [job for job in listed if job.name.startswith(self.prefix) and job.comment != self.run_id]
            for job in left:
                if cancel:
                    slurm.cancel(job.number)
                if job.number not in shown:
                    step = job.name.removeprefix(self.prefix)
                    how = "cancelled" if cancel else f"waiting for it (to cancel it: scancel {job.number})"
                    log.info("job %s of an earlier run, %s, is %s: %s", job.number, step, described(job), how)
                    shown.add(job.number)
            if not left:
                return
            time.sleep(self.options.poll)

    def submit(self) -> str:
        """Submit the job; return its number."""
        environment = {name: value for name, value in os.environ.items() if not _OWN.fullmatch(name)}
        command = [
            *self.options.sbatch,
            f"--job-name={self.name}",
            f"--comment={self.run_id}",
            f"--output={output('%j')}",
        ]
        command += ["--open-mode=append", "--requeue", "--nodes=1", "--ntasks=1", "--signal=B:USR1@60"]
        return slurm.submit(command, self.script(), environment)

    def script(self) -> str:
        """Return the batch script: the environment, and the program on the node."""
        python = os.environ.get("PYTHON", sys.executable)
        program, *arguments = self.options.command
        found = shutil.which(program) or program
        words = [python, "-P", "-m", "tagasc.utils.program", found] if program.endswith(".py") else [found]
        job = [python, "-P", "-m", "tagasc.cluster.job", str(self.options.tries), self.options.stage_to]
        exports = [
            f"export {name}={shlex.quote(value)}"
            for name, value in sorted(os.environ.items())
            if _ENVIRONMENT.fullmatch(name) and not _OWN.fullmatch(name)
        ]
        return "\n".join(["#!/bin/bash", *exports, f"exec {shlex.join([*job, *words, *arguments])}", ""])


def _plain(text: str) -> str:
    """Return text that Slurm takes as part of a name."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", text)
