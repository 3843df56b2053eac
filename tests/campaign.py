#!/usr/bin/env python3
"""Break a tiny recipe in every way, and count what becomes of it: tests/campaign.py [--kills N] [--damages N] [--seed N]

Kills at random moments and exactly at a rename, damaged files of every kind, and files that may not grow at each stage
(as on a full disk). After each, one types the same command again, or does what the message says. It ends with a table
and status 1 if anything was used silently, ended in a traceback, had a remedy that does not work, or changed a result.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.conftest import write_recipe
from tests.helpers import Recipe
from tests.test_damage import DAMAGES, damage

EXPERIMENT = "exp/table1-tiny"
MADE = {  # what each stage makes
    0: ["corpora"],
    1: ["data"],
    2: ["dump/audio"],
    3: ["exp/tagger"],
    4: ["dump/tags"],
    5: [f"{EXPERIMENT}/scene"],
    6: [f"{EXPERIMENT}/codes"],
    7: [f"{EXPERIMENT}/svm"],
    8: ["exp/report"],
}
KINDS = {  # kinds of files, and the first stage that reads them
    "data/*/*_cuts_*.jsonl.gz": 2,
    "dump/audio/*/index.json": 3,
    "dump/audio/*/audio.npy": 3,
    "exp/tagger/tiny/fold0/stage1/model.safetensors": 3,  # no later stage reads it
    "exp/tagger/tiny/fold0/stage1/snapshot*.safetensors": 4,
    "exp/tagger/tiny/tagger.json": 4,
    "exp/tagger/tiny/scores.json": 8,
    "exp/tagger/tiny/predictions/*.npz": 8,
    "dump/tags/tiny/*.npz": 5,
    f"{EXPERIMENT}/scene/*/*/model.safetensors": 6,
    f"{EXPERIMENT}/scene/*/*/history.json": 8,
    f"{EXPERIMENT}/scene/*/*/provenance.json": 6,
    f"{EXPERIMENT}/codes/*/*/*.npz": 7,
    f"{EXPERIMENT}/svm/*/*/scores.json": 8,
    f"{EXPERIMENT}/svm/*/*/predictions.csv": 8,
    f"{EXPERIMENT}/svm/*/*/provenance.json": 8,
}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CRASH = """import os, signal
n, original = int(os.environ["CAMPAIGN_RENAME"]), os.replace
def replace(*names):
    global n
    n -= 1
    if n == 0: os.kill(os.getpid(), signal.SIGKILL)
    return original(*names)
os.replace = replace
"""
COLUMNS = ("tried", "noticed", "made again", "silently used", "tracebacks", "wrong remedies", "identical")


class Campaign:
    """A recipe that went through the whole chain, copies of which are broken."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.recipe = write_recipe(folder / "recipe")
        began = time.monotonic()
        status, said = self.recipe.run()
        assert status == 0, said
        self.seconds = (time.monotonic() - began) / len(MADE)
        self.expected = self.recipe.digests()
        self.recipe.folder.rename(folder / "whole")
        self.counts: dict[str, Counter] = {}

    def copy(self, first: int) -> Recipe:
        """Put the recipe back, without what stages from ``first`` on make; manifests name its path, so it stays there."""
        shutil.rmtree(self.recipe.folder, ignore_errors=True)
        shutil.copytree(self.folder / "whole", self.recipe.folder, symlinks=True)
        for stage in range(first, 9):
            for name in MADE[stage]:
                shutil.rmtree(self.recipe.folder / name)
        return self.recipe

    def run(self, kills: int, damages: int) -> None:
        """Break the recipe in each way, in turn, so that an interrupted campaign has tried all."""
        tries = [lambda n=n: self.kill() if n % 3 else self.kill_at_rename() for n in range(kills)]
        tries += [lambda n=n: self.damage(list(KINDS)[n % len(KINDS)]) for n in range(damages)]
        tries += [lambda stage=stage: self.fill(stage) for stage in (range(9) if kills >= 9 else [5])]
        self.random.shuffle(tries)
        for attempt in tries:
            attempt()

    def kill(self) -> None:
        """Kill a run after a random time, and type the same command again."""
        stage, how = self.random.randrange(9), self.random.choice(SIGNALS)
        recipe = self.copy(stage)
        process = start(recipe.command("--stage", stage))
        time.sleep(self.random.uniform(0, self.seconds * (9 - stage)))
        stop(process, how, group=self.random.random() < 0.7)
        self.judge(f"killed by {how.name}", recipe, stage, noticed=process.returncode != 0)

    def kill_at_rename(self) -> None:
        """Kill a program exactly when it renames what it has written."""
        stage, number = self.random.randrange(9), self.random.randint(1, 6)
        recipe, site = self.copy(stage), self.folder / "site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(CRASH)
        more = {"PYTHONPATH": str(site), "CAMPAIGN_RENAME": str(number)}
        done = start(recipe.command("--stage", stage, "--stop-stage", stage), more)
        done.communicate()
        self.judge("killed at a rename", recipe, stage, noticed=done.returncode != 0)

    def damage(self, kind: str) -> None:
        """Damage a file, run the first stage that reads it, and do what the messages say."""
        stage, how = KINDS[kind], self.random.choice(list(DAMAGES))
        made = next(made for made, names in MADE.items() if kind.startswith(tuple(names)))
        recipe = self.copy(max(stage, made + 1))  # with what the stage itself made, as it reads some of that again
        path = self.random.choice(sorted(recipe.folder.glob(kind)))
        before = path.read_bytes()
        damage(path, how)
        self.judge(f"{path.name if '*' not in Path(kind).name else Path(kind).name} {how}", recipe, stage, path, before)

    def fill(self, stage: int) -> None:
        """Let no file grow beyond a few kB in one stage, and type the same command again without that limit."""
        recipe = self.copy(stage)
        command = recipe.command("--stage", stage, "--stop-stage", stage)
        done = start(["bash", "-c", 'trap "" XFSZ; ulimit -f 6; exec "$@"', "_", *command])
        _, said = done.communicate()
        self.judge("full disk", recipe, stage, noticed="free some space" in said, said=said)

    def judge(
        self, kind: str, recipe: Recipe, stage: int, path: Path | None = None, before: bytes = b"", **seen: object
    ) -> None:
        """Run the chain until it ends well, doing what it says, and count what happened."""
        count = self.counts.setdefault(kind, Counter())
        said = [str(seen.get("said", ""))]
        status, rounds = 1, 0
        while status != 0 and rounds < 5:
            status, output = recipe.run("--stage", stage)
            said.append(output)
            rounds += 1
            for folder in re.findall(r"; delete (.*?)(?:,| and run| to train)", output):
                path_given = recipe.folder / folder  # messages name paths in the recipe, or whole ones
                shutil.rmtree(path_given) if path_given.is_dir() else path_given.unlink(missing_ok=True)
            if resume := re.findall(r"To resume: .* --stage (\d)", output):
                stage = int(resume[-1])
        noticed = bool(seen.get("noticed", rounds > 1 or "damaged" in said[-1] or "missing" in said[-1]))
        same = status == 0 and recipe.digests() == self.expected
        again = path is not None and path.exists() and path.read_bytes() == before
        count["tried"] += 1
        count["noticed"] += noticed
        count["made again"] += again
        count["silently used"] += path is not None and not noticed and not again and not same
        count["tracebacks"] += "Traceback" in "".join(said)
        count["wrong remedies"] += status != 0
        count["identical"] += same
        what = f"{sum(c['tried'] for c in self.counts.values())}: {kind}, stage {stage}, {path or ''}"
        print(f"{what}: {'identical' if same else f'status {status}, not identical'}", file=sys.stderr, flush=True)
        if not same:
            found = recipe.digests()
            names = [n for n in {*found, *self.expected} if found.get(n) != self.expected.get(n)]
            print(said[-1][-800:], f"differ: {sorted(map(str, names))[:20]}", file=sys.stderr)

    def table(self) -> tuple[str, bool]:
        """Return the counts as a Markdown table, and whether all is as it should be."""
        total = sum(self.counts.values(), Counter())
        lines = [f"| what | {' | '.join(COLUMNS)} |", "|---|" + "---|" * len(COLUMNS)]
        for kind, count in [*sorted(self.counts.items()), ("all", total)]:
            lines.append(f"| {kind} | {' | '.join(str(count[name]) for name in COLUMNS)} |")
        good = not (total["silently used"] or total["tracebacks"] or total["wrong remedies"])
        return "\n".join(lines), good and total["identical"] == total["tried"]


def start(command: list[str], more: dict[str, str] | None = None) -> subprocess.Popen:
    """Start a run in a group of its own."""
    environment = {**os.environ, "TAGASC_PYTHON": sys.executable, **(more or {})}
    return subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)


def stop(process: subprocess.Popen, how: signal.Signals, group: bool) -> None:
    """End run.sh, or its group, and wait until nothing of it runs."""
    if process.poll() is None:
        os.killpg(process.pid, how) if group else process.send_signal(how)
    process.communicate()  # its steps hold the other end until they end
    time.sleep(1)


def main() -> None:
    """Break, run again, count, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("kills", 60), ("damages", 120), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        campaign = Campaign(Path(name), options.seed)
        try:
            campaign.run(options.kills, options.damages)
        except KeyboardInterrupt:
            print("interrupted; the table holds what was tried", file=sys.stderr)
        table, good = campaign.table()
    print(table)
    sys.exit(not good)


if __name__ == "__main__":
    main()
