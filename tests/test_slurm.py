"""The tiny recipe on a real Slurm: the same results as without, and what ends jobs loses nothing and does nothing twice."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.cluster import Cluster, lacking
from tests.helpers import Recipe

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(lacking()), reason=f"no Slurm: {lacking()}")]
EXPERIMENT = "exp/table1-tiny"
TRAINED = f"{EXPERIMENT}/scene/shared_h4_l3/seed1"
EPOCHS = 40  # they take seconds
LONG = ("--stage", 5, "--stop-stage", 5, "--systems", "shared_h4_l3")


@pytest.fixture(scope="module")
def cluster():
    cluster = Cluster()
    try:
        try:
            cluster.start()
        except RuntimeError as error:
            pytest.skip(f"Slurm is installed, but does not start here: {error}")
        yield cluster
    finally:
        cluster.stop()


def copied(finished, folder, slurm=True, epochs=2, more=""):
    """A copy before stage 5, whose steps are jobs with as many threads as the recipe's had."""
    recipe = Recipe(folder)
    shutil.copytree(finished.folder, recipe.folder, ignore=shutil.ignore_patterns("scene", "codes", "svm", "report"))
    threads = re.search(r"threads: (\d+)", (finished.folder / "exp/log/5.scenes.log").read_text())[1]
    conf = recipe.folder / "conf/scene.yaml"
    conf.write_text(conf.read_text().replace("epochs: 2", f"epochs: {epochs}"))
    if slurm:
        with (recipe.folder / "recipe.sh").open("a") as file:
            file.write(
                f'cpu_cmd="slurm.py --num-threads {threads} --poll 0.5 --partition low {more}" gpu_cmd=$cpu_cmd\n'
            )
    return recipe


def start(recipe, cluster, *options):
    """Start run.sh, as its own process group."""
    return subprocess.Popen(
        recipe.command(*options),
        env={**os.environ, **cluster.environment, "TAGASC_PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_the_results_are_those_without_slurm(finished, cluster, tmp_path, monkeypatch):
    """Two jobs share the networks, read a copy of the audio, and get no variable from Slurm."""
    for name in ("SBATCH_EXPORT", "SLURM_EXPORT_ENV"):
        monkeypatch.setenv(name, "NONE")
    (tmp_path / "scratch").mkdir()
    recipe = copied(finished, tmp_path / "ma réc été", more=f"--stage-to {tmp_path}/scratch")
    for made in ("data", "dump", "exp/tagger"):
        shutil.rmtree(recipe.folder / made)
    process = start(recipe, cluster, "--stage", 1, "--nj", 2)
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    digests = [
        {name: value for name, value in r.digests().items() if not name.startswith("data/")} for r in (recipe, finished)
    ]
    assert digests[0] == digests[1]  # manifests hold paths
    assert (recipe.folder / "exp/report/RESULTS.md").stat().st_size > 1000
    assert re.search(r"stage 5 \(scenes\): job \d+: running on node[12]\n", output)
    assert len(re.findall(r"stage 5 \(scenes\): .*kept epoch", output)) == 2
    assert "report written to" in output
    for number in (0, 1):
        log = (recipe.folder / f"exp/log/5.scenes.{number}.log").read_text()
        assert "# done\n# job" in log
        assert f"of packed audio to {tmp_path}/scratch/tagasc." in log
    assert list((tmp_path / "scratch").iterdir()) == []


class Training:
    """A training that is interrupted in several ways."""

    def __init__(self, recipe, cluster):
        self.recipe, self.cluster, self.process, self.begun = recipe, cluster, None, 0

    def start(self, *options):
        self.process = start(self.recipe, self.cluster, *LONG, *options)

    def end(self):
        output = self.process.communicate(timeout=300)[0]
        return self.process.returncode, output

    def log(self):
        path = self.recipe.folder / f"{EXPERIMENT}/log/scene/shared_h4_l3.seed1.log"
        return path.read_text() if path.exists() else ""

    def wait(self, ready, what):
        for _ in range(3600):
            if ready():
                return
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.05)
        raise AssertionError(f"{what} within three minutes\n{self.cluster.says('squeue', '--states=all')}")

    def train(self):
        """Wait until the training, begun or resumed, has a new checkpoint; return the job's number and node."""
        self.wait(lambda: self.log().count("plain steps") > self.begun, "no training")
        self.begun = self.log().count("plain steps")
        epochs = self.log().count(": epoch ")
        self.wait(lambda: self.log().count(": epoch ") > epochs + 1, "no epoch")
        return self.cluster.says("squeue", "--noheader", "--states=RUNNING", "--format=%i %N").split()


def test_what_ends_a_job_loses_no_epoch_and_repeats_none(finished, cluster, tmp_path):
    whole, cut = (copied(finished, tmp_path / name, slurm=name == "cut", epochs=EPOCHS) for name in ("whole", "cut"))
    status, output = whole.run(*LONG)
    assert status == 0, output
    training = Training(cut, cluster)

    training.start()
    job, _ = training.train()
    cluster.says("scancel", job)
    status, output = training.end()
    assert status == 1
    assert f"job {job} was cancelled; run the same command again to resume" in output

    training.start()
    job, node = training.train()
    cluster.kill_node(node)
    other = {"node1": "node2", "node2": "node1"}[node]
    assert training.train() == [job, other]  # Slurm requeues it

    cluster.says("scancel", "--signal=USR1", "--batch", job)  # as Slurm does ahead of a time limit
    assert training.train() == [job, other]

    cluster.signal(other, signal.SIGSTOP)  # the training could end before it is preempted
    cluster.says(
        "sbatch", "--partition=high", f"--nodelist={other}", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"
    )
    assert training.train() == [job, other]

    cluster.signal(other, signal.SIGSTOP)
    os.killpg(training.process.pid, signal.SIGKILL)
    training.process.communicate()
    training.start()
    log = cut.folder / "exp/log/5.scenes.log"
    training.wait(lambda: "of an earlier run" in log.read_text(), "no notice")
    cluster.signal(other, signal.SIGCONT)
    status, output = training.end()
    assert status == 0, output
    assert f"job {job} of an earlier run, 5.scenes, is running on {other}: waiting for it" in output
    cluster.start_node(node)

    epochs = re.findall(r": epoch (\d+) of", training.log())
    assert sorted(set(map(int, epochs))) == list(range(1, EPOCHS + 1))
    assert len(epochs) <= EPOCHS + 4  # the epoch in progress, at each of four interruptions
    weights = [(recipe.folder / TRAINED / "model.safetensors").read_bytes() for recipe in (whole, cut)]
    assert weights[0] == weights[1]
