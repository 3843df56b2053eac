"""Damaged files: the program that reads one says so and what to do, and that works, to the same results as before."""

import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path

import numpy as np
import pytest

from tagasc.utils.files import digest
from tests.helpers import ROOT, TAGGER, run, scene_options, succeed

slow = pytest.mark.slow
SYSTEMS = ("--systems", "baseline shared_h4_l3", "--systems-file", ROOT / "egs/systems.yaml")
RESULTS = ("*.npz", "*.npy", "*.safetensors", "scores.json", "predictions.csv", "index.json", "tagger.json")
RUN = "exp/table1-tiny/{}/shared_h4_l3/seed1"


@dataclass(frozen=True)
class Chain:
    """A recipe's folder that went through all stages, and how a person runs one of them, in this process."""

    folder: Path
    manifests: Path

    @property
    def experiment(self) -> Path:
        return self.folder / "exp/table1-tiny"

    def commands(self, stage: int) -> list[tuple]:
        """The programs of a stage, as run.sh calls them."""
        audio, tagger, tags = (
            self.folder / "dump/audio",
            self.folder / "exp/tagger/tiny",
            self.folder / "dump/tags/tiny",
        )
        shared = ("--audio", audio, "--tags", tags, "--out", self.experiment)
        return {
            2: [
                ("steps/pack_audio.py", "--manifests", self.manifests / corpus, "--out", audio)
                for corpus in ("tau2019", "fsdkaggle2019")
            ],
            3: [
                (f"steps/{name}.py", "--audio", audio, "--out", tagger, *TAGGER)
                for name in ("train_tagger", "score_tagger")
            ],
            4: [("steps/extract_tags.py", "--tags-from", tagger, "--audio", audio, "--out", tags)],
            5: [("steps/train_scene.py", *scene_options(audio, tags, self.experiment), "--systems", SYSTEMS[1])],
            6: [("steps/extract_codes.py", *shared, *SYSTEMS)],
            7: [("steps/score_svm.py", "--out", self.experiment, *SYSTEMS)],
            8: [
                ("steps/report.py", "--recipe", self.folder, "--experiment", self.experiment, "--tagger", tagger)
                + ("--tags", tags)
            ],
        }[stage]

    def run(self, stage: int) -> tuple[str, str]:
        """Run a stage; return its error, empty if it ends well, and all that it says."""
        said = ""
        for command in self.commands(stage):
            outcome = run(*command)
            said += outcome.said
            if outcome.status:
                failed = [line for line in outcome.said.splitlines() if " failed: " in line]
                return "\n".join([*failed, outcome.error]), said
        return "", said

    def digests(self) -> dict[str, str]:
        """Digest of every result."""
        paths = [path for pattern in RESULTS for path in self.folder.rglob(pattern)]
        return {str(path.relative_to(self.folder)): digest(path) for path in paths}

    def copy(self, folder: Path) -> "Chain":
        """A copy whose files may be replaced."""
        shutil.copytree(self.folder, folder, copy_function=os.link, ignore=shutil.ignore_patterns("log", "tensorboard"))
        return Chain(folder, self.manifests)


@pytest.fixture(scope="module")
def whole(manifests, audio, tagger, tags, tmp_path_factory) -> Chain:
    chain = Chain(tmp_path_factory.mktemp("whole") / "recipe", manifests)
    for source, target in ((audio, "dump/audio"), (tagger, "exp/tagger/tiny"), (tags, "dump/tags/tiny")):
        shutil.copytree(source, chain.folder / target)
    for stage in range(2, 9):
        for command in chain.commands(stage):
            succeed(*command)
    return chain


def flipped(content: bytes) -> bytes:
    """One bit in the middle is wrong."""
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 4
    return bytes(changed)


DAMAGES = {
    "flipped": flipped,
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "missing": None,
}


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.unlink()  # a link to the file of the whole chain
    if DAMAGES[how] is not None:
        path.write_bytes(DAMAGES[how](content))


def obey(error: str) -> int:
    """Do what an error says, as a person would who runs stages; return the stage to go on with."""
    if match := re.search(r"; delete (\S+)", error):
        shutil.rmtree(match[1])
    stages = [int(number) for number in re.findall(r"run stages? (\d)", error)]
    assert stages, f"no remedy: {error}"
    assert "--force" not in error
    return min(stages)


def heal(chain: Chain, stage: int, last: int = 8) -> list[str]:
    """Run the chain from a stage on, doing what errors say; return the errors."""
    errors, at = [], stage
    while at <= last:
        error, _ = chain.run(at)
        if not error:
            at += 1
            continue
        assert error not in errors, f"the remedy does not work: {error}"
        errors.append(error)
        at = obey(error)
    return errors


# A file, the stage that reads it next, and folders that were not made yet.
READ_BY = {
    "dump/audio/tau2019_train/index.json": (5, "scene codes svm"),
    "dump/audio/tau2019_train/audio.npy": (5, "scene codes svm"),
    "dump/audio/fsdkaggle2019_noisy/index.json": (3, "tagger"),
    "dump/audio/fsdkaggle2019_noisy/audio.npy": (3, "tagger"),
    "dump/audio/tau2019_test/audio.npy": (6, "codes svm"),
    "exp/tagger/tiny/fold0/stage1/snapshot1.safetensors": (4, "tags"),
    "exp/tagger/tiny/tagger.json": (4, "tags"),
    "dump/tags/tiny/tau2019_train.npz": (5, "scene codes svm"),
    "dump/tags/tiny/tau2019_test.npz": (6, "codes svm"),
    f"{RUN.format('scene')}/model.safetensors": (6, "codes svm"),
    f"{RUN.format('codes')}/train.npz": (7, "svm"),
    f"{RUN.format('codes')}/test.npz": (7, "svm"),
}
READ_BY_THE_REPORT = [
    "exp/tagger/tiny/scores.json",
    "exp/tagger/tiny/predictions/stage1_out_of_fold.npz",
    f"{RUN.format('svm')}/scores.json",
    f"{RUN.format('svm')}/predictions.csv",
]


def in_turn(names: Iterable[str], *hows: str) -> list[tuple[str, str]]:
    """Give each file one kind of damage; tests/campaign.py tries all of them."""
    return list(zip(names, cycle(hows), strict=False))


@pytest.mark.parametrize(("name", "how"), in_turn(READ_BY, "flipped", "truncated", "missing", "flipped", "empty"))
def test_what_a_message_about_damage_says_works(whole, tmp_path, name, how):
    chain, (stage, unmade) = whole.copy(tmp_path / "recipe"), READ_BY[name]
    for folder in unmade.split():
        for path in (chain.experiment / folder, chain.folder / "exp" / folder, chain.folder / "dump" / folder):
            if not (chain.folder / name).is_relative_to(path):
                shutil.rmtree(path, ignore_errors=True)
    damage(chain.folder / name, how)
    errors = heal(chain, stage, 7)
    assert errors, "it was used without a word"
    if how in ("truncated", "flipped"):
        assert "is damaged" in errors[0]
        assert Path(name).name in errors[0] or "is damaged or incomplete" in errors[0]
    assert chain.digests() == whole.digests()


@slow
@pytest.mark.parametrize(
    ("name", "how"),
    in_turn(READ_BY_THE_REPORT, *DAMAGES) + in_turn(READ_BY_THE_REPORT[1:3], "missing"),
)
def test_what_the_report_says_about_damage_works(whole, tmp_path, name, how):
    chain = whole.copy(tmp_path / "recipe")
    damage(chain.folder / name, how)
    errors = heal(chain, 8)
    assert errors, "it was used, or left out, without a word"
    if how == "missing":
        assert f"{Path(name).name} is missing" in errors[0]
    assert chain.digests() == whole.digests()


WITH_A_COPY = [
    f"{RUN.format('scene')}/history.json",
    f"{RUN.format('scene')}/provenance.json",
    f"{RUN.format('svm')}/provenance.json",
    "exp/tagger/tiny/fold0/stage1/history.json",
    "exp/tagger/tiny/provenance.json",
]


@slow
@pytest.mark.parametrize(("name", "how"), in_turn(WITH_A_COPY, *DAMAGES))
def test_the_report_does_without_what_stands_elsewhere(whole, tmp_path, name, how):
    """Curves and records stand in the weights too; a stage that runs again makes the files again."""
    chain = whole.copy(tmp_path / "recipe")
    damage(chain.folder / name, how)
    assert heal(chain, 8) == []
    for stage in (3, 4, 5, 7):
        assert "epoch 1 of" not in chain.run(stage)[1]  # no training
    assert (chain.folder / name).stat().st_size > 0
    assert chain.digests() == whole.digests()


MADE_BY = {
    "dump/tags/tiny/tau2019_validation.npz": 4,
    f"{RUN.format('codes')}/validation.npz": 6,
    f"{RUN.format('svm')}/scores.json": 7,
    f"{RUN.format('svm')}/svm.skops": 7,
    "exp/tagger/tiny/predictions/stage1_test.npz": 3,
    "dump/audio/tau2019_unused/index.json": 2,
}


@pytest.mark.parametrize(("name", "how"), in_turn(MADE_BY, "flipped", "truncated", "missing", "flipped"))
def test_the_stage_that_makes_a_file_notices_damage(whole, tmp_path, name, how):
    """A run of all stages heals what is damaged; no result is up to date for one of its files."""
    chain = whole.copy(tmp_path / "recipe")
    damage(chain.folder / name, how)
    assert chain.run(MADE_BY[name])[0] == ""
    assert chain.digests() == whole.digests()
    assert (chain.folder / name).read_bytes()[:2] == (whole.folder / name).read_bytes()[:2]


def test_stages_4_to_7_make_the_same_of_audio_in_shards(whole, tmp_path):
    """Each packed split is divided; its index stays, so what depends on it would be up to date."""
    chain = whole.copy(tmp_path / "recipe")
    for path in sorted((chain.folder / "dump/audio").glob("*/audio.npy")):
        samples, index = np.load(path), json.loads((path.parent / "index.json").read_text())
        bounds = [0, *(clip["start"] for clip in index["clips"][2::2]), len(samples)]
        path.unlink()
        for number, (first, last) in enumerate(pairwise(bounds)):
            np.save(path.with_name(f"audio.{number}.npy"), samples[first:last])
    for made in ("dump/tags", "exp/table1-tiny"):
        shutil.rmtree(chain.folder / made)
    assert heal(chain, 4, 7) == []
    made_of = lambda digests: {name: value for name, value in digests.items() if "dump/audio" not in name}
    assert made_of(chain.digests()) == made_of(whole.digests())


def test_packed_audio_is_compared_on_request(whole, tmp_path):
    chain = whole.copy(tmp_path / "recipe")
    check = (*chain.commands(2)[0], "--check")
    assert succeed(*check).count("agree with their checksums") == 4
    damage(chain.folder / "dump/audio/tau2019_test/audio.npy", "flipped")
    outcome = run(*check)
    assert "tau2019_test/audio.npy is damaged: clip" in outcome.error
    assert obey(outcome.error) == 2
    assert heal(chain, 2, 2) == []
    assert chain.digests() == whole.digests()
