"""Slurm's commands: submit, list, cancel. No accounting database is needed."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from tagasc.utils.errors import UserError

LOST = ("BOOT_FAIL", "DEADLINE", "NODE_FAIL", "PREEMPTED", "TIMEOUT")
ENDED = (*LOST, "CANCELLED", "COMPLETED", "FAILED", "OUT_OF_MEMORY", "GONE")
_FIELDS = "%i|%T|%L|%j|%k|%R"  # the last one, nodes or reason, may hold the separator


@dataclass(frozen=True)
class Job:
    """A job as Slurm lists it; ``where`` is its nodes, or why it has none yet."""

    number: str
    state: str
    time_left: str
    name: str
    comment: str
    where: str


def submit(command: Sequence[str], script: str, environment: dict[str, str]) -> str:
    """Submit a batch script; return the job's number.

    Raises:
        UserError: Slurm refuses it.
    """
    done = _call([*command, "--parsable"], script, environment)
    number = done.stdout.strip().split(";")[0]
    if done.returncode != 0 or not number.isdigit():
        said = " ".join(done.stderr.split()) or f"it printed '{number}'"
        raise UserError(f"{command[0]} refused the job: {said}; check the options in cmd.sh and slurm.conf")
    return number


def jobs(*options: str) -> list[Job] | None:
    """List this user's jobs; None if Slurm does not answer.

    Args:
        options: further options of ``squeue``. ``--states=all`` adds those that ended in the last minutes.
    """
    done = _call(["squeue", "--noheader", f"--user={os.getuid()}", f"--format={_FIELDS}", *options])
    if done.returncode != 0:
        return None
    return [Job(*line.strip().split("|", 5)) for line in done.stdout.splitlines() if line.count("|") >= 5]


def cancel(*options: str) -> None:
    """Cancel jobs of this user; options choose them, as those of ``scancel``."""
    _call(["scancel", f"--user={os.getuid()}", *options])


def _call(
    command: list[str], given: str | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command; a user's defaults for squeue and scancel, which may hide jobs, do not count."""
    if environment is None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SCANCEL_"))
        }
    try:
        return subprocess.run(command, input=given, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(f"{command[0]} is missing; run this on a node that submits Slurm jobs, or see cmd.sh") from None
