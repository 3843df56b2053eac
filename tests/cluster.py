#!/usr/bin/env python3
"""A Slurm cluster of two nodes on this computer, in a temporary folder: tests/cluster.py COMMAND...

Runs the command with SLURM_CONF set, then ends what it started. It needs root and Debian's packages slurm-wlm and munge.
Nodes have no cgroups, and all CPUs each. A job in the partition ``high`` preempts those in ``low``.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
CPUS = max(2, os.cpu_count())  # of each node, so that a job can have as many threads as a program here
CONFIG = """
ClusterName=test
SlurmctldHost=localhost
AuthInfo=socket={folder}/munge/socket,cred_expire=5
SlurmUser=root
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
InactiveLimit=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
MailProg=/bin/true
NodeName=node1 NodeHostname=localhost NodeAddr=localhost Port={ports[1]} CPUs={cpus}
NodeName=node2 NodeHostname=localhost NodeAddr=localhost Port={ports[2]} CPUs={cpus}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=off
"""


def lacking() -> str:
    """Say why no cluster can run here; empty if one can."""
    if missing := [name for name in PROGRAMS if not find(name)]:
        return f"{', '.join(missing)} missing; as root: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "slurmd needs root"


def find(program: str) -> str | None:
    """Find a program; those of the daemons are not on every PATH."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Cluster:
    """The cluster, from ``start`` to ``stop``; ``environment`` leads programs to it."""

    def __init__(self) -> None:
        """Choose a folder and free ports; start nothing."""
        self.folder = Path(tempfile.mkdtemp(prefix="slurm."))
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self.daemons: dict[str, subprocess.Popen] = {}

    def start(self, seconds: float = 30) -> None:
        """Start all daemons; wait until both nodes are idle.

        Raises:
            RuntimeError: they are not in time.
        """
        for name in ("state", "node1", "node2", "munge"):
            (self.folder / name).mkdir(mode=0o700)
        with contextlib.ExitStack() as stack:  # all at once, so that they differ
            sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
            for each in sockets:
                each.bind(("localhost", 0))
            ports = [each.getsockname()[1] for each in sockets]
        (self.folder / "slurm.conf").write_text(CONFIG.format(folder=self.folder, ports=ports, cpus=CPUS))
        munge = self.folder / "munge"
        (munge / "key").write_bytes(secrets.token_bytes(1024))
        (munge / "key").chmod(0o600)
        own = [f"--{name}-file={munge / name}" for name in ("key", "pid", "log", "seed")]
        self._begin("munge", "munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *own)
        self._wait(lambda: (munge / "socket").exists(), seconds)
        self._begin("controller", "slurmctld", "-D", "-c")
        self.start_node("node1")
        self.start_node("node2")
        self._wait(lambda: self.says("sinfo", "--noheader", "--format=%D %t", "--partition=low") == "2 idle", seconds)

    def start_node(self, name: str) -> None:
        """Start a node's daemon."""
        self._begin(name, "slurmd", "-D", "-N", name)

    def kill_node(self, name: str) -> None:
        """Let a node die, its daemon and the jobs on it, and Slurm notice at once."""
        daemon = self.daemons.pop(name)
        children = [int(pid) for pid in self.spawned(name)]
        for pid in (daemon.pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        daemon.wait()
        self.says("scontrol", "update", f"nodename={name}", "state=down", "reason=killed")

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the programs of a node's jobs."""
        for pid in self.spawned(name):
            if b"slurmstepd" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, number)

    def spawned(self, name: str) -> list[int]:
        """List the processes of a node's jobs, by the variables that Slurm gives them, and their slurmstepd."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                variables = (folder / "environ").read_bytes().split(b"\0")
                ours = f"SLURM_CONF={self.folder}/slurm.conf".encode() in variables
                if ours and f"SLURMD_NODENAME={name}".encode() in variables:
                    found.append(int(folder.name))
                    parent = int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
                    if b"slurmstepd" in Path(f"/proc/{parent}/cmdline").read_bytes():
                        found.append(parent)
        return sorted(set(found))

    def says(self, *command: str) -> str:
        """Return what one of Slurm's commands prints."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
        return done.stdout.strip()

    def stop(self) -> None:
        """End all jobs and daemons, and delete the folder."""
        for node in {"node1", "node2"} & self.daemons.keys():
            self.kill_node(node)
        for daemon in self.daemons.values():
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _begin(self, name: str, program: str, *options: str) -> None:
        with (self.folder / f"{name}.output").open("ab") as output:
            self.daemons[name] = subprocess.Popen(
                [find(program), *options],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait(self, ready, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not ready():
            dead = [name for name, daemon in self.daemons.items() if daemon.poll() is not None]
            if dead or time.monotonic() > end:
                tail = (self.folder / f"{(dead or ['controller'])[0]}.output").read_text(errors="replace")[-1000:]
                raise RuntimeError(f"Slurm does not start (ended: {dead}): {tail}")
            time.sleep(0.1)


def main() -> int:
    """Run a command on the cluster."""
    if why := lacking():
        sys.exit(f"error: {why}")
    cluster = Cluster()
    try:
        cluster.start()
        return subprocess.run(sys.argv[1:], env={**os.environ, **cluster.environment}, check=False).returncode
    finally:
        cluster.stop()


if __name__ == "__main__":
    sys.exit(main())
