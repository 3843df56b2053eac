"""Shared by all tests: the programs as a user calls them, and a tiny corpus that went through the first stages."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ENVIRONMENT = dict(os.environ)  # as it was given
if os.environ.get("TAGASC_TEST_DEVICE") != "cuda":  # test_gpu.py
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # results are compared bit for bit, which the CPU alone promises

import torch

from tagasc.utils.files import digest

ROOT = Path(__file__).resolve().parents[1]
RATE, SECONDS = 16000, 1.0
TRUNK = {"stem_filters": 8, "block_filters": [8, 8, 8, 8], "code_size": 6}
TAGGER = [
    "--model.depths",
    "[1,1]",
    "--model.width",
    "8",
    "--model.hidden",
    "8",
    "--mel.sampling_rate",
    RATE,
    "--mel.n_fft",
    512,
    "--mel.hop",
    256,
    "--mel.mels",
    32,
    "--mel.high",
    8000,
    "--training.batch",
    8,
    "--training.crop_frames",
    32,
    "--training.mask_half_width",
    "[1,4]",
    "--training.epochs",
    2,
    "--inference.pads",
    "[0]",
]

RECIPE = """
. "{root}/egs/mini/recipe.sh"
systems="baseline shared_h4_l3"
scene_seconds=1
scene_train=6
scene_test=3
clips_per_location=2
tagging_train=34
tagger=tiny
"""

torch.set_num_threads(2)


@dataclass(frozen=True)
class Outcome:
    """How a program ended, and what it said."""

    status: int
    said: str

    @property
    def error(self) -> str:
        """The one line of error; fails if there is none, more than one, or a traceback."""
        lines = [line for line in self.said.splitlines() if "error:" in line]
        assert len(lines) == 1, self.said
        assert "Traceback" not in self.said
        return lines[0].split("error: ", 1)[1]


@dataclass(frozen=True)
class Recipe:
    """A recipe's folder, and how a person runs it."""

    folder: Path

    def command(self, *options):
        return [str(ROOT / "run.sh"), "--recipe", str(self.folder), "--nj", "1", "--ngpu", "0", *map(str, options)]

    def run(self, *options):
        environment = {**os.environ, "TAGASC_PYTHON": sys.executable}
        done = subprocess.run(
            self.command(*options), capture_output=True, text=True, env=environment, cwd="/", check=False
        )
        return done.returncode, done.stdout + done.stderr

    def digests(self):
        """Digest of every result but logs, which tell the time."""
        kept = ("*.npz", "*.npy", "*.safetensors", "scores.json", "predictions.csv", "*.jsonl.gz")
        return {str(p.relative_to(self.folder)): digest(p) for pattern in kept for p in self.folder.rglob(pattern)}


def run(program: str, *arguments: object) -> Outcome:
    """Run one of the repository's programs in this process, as ``__main__``, and catch how it ends."""
    said, before = io.StringIO(), sys.argv
    sys.argv = [str(ROOT / program), *map(str, arguments)]
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.argv = before
    return Outcome(status, said.getvalue())


def succeed(program: str, *arguments: object) -> str:
    """Run a program that must end well; return what it said."""
    outcome = run(program, *arguments)
    assert outcome.status == 0, outcome.said
    return outcome.said


@pytest.fixture(scope="session")
def corpora(tmp_path_factory) -> Path:
    """A folder with a tiny scene corpus and a tiny tagging corpus."""
    out = tmp_path_factory.mktemp("corpora")
    succeed(
        "local/synthetic/soundscapes.py",
        "--out",
        out,
        "--scenes.seconds",
        SECONDS,
        "--scenes.sampling_rate",
        RATE,
        "--scenes.train",
        6,
        "--scenes.test",
        3,
        "--scenes.unused",
        1,
        "--scenes.clips_per_location",
        2,
        "--tagging.sampling_rate",
        RATE,
        "--tagging.curated",
        51,
        "--tagging.noisy",
        34,
        "--tagging.test",
        34,
        "--tagging.longest",
        2,
    )
    return out


@pytest.fixture(scope="session")
def scene_corpus(corpora) -> Path:
    return corpora / "TAU-urban-acoustic-scenes-2019-development"


@pytest.fixture(scope="session")
def tagging_corpus(corpora) -> Path:
    return corpora / "FSDKaggle2019"


@pytest.fixture(scope="session")
def manifests(scene_corpus, tagging_corpus, tmp_path_factory) -> Path:
    """A folder with the manifests of both."""
    out = tmp_path_factory.mktemp("data")
    succeed(
        "local/tau2019.py",
        scene_corpus,
        out / "tau2019",
        "--sampling-rate",
        RATE,
        "--seconds",
        SECONDS,
        "--allow-partial",
    )
    succeed("local/fsdkaggle2019.py", tagging_corpus, out / "fsdkaggle2019", "--sampling-rate", RATE, "--allow-partial")
    return out


@pytest.fixture(scope="session")
def audio(manifests, tmp_path_factory) -> Path:
    """A folder with the packed audio of both."""
    out = tmp_path_factory.mktemp("audio")
    succeed("steps/pack_audio.py", "--manifests", manifests / "tau2019", "--out", out, "--seconds", SECONDS)
    succeed("steps/pack_audio.py", "--manifests", manifests / "fsdkaggle2019", "--out", out)
    return out


@pytest.fixture(scope="session")
def tagger(audio, tmp_path_factory) -> Path:
    """A folder with a tagger trained for two epochs."""
    out = tmp_path_factory.mktemp("tagger") / "tiny"
    succeed("steps/train_tagger.py", "--audio", audio, "--out", out, *TAGGER)
    return out


@pytest.fixture(scope="session")
def tags(audio, tagger, scene_corpus, tmp_path_factory) -> Path:
    """A folder with the tag vectors of the scene clips."""
    out = tmp_path_factory.mktemp("tags")
    truth = scene_corpus / "soundscapes_events.csv"
    succeed("steps/extract_tags.py", "--tagger", tagger, "--audio", audio, "--out", out, "--truth", truth)
    return out


@pytest.fixture(scope="session")
def recipe(tmp_path_factory) -> Recipe:
    """A recipe with tiny networks, of which nothing has run yet; in a folder whose name has spaces and accents."""
    folder = tmp_path_factory.mktemp("recipes") / "ma réc été"
    (folder / "conf").mkdir(parents=True)
    (folder / "recipe.sh").write_text(RECIPE.format(root=ROOT))
    (folder / "conf/trunk_table1.yaml").write_text(lines(TRUNK))
    training = {"epochs": 2, "batch": 8, "crop_seconds": 0.5, "learning_rate": 0.003}
    (folder / "conf/scene.yaml").write_text(lines(training))
    tagger = dict(zip(TAGGER[::2], TAGGER[1::2], strict=True))
    groups = {}
    for name, value in tagger.items():
        group, key = name.removeprefix("--").split(".")
        groups.setdefault(group, {})[key] = value
    text = "".join(
        f"{group}:\n" + "".join(f"  {key}: {value}\n" for key, value in keys.items()) for group, keys in groups.items()
    )
    (folder / "conf/tagger.yaml").write_text(text)
    return Recipe(folder)


@pytest.fixture(scope="session")
def finished(recipe) -> Recipe:
    """The recipe after one bare run."""
    status, said = recipe.run()
    assert status == 0, said
    return recipe


def lines(settings):
    return "".join(f"{name}: {value}\n" for name, value in settings.items())


def scene_options(audio: Path, tags: Path, out: Path, **training: object) -> list[object]:
    """Options of ``steps/train_scene.py`` for a tiny network."""
    settings = {"epochs": 2, "batch": 8, "crop_seconds": 0.5, "learning_rate": 0.003, "mixup_from_epoch": 2} | training
    trunk = [item for name, value in TRUNK.items() for item in (f"--trunk.{name}", value)]
    chosen = [item for name, value in settings.items() for item in (f"--training.{name}", value)]
    return [
        "--audio",
        audio,
        "--tags",
        tags,
        "--out",
        out,
        "--systems-file",
        ROOT / "egs/systems.yaml",
        *trunk,
        *chosen,
    ]
