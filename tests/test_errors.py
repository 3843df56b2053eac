"""What a user can cause is one clear line that names the file and the remedy; status not 0, nothing half-written."""

import json
import os
import shutil
import subprocess
import sys
from math import inf, nan

import numpy as np
import pytest
import soundfile
import torch

from local.synthetic.compose import SceneSize, TaggingSize
from tagasc.backend.svm import SvmConfig
from tagasc.benchmark.estimate import Workload
from tagasc.scene.config import SceneTraining
from tagasc.scene.trunk import TrunkConfig
from tagasc.tagger.config import PseudoLabelConfig, SemiTraining, TaggerTraining
from tagasc.tagger.network import TaggerConfig
from tagasc.utils.errors import SettingError
from tagasc.utils.files import read_json, write_json
from tests.helpers import RATE, ROOT, SECONDS, TAGGER, run, scene_options, succeed

CURATED = "FSDKaggle2019.meta/train_curated_post_competition.csv"
SYSTEMS = ("--systems-file", ROOT / "egs/systems.yaml")


class Broken:
    """Everything made so far, of which copies may be broken; what breaks something returns this, to go on with."""

    def __init__(self, tmp_path, **made):
        self.tmp, self.made, self.out = tmp_path, made, tmp_path / "out"

    def copy(self, name):
        """A copy that may be broken."""
        target = self.tmp / name
        if not target.exists():
            shutil.copytree(self.made[name], target)
        return target

    def wav(self):
        return sorted(self.copy("scenes").rglob("*.wav"))[0]

    # Ways to break something.

    def remove(self, name, pattern):
        for path in self.copy(name).glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return self

    def edit(self, name, file, old, new):
        path = self.copy(name) / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        return self

    def flip(self, name, file):
        path = self.copy(name) / file
        content = bytearray(path.read_bytes())
        content[-6] ^= 1
        path.write_bytes(content)
        return self

    def append(self, name, file, line):
        with (self.copy(name) / file).open("a") as table:
            table.write(line + "\n")
        return self

    def line(self, name, file, number=1):
        return (self.copy(name) / file).read_text().splitlines()[number]

    def sound(self, frames, channels=2, rate=RATE, value=0.0, **options):
        soundfile.write(self.wav(), np.full((round(frames), channels), value), rate, **options)
        return self

    def file(self, content, name="mine.yaml"):
        path = self.tmp / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("latin-1"))
        return path

    def arrays(self, file, **changes):
        path = self.copy("tags") / file
        with np.load(path) as old:
            arrays = dict(old)
        np.savez(path, **arrays | {name: change(arrays[name]) for name, change in changes.items()})
        return self

    def relabel(self, split, *labels):
        path = self.copy("audio") / f"fsdkaggle2019_{split}/index.json"
        index = read_json(path, "")
        index["clips"][0]["labels"] = labels
        write_json(path, index)
        return self

    def packed_after(self, change):
        """Pack the scene corpus, which ``change`` breaks after its manifests were made."""
        data = self.tmp / "manifests"
        succeed(*self.tau2019()[:2], data, *self.tau2019()[3:])
        change(self)
        return "steps/pack_audio.py", "--manifests", data, "--out", self.out

    # Programs, as a user calls them.

    def tau2019(self, corpus=None):
        options = ("--sampling-rate", RATE, "--seconds", SECONDS, "--allow-partial")
        return "local/tau2019.py", corpus or self.copy("scenes"), self.out, *options

    def fsd(self):
        return "local/fsdkaggle2019.py", self.copy("tagging"), self.out, "--sampling-rate", RATE, "--allow-partial"

    def scenes(self, *rows, program="scene_csv"):
        """Prepare a table of the scene corpus's clips, in which a0, a1, … stand for these."""
        clips = sorted((self.copy("scenes") / "audio").iterdir())
        names = {f"a{n}": f"audio/{clip.name}" for n, clip in enumerate(clips[:8])}
        lines = [",".join(names.get(cell, cell) for cell in row.split(",")) for row in rows]
        table = self.copy("scenes") / "scenes.csv"
        table.write_text("\n".join(lines) + "\n")
        return f"local/{program}.py", table, self.out

    def pack(self, *options):
        return "steps/pack_audio.py", "--manifests", self.copy("data") / "tau2019", "--out", self.out, *options

    def train_tagger(self, *options):
        return "steps/train_tagger.py", "--audio", self.copy("audio"), "--out", self.out, *TAGGER, *options

    def tag(self, *options, tagger=None):
        options = ("--tags-from", tagger or self.copy("tagger"), "--audio", self.copy("audio"), *options)
        return "steps/extract_tags.py", "--out", self.out, *options

    def train(self, *options):
        shared = scene_options(self.copy("audio"), self.copy("tags"), self.out)
        return "steps/train_scene.py", *shared, "--systems", "shared_h4_l3", *options

    def train_record(self, record):
        systems = ("--systems-file", self.file(f"mine: {{odd: {record}}}", "systems.yaml"), "--systems", "odd")
        return self.train(*systems)

    def compose(self, *options):
        return "local/synthetic/compose.py", "--out", self.out, *options


@pytest.fixture
def broken(tmp_path, scene_corpus, tagging_corpus, manifests, audio, tagger, tags):
    made = {"scenes": scene_corpus, "tagging": tagging_corpus, "data": manifests}
    return Broken(tmp_path, **made, audio=audio, tagger=tagger, tags=tags)


def rename_a_split(b):
    data = b.copy("data") / "tau2019"
    (data / "tau2019_cuts_unused.jsonl.gz").rename(data / "tau2019_cuts_not_used.jsonl.gz")
    return b.pack()


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def damage_the_tagger(b):
    cut(b.copy("tagger") / "fold0/stage1/snapshot1.safetensors", -100)
    return b.tag()


def shorten_the_audio(b):
    path = b.copy("audio") / "tau2019_train/audio.npy"
    np.save(path, np.load(path)[:-10])
    return b.train()


def tags_of_other_clips(b):
    shutil.copy(b.copy("tags") / "tau2019_test.npz", b.copy("tags") / "tau2019_train.npz")
    return b.train()


def checkpoint_of_another_network(b):
    succeed(*b.train())
    weights = next(b.out.rglob("model.safetensors"))
    weights.unlink()
    torch.save({"network": {}}, weights.with_name("checkpoint.pt"))
    return b.train()


def train_with_other_settings(b):
    succeed(*b.train())
    next(b.out.rglob("model.safetensors")).rename(next(b.out.rglob("provenance.json")).parent / "checkpoint.pt")
    return b.train("--training.epochs", 3)


def events_without_classes(b):
    for name in ("backgrounds", "events"):
        (b.tmp / name).mkdir()
    soundfile.write(b.tmp / "backgrounds/wind.wav", np.random.default_rng(0).normal(size=8000) * 0.1, 8000)
    return b.compose("--events", b.tmp / "events", "--backgrounds", b.tmp / "backgrounds")


def elsewhere(b, content=b"no tags"):
    path = b.file(content, "x.npz")
    if not content:
        np.savez(path, ids=np.array(["a"]), classes=np.array(["Bell", "Dog"]), values=np.zeros((1, 2)))
    return b.tag(tagger=path)


def output_is_a_file(b):
    b.out.write_text("in the way")
    return b.train()


CASES = {
    # Stage 1: tables and headers of TAU 2019
    "no corpus": ("is not a folder; download the corpus", lambda b: b.tau2019(b.tmp / "nowhere")),
    "no metadata": (
        "meta.csv does not exist; check the path, or download",
        lambda b: b.remove("scenes", "meta.csv").tau2019(),
    ),
    "commas for tabs": (
        "separated by tabs; fix it, or check the path, or download",
        lambda b: b.edit("scenes", "meta.csv", "\t", ",").tau2019(),
    ),
    "short line": (
        "not as many fields as columns",
        lambda b: b.append("scenes", "meta.csv", "audio/x.wav\tbus").tau2019(),
    ),
    "duplicate clip": (
        "twice; delete one of the lines",
        lambda b: b.append("scenes", "meta.csv", b.line("scenes", "meta.csv")).tau2019(),
    ),
    "two files, one clip id": (
        "both have the clip id",
        lambda b: b.append("scenes", "meta.csv", b.line("scenes", "meta.csv").replace(".wav", ".flac")).tau2019(),
    ),
    "unknown scene": (
        "unknown scene 'beach'",
        lambda b: b.edit("scenes", "meta.csv", "\tairport\t", "\tbeach\t").tau2019(),
    ),
    "unknown clip in a fold": (
        "-0-0-a.wav is not in meta.csv; download",
        lambda b: b.edit("scenes", "evaluation_setup/fold1_train.csv", "audio/airport", "audio/airpark").tau2019(),
    ),
    "path out of the corpus": (
        "is not in audio/",
        lambda b: b.edit("scenes", "meta.csv", "audio/airport", "audio/../../airport").tau2019(),
    ),
    "location in two splits": (
        "is in both train and test",
        lambda b: b.append(
            "scenes", "evaluation_setup/fold1_train.csv", b.line("scenes", "evaluation_setup/fold1_evaluate.csv")
        ).tau2019(),
    ),
    "partial corpus": ("not the published corpus", lambda b: b.tau2019()[:-1]),
    "share above 1": ("must be between 0 and 1", lambda b: (*b.tau2019(), "--validation-share", 1.5)),
    "not audio": ("cannot be read as audio", lambda b: b.wav().write_text("no sound") and b.tau2019()),
    "empty file": ("cannot be read as audio", lambda b: b.wav().write_bytes(b"") or b.tau2019()),
    "wrong rate": ("has 8000 Hz, not 16000", lambda b: b.sound(8000, rate=8000).tau2019()),
    "mono for stereo": ("has 1 channel(s), not 2", lambda b: b.sound(RATE, channels=1).tau2019()),
    "far too long": ("lasts 3.00 s, not 0.9 to 1.1", lambda b: b.sound(3 * RATE).tau2019()),
    # FSDKaggle2019
    "no tagging metadata": (
        "has neither FSDKaggle2019.meta",
        lambda b: b.remove("tagging", "FSDKaggle2019.meta").fsd(),
    ),
    "unknown tag": ("which the vocabulary lacks", lambda b: b.edit("tagging", CURATED, "Bark", "Barking").fsd()),
    "duplicate tag": ("has a duplicate label", lambda b: b.edit("tagging", CURATED, ",Bark,", ',"Bark,Bark",').fsd()),
    "tagging path out of the corpus": (
        "is not a plain file name",
        lambda b: b.edit("tagging", CURATED, b.line("tagging", CURATED), f"../{b.line('tagging', CURATED)}").fsd(),
    ),
    # Your own tables
    "other columns": ("not ['file', 'scene'] separated by commas; fix it", lambda b: b.scenes("path,scene", "a0,bus")),
    "no scene": ("scenes.csv, line 2 has no scene; fix the line", lambda b: b.scenes("file,scene", "a0,")),
    "no table": (
        "scenes.csv does not exist; check the path",
        lambda b: ("local/scene_csv.py", b.tmp / "scenes.csv", b.out),
    ),
    "not text": (
        "save it as UTF-8 text",
        lambda b: ("local/scene_csv.py", b.file("file,scene\na.wav,forêt\n", "scenes.csv"), b.out),
    ),
    "only a header": ("has no line but its header; add lines", lambda b: b.scenes("file,scene")),
    "missing clip": ("lost.wav; add them, or fix the table", lambda b: b.scenes("file,scene", "audio/lost.wav,bus")),
    "path out of the folder": (
        "is not in the table's folder",
        lambda b: b.scenes("file,scene", "../../etc/passwd,bus"),
    ),
    "unknown split": (
        "scenes.csv, line 2: the split is 'dev'; it must be one of",
        lambda b: b.scenes("file,scene,split", "a0,bus,dev"),
    ),
    "own location in two splits": (
        "is in both train and test; keep it in one split",
        lambda b: b.scenes(
            "file,scene,location,split", *(f"a{n},bus,place {n % 3},{('train', 'test')[n % 2]}" for n in range(8))
        ),
    ),
    "one location": (
        "has clips of one location only",
        lambda b: b.scenes("file,scene,location", *(f"a{n},bus,home" for n in range(8))),
    ),
    "scene without training clips": (
        "has the scene zoo, which has no training clip; add some",
        lambda b: b.scenes(
            "file,scene,split",
            "a0,bus,train",
            "a1,bus,train",
            "a2,park,train",
            "a3,park,train",
            "a4,bus,test",
            "a5,zoo,test",
        ),
    ),
    "one scene": (
        "has training clips of one scene only",
        lambda b: b.scenes("file,scene", *(f"a{n},bus" for n in range(8))),
    ),
    "label of noisy clips only": (
        "which no curated clip has",
        lambda b: b.scenes("file,labels,split", "a0,dog,curated", "a1,cat,noisy", program="tagging_csv"),
    ),
    # Synthetic corpora
    "events alone": ("give both or neither", lambda b: b.compose("--events", b.tmp)),
    "silent backgrounds": (
        "holds no audio; give a folder",
        lambda b: b.compose("--events", b.tmp, "--backgrounds", b.tmp),
    ),
    "events without classes": ("no class has recordings for all of", events_without_classes),
    # Stage 2
    "no manifests": (
        "holds no *_cuts_*.jsonl.gz; run stage 1",
        lambda b: (*b.pack()[:1], "--manifests", b.tmp, *b.pack()[3:]),
    ),
    "split with an underscore": ("the split 'not_used' must have a name without _", rename_a_split),
    "damaged manifest": (
        "is damaged (CRC check failed",
        lambda b: b.flip("data", "tau2019/tau2019_cuts_validation.jsonl.gz").pack(),
    ),
    "no process": ("--nj must be", lambda b: b.pack("--nj", 0)),
    "no shard": ("--shard-gb must be", lambda b: b.pack("--shard-gb", 0)),
    "truncated clip": ("ends after", lambda b: b.packed_after(lambda b: cut(b.wav(), b.wav().stat().st_size // 2))),
    "lost clip": ("does not exist; run stages 0 and 1 again", lambda b: b.packed_after(lambda b: b.wav().unlink())),
    "NaN": (
        "samples that are not finite",
        lambda b: b.packed_after(lambda b: b.sound(RATE * SECONDS, value=nan, subtype="FLOAT")),
    ),
    "changed clip": (
        "its manifest says 16000 Hz and 2; run stage 1 (manifests) again",
        lambda b: b.packed_after(lambda b: b.sound(8000 * SECONDS, rate=8000)),
    ),
    # Stage 3
    "curated clip without label": ("has no label", lambda b: b.relabel("curated").train_tagger()),
    "strange noisy label": ("Theremin, which no curated clip", lambda b: b.relabel("noisy", "Theremin").train_tagger()),
    "strange test label": ("Theremin, which no curated clip", lambda b: b.relabel("test", "Theremin").train_tagger()),
    "no such fold": ("must be numbers in 0..4", lambda b: b.train_tagger("--folds", "0 5")),
    "no noisy audio": (
        "fsdkaggle2019_noisy does not exist; run stage 2 (pack), or give --noisy false",
        lambda b: b.remove("audio", "fsdkaggle2019_noisy").train_tagger(),
    ),
    "tagger of another rate": ("set mel.sampling_rate", lambda b: b.train_tagger("--mel.sampling_rate", 22050)),
    "large batch": ("lower batch", lambda b: b.train_tagger("--training.batch", 512)),
    "misspelt setting": ("epoch", lambda b: b.train_tagger("--training.epoch", 3)),
    "setting of the wrong type": ("training.epochs", lambda b: b.train_tagger("--training.epochs", "many")),
    "settings not in UTF-8": (
        "mine.yaml is not UTF-8 text",
        lambda b: b.train("--training", b.file("epochs: 3 # la forêt")),
    ),
    "configuration not in UTF-8": (
        "mine.yaml is not UTF-8 text",
        lambda b: b.train_tagger(f"--config={b.file('seed: 3 # la forêt')}"),
    ),
    "nested settings not in UTF-8": (
        "is not UTF-8 text; save it as UTF-8",
        lambda b: b.train("--config", b.file(f"training: {b.file('epochs: 3 # la forêt')}", "config.yaml")),
    ),
    # Stage 4
    "tags without a tagger": (
        "does not exist; run stage 3 (tagger)",
        lambda b: b.remove("tagger", "tagger.json").tag(),
    ),
    "tags without weights": (
        "snapshot1.safetensors does not exist; run stage 3 (tagger)",
        lambda b: b.remove("tagger", "fold0/stage1/snapshot1.safetensors").tag(),
    ),
    "damaged tagger": ("snapshot1.safetensors is damaged", damage_the_tagger),
    "tags without audio": ("has no packed tau2019; run stage 2", lambda b: b.remove("audio", "tau2019_*").tag()),
    "wrong event labels": (
        "not ['filename', 'event'] separated by tabs; fix it, or leave --event-labels out",
        lambda b: b.tag("--event-labels", b.copy("scenes") / "meta.csv"),
    ),
    "unreadable tags": ("is damaged or not an .npz file", elsewhere),
    "tags of unknown clips": ("has no tags for", lambda b: elsewhere(b, b"")),
    # Stage 5
    "no scene audio": ("run stage 2 (pack)", lambda b: b.remove("audio", "tau2019_train").train()),
    "other corpus": ("run stage 2 (pack)", lambda b: b.train("--corpus", "other")),
    "no scene tags": ("run stage 4 (tags)", lambda b: b.remove("tags", "tau2019_train.npz").train()),
    "tags of other clips": ("has no tags for", tags_of_other_clips),
    "tags that are not numbers": (
        "are not all numbers in 0..1",
        lambda b: b.arrays("tau2019_train.npz", values=lambda v: np.where(v == v.max(), nan, v)).train(),
    ),
    "tags of another length": (
        "do not fit",
        lambda b: b.arrays("tau2019_train.npz", values=lambda v: v[:, :-1]).train(),
    ),
    "tags of other events": (
        "has other classes than",
        lambda b: b.arrays("tau2019_validation.npz", classes=lambda c: c[::-1]).train(),
    ),
    "shortened audio": ("audio.npy does not fit index.json); run stage 2", shorten_the_audio),
    "heads that do not divide": (
        "heads: 3 does not divide the trunk's 8 filters",
        lambda b: b.train_record("{heads: 3}"),
    ),
    "misspelt record": ("there is no setting 'hedas'", lambda b: b.train_record("{hedas: 2}")),
    "impossible record": ("must not be negative", lambda b: b.train_record("{heads: -2}")),
    "short crop": ("raise crop_seconds or shorten block_filters", lambda b: b.train("--training.crop_seconds", 0.01)),
    "no GPU": ("this machine has no usable GPU; use --device cpu", lambda b: b.train("--device", "cuda")),
    "final without a selection": ("--protocol final needs --select-from", lambda b: b.train("--protocol", "final")),
    "infinite loss": ("is not finite; lower learning_rate", lambda b: b.train("--training.learning_rate", 1e30)),
    "other settings": ("was 2 and is 3); --force trains it again", train_with_other_settings),
    "checkpoint of another network": ("is no checkpoint of this network; delete it", checkpoint_of_another_network),
    "file for a folder": ("a file is where a folder is needed; check the path", output_is_a_file),
    "no test audio for the paper's protocol": (
        "tau2019_test/index.json does not exist; run stage 2 (pack)",
        lambda b: b.remove("audio", "tau2019_test/index.json").train("--protocol", "both"),
    ),
    # Stages 6 to 8
    "codes without a network": (
        "run stage 5 (scenes)",
        lambda b: ("steps/extract_codes.py", *b.train()[1:7], *SYSTEMS, "--systems", "baseline"),
    ),
    "svm without codes": (
        "run stage 6 (codes)",
        lambda b: ("steps/score_svm.py", "--out", b.out, *SYSTEMS, "--systems", "baseline"),
    ),
    "report without scores": (
        "holds no scores; run stage 7",
        lambda b: ("steps/report.py", "--recipe", b.tmp, "--experiment", b.out, "--tagger", b.tmp, "--tags", b.tmp),
    ),
}


def foreign_file(b, folder, command):
    """Put a file into a folder that the program would replace."""
    (b.out / folder).mkdir(parents=True)
    (b.out / folder / "thesis.tex").write_text("text")
    return command


FOREIGN = {
    "manifests": lambda b: foreign_file(b, "", b.tau2019()),
    "packed audio": lambda b: foreign_file(b, "tau2019_train", b.pack()),
    "a network": lambda b: foreign_file(b, "scene/shared_h4_l3/seed1", b.train()),
    "a network, with --force": lambda b: foreign_file(b, "scene/shared_h4_l3/seed1", b.train("--force")),
    "a tagger": lambda b: foreign_file(b, "fold0", b.train_tagger("--force")),
}
OTHER_SPLITS_ARE_COMPLETE = {
    "damaged manifest",
    "truncated clip",
    "lost clip",
    "NaN",
    "changed clip",
    "wrong event labels",
}


def complete_results(out):
    """Files that a later stage would take for a finished result."""
    names = ("index.json", "model.safetensors", "*.npz", "*.jsonl.gz", "RESULTS.md", "scores.json", "meta.csv")
    paths = [path for name in names for path in out.rglob(name)]
    return [path for path in paths if not any(part.startswith(".") for part in path.relative_to(out).parts)]


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_clear_line(broken, name):
    message, break_it = CASES[name]
    outcome = run(*break_it(broken))
    assert outcome.status != 0
    assert message in outcome.error
    if name not in OTHER_SPLITS_ARE_COMPLETE:
        assert not complete_results(broken.out)


@pytest.mark.parametrize("name", FOREIGN)
def test_files_that_a_program_did_not_write_are_kept(broken, name):
    outcome = run(*FOREIGN[name](broken))
    assert outcome.status != 0
    assert "holds thesis.tex, which this program did not write and would delete" in outcome.error
    assert [path.read_text() for path in broken.out.rglob("thesis.tex")] == ["text"]


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        (TaggerConfig, {"dropout": [(2.0, 0.1), (0.2, 1.0), (0.2, -0.1), (nan, 0.1)]}),
        (TrunkConfig, {"slope": [-0.1, nan]}),
        (SceneTraining, {"learning_rate": [0, nan, inf], "crop_seconds": [0, nan, inf]}),
        (SceneTraining, {name: [-1, nan, inf] for name in ("weight_decay", "mixup_alpha", "centre_loss")}),
        (TaggerTraining, {"learning_rate": [nan, inf], "least_learning_rate": [0, nan], "mixup_alpha": [0, nan, inf]}),
        (TaggerTraining, {"gain": [(0, 1), (nan, 1), (1, nan), (1, inf)], "probability": [nan]}),
        (SemiTraining, {"consistency": [-1, nan, inf], "slice_part": [(nan, 1)], "slice_probability": [nan]}),
        (PseudoLabelConfig, {"sharpness": [0, nan, inf]}),
        (SvmConfig, {"costs": [(), (0,), (1, nan), (inf,)]}),
        (SceneSize, {"seconds": [0, 0.00001, nan, inf]}),
        (TaggingSize, {"longest": [0, 0.2, nan, inf], "wrong": [nan]}),
        (
            Workload,
            {"train": [1379], "validation": [-1, 9185], "test": [0], "unused": [-1], "noisy": [-1], "gpus": [0]},
        ),
        (Workload, {"seconds": [0, nan, inf], "tagging_seconds": [nan], "sampling_rate": [0]}),
    ],
    ids=lambda part: part.__name__ if isinstance(part, type) else " ".join(part),
)
def test_a_setting_out_of_range_is_named(settings, values):
    for name, refused in values.items():
        for value in refused:
            with pytest.raises(SettingError, match=name):
                settings(**{name: value})


def test_names_with_spaces_and_accents_work(broken):
    corpus = broken.copy("scenes").rename(broken.tmp / "scènes à moi")
    succeed(*broken.tau2019(corpus))
    assert json.loads((broken.out / "provenance.json").read_text())["step"] == "tau2019"


def test_a_disk_that_fills_up(broken):
    """A limit on file size acts like a full disk: one clear line, nothing that looks complete, and it can be resumed."""
    code = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); sys.argv = sys.argv[1:];"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    program, *options = map(str, broken.packed_after(lambda _: None))
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / program), *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert "free some space and run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(broken.out.glob("tau2019_train"))
    succeed(program, *options)
    assert (broken.out / "tau2019_train/index.json").exists()


def test_small_differences_in_length_are_padded_or_cut_and_counted(broken):
    broken.sound(RATE * SECONDS - 7, value=0.1, subtype="PCM_24")
    assert "1 clips padded or cut by up to 7 frames" in succeed(*broken.packed_after(lambda _: None))
