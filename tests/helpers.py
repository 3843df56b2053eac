"""What tests share: running programs as a user does, options of tiny networks, and data made in memory."""

import contextlib
import gzip
import hashlib
import io
import itertools
import json
import os
import runpy
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT = dict(os.environ)  # as given
if os.environ.get("TAGASC_TEST_DEVICE") != "cuda":  # test_gpu.py
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # results are compared bit for bit, which only the CPU promises

import numpy as np
import torch

from tagasc.audio.packed import PackedAudio
from tagasc.scene.corpus import SceneClips
from tagasc.scene.systems import System
from tagasc.scene.trunk import TrunkConfig
from tagasc.tagger.features import MelConfig
from tagasc.tagger.network import TaggerConfig, TaggerNetwork
from tagasc.utils.files import digest

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
torch.set_num_threads(2)

# A tiny corpus, recipe and networks, as options of the programs.
RATE, SECONDS = 16000, 1.0
CORPORA = f"""--scenes.seconds {SECONDS} --scenes.sampling_rate {RATE} --scenes.train 6 --scenes.test 3 --scenes.unused 1
    --scenes.clips_per_location 2 --tagging.sampling_rate {RATE} --tagging.curated 51 --tagging.noisy 34
    --tagging.test 34 --tagging.longest 2""".split()
TRUNK = {"stem_filters": 8, "block_filters": [8, 8, 8, 8], "code_size": 6}
TAGGER = f"""--model.depths [1,1] --model.width 8 --model.hidden 8 --mel.sampling_rate {RATE} --mel.n_fft 512 --mel.hop 256
    --mel.mels 32 --mel.high 8000 --training.batch 8 --training.crop_frames 32 --training.mask_half_width [1,4]
    --training.epochs 2 --inference.pads [0]""".split()

# The same in memory, smaller still.
TRUNKS = {
    "table1": TrunkConfig(16, (16, 16, 16), code_size=6),
    "released": TrunkConfig(16, (8, 16), shortcut_convolution=True, extra_convolution=True, output_bias=False),
    "wide": TrunkConfig(128, (128, 128), code_size=6),  # trained in another memory layout on a CPU
}
SYSTEM = System("before_code", 2, 4, 2, shared=True)
MEL = MelConfig(sampling_rate=14700, n_fft=512, hop=160, mels=32, low=20, high=7350)
TINY = TaggerConfig((1, 1), 8, 8, (0.0, 0.0))
CLASSES = list("abcde")


@dataclass(frozen=True)
class Outcome:
    """How a program ended, and what it printed."""

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
        """Digest of every result; logs and the heads of gzip files tell the time."""
        kept = ("*.npz", "*.npy", "*.safetensors", "scores.json", "predictions.csv", "*.jsonl.gz")
        paths = [path for pattern in kept for path in self.folder.rglob(pattern)]
        unpacked = lambda path: hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
        return {
            str(path.relative_to(self.folder)): (unpacked if path.suffix == ".gz" else digest)(path) for path in paths
        }


class Stop(Exception):
    """A power cut."""


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
    """Run a program that must end well; return what it printed."""
    outcome = run(program, *arguments)
    assert outcome.status == 0, outcome.said
    return outcome.said


def scene_options(audio: Path, tags: Path, out: Path, **training: object) -> list[object]:
    """Options of ``steps/train_scene.py`` for a tiny network."""
    settings = {"epochs": 2, "batch": 8, "crop_seconds": 0.5, "learning_rate": 0.003, "mixup_from_epoch": 2} | training
    options = {"audio": audio, "tags": tags, "out": out, "systems-file": ROOT / "egs/systems.yaml"}
    options |= {f"trunk.{name}": value for name, value in TRUNK.items()}
    options |= {f"training.{name}": value for name, value in settings.items()}
    return [item for name, value in options.items() for item in (f"--{name}", value)]


def yaml_lines(settings: dict) -> str:
    """One level of settings as YAML."""
    return "".join(f"{name}: {value}\n" for name, value in settings.items())


def cut_after(trainer, epochs: int) -> None:
    """Make a training stop in the middle of the epoch after so many."""
    train = trainer.train

    def until(epoch):
        if epoch > epochs:
            next(iter(trainer.network.parameters())).data.add_(1)  # half an epoch's work, to be lost
            raise Stop
        return train(epoch)

    trainer.train = until


def write_packed(folder, waves, dtype=np.int16, channels=1, rate=100, labels="x") -> PackedAudio:
    """Write a packed folder of the given waves, each with one label in turn."""
    starts = np.concatenate([[0], np.cumsum([len(wave) for wave in waves])]).tolist()
    samples = np.concatenate(waves).reshape(-1, channels).astype(dtype)
    clips = [
        {"id": f"clip{n}", "start": start, "frames": end - start, "labels": [labels[n % len(labels)]]}
        | {"location": "", "usage": "", "crc32": zlib.crc32(samples[start:end])}
        for n, (start, end) in enumerate(itertools.pairwise(starts))
    ]
    folder.mkdir(exist_ok=True)
    np.save(folder / "audio.npy", samples)
    index = {"format": 1, "sampling_rate": rate, "channels": channels, "clips": clips}
    (folder / "index.json").write_text(json.dumps(index))
    return PackedAudio(folder)


def packed(folder, waves, rate, labels="abcde") -> Path:
    """Write a packed folder of waves (frames, channels) in floating point."""
    return write_packed(folder, waves, np.float32, waves[0].shape[1], rate, labels).folder


def packed_noise(folder, seed=0) -> PackedAudio:
    """Write twelve clips of 1400 stereo frames."""
    rng = np.random.default_rng(seed)
    return write_packed(folder, [rng.integers(-20000, 20000, (1400, 2)) for _ in range(12)], channels=2)


def noise(seed, lengths, channels=1) -> list[np.ndarray]:
    """White noise of the given lengths, each (frames, channels)."""
    rng = np.random.default_rng(seed)
    return [rng.uniform(-0.5, 0.5, (length, channels)) for length in lengths]


def made_up(stores) -> SceneClips:
    """Their clips, of three scenes in turn, with tags drawn at random."""
    clips = SceneClips(stores, ["x"])
    clips.names, clips.scenes = ["a", "b", "c"], torch.arange(len(clips)) % 3
    return clips.tagged(np.random.default_rng(0).random((len(clips), 5), dtype=np.float32))


def tiny(seed=0, classes=5) -> TaggerNetwork:
    """A tagger's network with random weights."""
    torch.manual_seed(seed)
    return TaggerNetwork(TINY, classes).eval()
