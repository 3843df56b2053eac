"""What a user can cause is one clear line that names file and remedy, status not 0, and nothing half-written."""

import json
import os
import shutil
import subprocess
import sys
from math import inf, nan

import numpy as np
import pytest
import soundfile

from local.synthetic.compose import SceneSize, TaggingSize
from tagasc.backend.svm import SvmConfig
from tagasc.benchmark.estimate import Workload
from tagasc.scene.config import SceneTraining
from tagasc.scene.trunk import TrunkConfig
from tagasc.tagger.config import PseudoLabelConfig, SemiTraining, TaggerTraining
from tagasc.tagger.network import TaggerConfig
from tagasc.utils.errors import SettingError
from tests.helpers import RATE, ROOT, SECONDS, TAGGER, run, scene_options, succeed


class Broken:
    """A copy of everything made so far, to break one thing in."""

    def __init__(self, tmp_path, scene_corpus, tagging_corpus, manifests, audio, tagger, tags):
        self.tmp = tmp_path
        self.given = {
            "scenes": scene_corpus,
            "tagging": tagging_corpus,
            "data": manifests,
            "audio": audio,
            "tagger": tagger,
            "tags": tags,
        }
        self.out = tmp_path / "out"

    def copy(self, what):
        """A copy that may be broken."""
        target = self.tmp / what
        if not target.exists():
            shutil.copytree(self.given[what], target)
        return target

    def wav(self, what="scenes"):
        return sorted(self.copy(what).rglob("*.wav"))[0]

    def tau2019(self, corpus=None):
        return (
            "local/tau2019.py",
            corpus or self.copy("scenes"),
            self.out,
            "--sampling-rate",
            RATE,
            "--seconds",
            SECONDS,
            "--allow-partial",
        )

    def fsd(self, corpus=None):
        return (
            "local/fsdkaggle2019.py",
            corpus or self.copy("tagging"),
            self.out,
            "--sampling-rate",
            RATE,
            "--allow-partial",
        )

    def pack(self, corpus):
        """Pack manifests of the (broken) scene corpus that were made while it was whole."""
        data = self.tmp / "manifests"
        succeed("local/tau2019.py", corpus, data, "--sampling-rate", RATE, "--seconds", SECONDS, "--allow-partial")
        return "steps/pack_audio.py", "--manifests", data, "--out", self.out

    def train_tagger(self, *options):
        return "steps/train_tagger.py", "--audio", self.copy("audio"), "--out", self.out, *TAGGER, *options

    def tag(self):
        return (
            "steps/extract_tags.py",
            "--tagger",
            self.copy("tagger"),
            "--audio",
            self.copy("audio"),
            "--out",
            self.out,
        )

    def train(self, *options):
        return (
            "steps/train_scene.py",
            *scene_options(self.copy("audio"), self.copy("tags"), self.out),
            "--systems",
            "shared_h4_l3",
            *options,
        )


@pytest.fixture
def broken(tmp_path, scene_corpus, tagging_corpus, manifests, audio, tagger, tags):
    return Broken(tmp_path, scene_corpus, tagging_corpus, manifests, audio, tagger, tags)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


CASES = {}


def case(said):
    """Register a way to break something; the function returns the command to run."""

    def register(function):
        assert function.__name__ not in CASES  # or the first of the two would not be run
        CASES[function.__name__] = (function, said)
        return function

    return register


@case("is not a folder; download the corpus")
def no_corpus(b):
    return b.tau2019(b.tmp / "nowhere")


@case("meta.csv does not exist; check the path, or download the corpus's metadata again")
def no_metadata(b):
    (b.copy("scenes") / "meta.csv").unlink()
    return b.tau2019()


@case("they must be separated by tabs")
def commas_for_tabs(b):
    table = b.copy("scenes") / "meta.csv"
    table.write_text(table.read_text().replace("\t", ","))
    return b.tau2019()


@case("not as many fields as columns")
def short_line(b):
    with (b.copy("scenes") / "meta.csv").open("a") as table:
        table.write("audio/x.wav\tbus\n")
    return b.tau2019()


@case("twice; delete one of the lines")
def clip_listed_twice(b):
    table = b.copy("scenes") / "meta.csv"
    table.write_text(table.read_text() + table.read_text().splitlines()[1] + "\n")
    return b.tau2019()


@case("both make clip")
def two_files_of_one_name(b):
    table = b.copy("scenes") / "meta.csv"
    line = table.read_text().splitlines()[1]
    table.write_text(table.read_text() + line.replace(".wav", ".flac") + "\n")
    return b.tau2019()


@case("unknown scene 'beach'")
def unknown_scene(b):
    edit(b.copy("scenes") / "meta.csv", "\tairport\t", "\tbeach\t")
    return b.tau2019()


@case("which meta.csv does not")
def fold_lists_unknown_clip(b):
    edit(b.copy("scenes") / "evaluation_setup/fold1_train.csv", "audio/airport", "audio/airpark")
    return b.tau2019()


@case("is not in audio/")
def path_out_of_the_corpus(b):
    edit(b.copy("scenes") / "meta.csv", "audio/airport", "audio/../../airport")
    return b.tau2019()


@case("is in both train and test")
def location_in_both(b):
    corpus = b.copy("scenes")
    test = (corpus / "evaluation_setup/fold1_evaluate.csv").read_text().splitlines()[1]
    with (corpus / "evaluation_setup/fold1_train.csv").open("a") as table:
        table.write(test + "\n")
    return b.tau2019()


@case("not the published corpus")
def partial_corpus(b):
    return b.tau2019()[:-1]


@case("cannot be read as audio")
def not_audio(b):
    b.wav().write_text("this is no sound")
    return b.tau2019()


@case("cannot be read as audio")
def empty_file(b):
    b.wav().write_bytes(b"")
    return b.tau2019()


@case("has 8000 Hz, not 16000")
def wrong_rate(b):
    soundfile.write(b.wav(), np.zeros((8000, 2)), 8000)
    return b.tau2019()


@case("has 1 channel(s), not 2")
def mono_for_stereo(b):
    soundfile.write(b.wav(), np.zeros(RATE), RATE)
    return b.tau2019()


@case("lasts 3.00 s, not 0.9 to 1.1 s")
def far_too_long(b):
    soundfile.write(b.wav(), np.zeros((3 * RATE, 2)), RATE)
    return b.tau2019()


@case("must lie between 0 and 1")
def silly_share(b):
    return *b.tau2019(), "--validation-share", 1.5


@case("has neither FSDKaggle2019.meta")
def no_tagging_metadata(b):
    shutil.rmtree(b.copy("tagging") / "FSDKaggle2019.meta")
    return b.fsd()


@case("which the vocabulary lacks")
def unknown_tag(b):
    edit(b.copy("tagging") / "FSDKaggle2019.meta/train_curated_post_competition.csv", "Bark", "Barking")
    return b.fsd()


@case("has a duplicate label")
def doubled_tag(b):
    edit(b.copy("tagging") / "FSDKaggle2019.meta/train_curated_post_competition.csv", ",Bark,", ',"Bark,Bark",')
    return b.fsd()


@case("is not a plain file name")
def tagging_path_out_of_the_corpus(b):
    table = b.copy("tagging") / "FSDKaggle2019.meta/train_curated_post_competition.csv"
    name = table.read_text().splitlines()[1].split(",")[0]
    edit(table, name, f"../{name}")
    return b.fsd()


@case("holds no *_cuts_*.jsonl.gz; run stage 1")
def pack_without_manifests(b):
    return "steps/pack_audio.py", "--manifests", b.tmp, "--out", b.out


@case("the split 'not_used' must have a name without _; rename it in stage 1")
def split_with_an_underscore(b):
    data = b.copy("data") / "tau2019"
    (data / "tau2019_cuts_unused.jsonl.gz").rename(data / "tau2019_cuts_not_used.jsonl.gz")
    return "steps/pack_audio.py", "--manifests", data, "--out", b.out


@case("--nj must be positive")
def no_process(b):
    return "steps/pack_audio.py", "--manifests", b.copy("data") / "tau2019", "--out", b.out, "--nj", 0


@case("ends after")
def truncated_clip(b):
    command = b.pack(b.copy("scenes"))
    content = b.wav().read_bytes()
    b.wav().write_bytes(content[: len(content) // 2])
    return command


@case("does not exist; run stages 0 and 1 again")
def clip_lost_after_manifests(b):
    command = b.pack(b.copy("scenes"))
    b.wav().unlink()
    return command


@case("holds samples that are not finite")
def nan_samples(b):
    command = b.pack(b.copy("scenes"))
    soundfile.write(b.wav(), np.full((int(RATE * SECONDS), 2), np.nan), RATE, subtype="FLOAT")
    return command


@case("its manifest says 16000 Hz and 2; run stage 1 (manifests) again")
def clip_changed_after_manifests(b):
    command = b.pack(b.copy("scenes"))
    soundfile.write(b.wav(), np.zeros((int(8000 * SECONDS), 2)), 8000)
    return command


def relabel(b, split, labels):
    """Give the first clip of a tagging set other labels."""
    index = b.copy("audio") / f"fsdkaggle2019_{split}/index.json"
    content = json.loads(index.read_text())
    content["clips"][0]["labels"] = labels
    index.write_text(json.dumps(content))
    return content["clips"][0]["id"]


@case("has no label; label it or leave it out")
def curated_clip_without_label(b):
    relabel(b, "curated", [])
    return b.train_tagger()


@case("has the label Theremin, which no curated clip has; fix the labels")
def noisy_label_outside_the_vocabulary(b):
    relabel(b, "noisy", ["Theremin"])
    return b.train_tagger()


@case("has the label Theremin, which no curated clip has; fix the labels")
def label_of_a_test_clip_outside_the_vocabulary(b):
    relabel(b, "test", ["Theremin"])
    return b.train_tagger()


@case("must be numbers in 0..4")
def fold_that_is_not_there(b):
    return b.train_tagger("--folds", "0 5")


@case("dropout must lie in 0..1")
def dropout_above_1(b):
    return b.train_tagger("--model.dropout", "[2.0, 0.1]")


@case("crop_seconds must be positive")
def crop_that_is_no_number(b):
    return b.train("--training.crop_seconds", ".nan")


@case("pads must be one or more numbers of frames")
def negative_pad(b):
    return b.train_tagger("--inference.pads", "[-1]")


@case("is not a readable .npz file")
def tags_from_elsewhere_not_readable(b):
    (b.tmp / "x.npz").write_bytes(b"no tags")
    return "steps/extract_tags.py", "--tagger", b.tmp / "x.npz", "--audio", b.copy("audio"), "--out", b.out


@case("has no tags for")
def tags_from_elsewhere_of_other_clips(b):
    np.savez(b.tmp / "x.npz", ids=np.array(["a"]), classes=np.array(["Bell", "Dog"]), values=np.zeros((1, 2)))
    return "steps/extract_tags.py", "--tagger", b.tmp / "x.npz", "--audio", b.copy("audio"), "--out", b.out


@case("fsdkaggle2019_noisy does not exist; run stage 2 (pack), or give --noisy false")
def no_noisy_audio(b):
    shutil.rmtree(b.copy("audio") / "fsdkaggle2019_noisy")
    return b.train_tagger()


@case("set mel.sampling_rate")
def tagger_of_another_rate(b):
    return b.train_tagger("--mel.sampling_rate", 22050)


@case("has fewer clips than batch: 512; lower batch")
def batch_too_large(b):
    return b.train_tagger("--training.batch", 512)


@case("epoch")
def misspelt_setting(b):
    return b.train_tagger("--training.epoch", 3)


@case("training.epochs")
def setting_of_wrong_type(b):
    return b.train_tagger("--training.epochs", "many")


def in_latin_1(b, text):
    path = b.tmp / "mine.yaml"
    path.write_bytes(text.encode("latin-1"))
    return path


@case("mine.yaml is not UTF-8 text; save it as UTF-8")
def settings_not_in_utf_8(b):
    return b.train("--training", in_latin_1(b, "epochs: 3 # la forêt"))


@case("mine.yaml is not UTF-8 text; save it as UTF-8")
def configuration_not_in_utf_8(b):
    return b.train_tagger(f"--config={in_latin_1(b, 'seed: 3 # la forêt')}")


@case("a file that was read is not UTF-8 text; save it as UTF-8")
def settings_not_in_utf_8_named_in_a_configuration(b):
    (b.tmp / "config.yaml").write_text(f"training: {in_latin_1(b, 'epochs: 3 # la forêt')}")
    return b.train("--config", b.tmp / "config.yaml")


@case("does not exist; run stage 3 (tagger) to create it")
def tags_without_tagger(b):
    (b.copy("tagger") / "tagger.json").unlink()
    return b.tag()


@case("snapshot1.safetensors does not exist; run stage 3 (tagger) to create it")
def tags_without_weights(b):
    (b.copy("tagger") / "fold0/stage1/snapshot1.safetensors").unlink()
    return b.tag()


@case("does not describe a tagger")
def damaged_tagger_description(b):
    (b.copy("tagger") / "tagger.json").write_text("{}")
    return b.tag()


@case("is not a complete model file")
def damaged_tagger(b):
    path = b.copy("tagger") / "fold0/stage1/snapshot1.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return b.tag()


@case("has no packed tau2019; run stage 2")
def tags_without_audio(b):
    for folder in b.copy("audio").glob("tau2019_*"):
        shutil.rmtree(folder)
    return b.tag()


@case("must be a tab-separated table with the columns filename and event")
def wrong_truth(b):
    return *b.tag(), "--event-labels", b.copy("scenes") / "meta.csv"


@case("does not exist; run stage 2 (pack) to create it")
def scenes_without_audio(b):
    shutil.rmtree(b.copy("audio") / "tau2019_train")
    return b.train()


@case("does not exist; run stage 4 (tags) to create it")
def scenes_without_tags(b):
    (b.copy("tags") / "tau2019_train.npz").unlink()
    return b.train()


@case("has no tags for")
def tags_of_other_clips(b):
    tags = b.copy("tags")
    shutil.copy(tags / "tau2019_test.npz", tags / "tau2019_train.npz")
    return b.train()


@case("heads: 3 does not divide the trunk's 8 filters")
def heads_that_do_not_divide(b):
    path = b.tmp / "systems.yaml"
    path.write_text("mine: {odd: {heads: 3}}")
    return *b.train(), "--systems-file", path, "--systems", "odd"


@case("hedas")
def misspelt_record(b):
    path = b.tmp / "systems.yaml"
    path.write_text("mine: {odd: {hedas: 2}}")
    return *b.train(), "--systems-file", path, "--systems", "odd"


@case("raise crop_seconds or shorten block_filters")
def crop_too_short(b):
    return b.train("--training.crop_seconds", 0.01)


@case("this machine has no usable GPU; use --device cpu")
def no_gpu(b):
    return b.train("--device", "cuda")


@case("uses no tags, so there are none to alter")
def control_of_the_baseline(b):
    return b.train("--systems", "baseline@shuffled")


@case("there is no control 'mixed'; use one of shuffled")
def unknown_control(b):
    return b.train("--systems", "shared_h4_l3@mixed")


@case("needs a trained tag system, but none is trained")
def control_of_the_best_of_none(b):
    return b.train("--systems", "@shuffled")


@case("does not divide the trunk's 8 filters")
def heads_that_do_not_divide_the_filters(b):
    return b.train("--systems", "att_h16_l0")


@case("there is no setting 'head'")
def system_with_a_wrong_key(b):
    systems = b.tmp / "systems.yaml"
    systems.write_text("mine:\n  new: {head: 2}\n")
    return b.train("--systems", "new", "--systems-file", systems)


@case("heads and attention_layers must not be negative")
def system_with_an_impossible_value(b):
    systems = b.tmp / "systems.yaml"
    systems.write_text("mine:\n  new: {heads: -2}\n")
    return b.train("--systems", "new", "--systems-file", systems)


@case("run stage 2 (pack) to create it")
def clips_without_audio(b):
    return b.train("--corpus", "other")


@case("are not all numbers in 0..1; extract them again")
def tags_that_are_not_numbers(b):
    path = b.copy("tags") / "tau2019_train.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays["values"][3, 1] = np.nan
    np.savez(path, **arrays)
    return b.train()


@case("do not fit")
def tags_of_another_length(b):
    path = b.copy("tags") / "tau2019_train.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays["values"] = arrays["values"][:, :-1]
    np.savez(path, **arrays)
    return b.train()


@case("--protocol final needs --select-from")
def final_without_a_choice(b):
    return b.train("--protocol", "final")


@case("does not fit index.json; run stage 2")
def packed_audio_cut_short(b):
    path = b.copy("audio") / "tau2019_train/audio.npy"
    np.save(path, np.load(path)[:-10])
    return b.train()


@case("is not finite; lower learning_rate")
def loss_not_finite(b):
    return b.train("--training.learning_rate", 1e30)


@case("does not exist; run stage 5 (scenes) to create it")
def codes_without_network(b):
    options = [
        "--audio",
        b.copy("audio"),
        "--tags",
        b.copy("tags"),
        "--out",
        b.out,
        "--systems-file",
        ROOT / "egs/systems.yaml",
    ]
    return "steps/extract_codes.py", *options, "--systems", "baseline"


@case("has other classes than")
def tags_of_another_vocabulary(b):
    """As many classes, but others: a network would take them without a word."""
    path = b.copy("tags") / "tau2019_validation.npz"
    with np.load(path) as old:
        arrays = dict(old)
    arrays["classes"] = arrays["classes"][::-1]
    np.savez(path, **arrays)
    return b.train()


@case("does not exist; run stage 6 (codes) to create it")
def svm_without_codes(b):
    return "steps/score_svm.py", "--out", b.out, "--systems-file", ROOT / "egs/systems.yaml", "--systems", "baseline"


@case("holds no scores; run stage 7")
def report_without_scores(b):
    return (
        "steps/report.py",
        "--recipe",
        b.tmp,
        "--experiment",
        b.out,
        "--tagger",
        b.copy("tagger"),
        "--tags",
        b.copy("tags"),
    )


@case("give both or neither")
def events_without_beds(b):
    return "local/synthetic/compose.py", "--out", b.out, "--events", b.tmp


@case("holds no audio; give a folder of long recordings")
def beds_without_audio(b):
    return "local/synthetic/compose.py", "--out", b.out, "--events", b.tmp, "--backgrounds", b.tmp


@case("no class has recordings for all of")
def events_without_classes(b):
    beds = b.tmp / "beds"
    beds.mkdir()
    soundfile.write(beds / "wind.wav", np.random.default_rng(0).normal(size=8000) * 0.1, 8000)
    (b.tmp / "events").mkdir()
    return "local/synthetic/compose.py", "--out", b.out, "--events", b.tmp / "events", "--backgrounds", beds


def table_of(b, rows, name="scenes.csv"):
    """A table of the scene corpus's clips for local/scene_csv.py."""
    path = b.copy("scenes") / name
    path.write_text("\n".join(rows) + "\n")
    return path


def clips(b, count=8):
    return [f"audio/{path.name}" for path in sorted((b.copy("scenes") / "audio").iterdir())[:count]]


@case("they must be separated by commas")
def csv_with_other_columns(b):
    return "local/scene_csv.py", table_of(b, ["path,scene", f"{clips(b)[0]},bus"]), b.out


@case("has no scene; fix the line")
def csv_without_scene(b):
    return "local/scene_csv.py", table_of(b, ["file,scene", f"{clips(b)[0]},"]), b.out


@case("scenes.csv does not exist; check the path")
def csv_that_is_not_there(b):
    return "local/scene_csv.py", b.copy("scenes") / "scenes.csv", b.out


@case("save it as UTF-8 text")
def csv_that_is_not_text(b):
    table = b.copy("scenes") / "scenes.csv"
    table.write_bytes("file,scene\naudio/a.wav,forêt\n".encode("latin-1"))
    return "local/scene_csv.py", table, b.out


@case("has no line but its header; add lines")
def csv_without_lines(b):
    return "local/scene_csv.py", table_of(b, ["file,scene"]), b.out


@case("audio/lost.wav; add them, or remove them from the table")
def csv_lists_what_is_not_there(b):
    return "local/scene_csv.py", table_of(b, ["file,scene", "audio/lost.wav,bus"]), b.out


@case("is not in the table's folder")
def csv_path_out_of_the_corpus(b):
    return "local/scene_csv.py", table_of(b, ["file,scene", "../../etc/passwd,bus"]), b.out


@case("is in the split 'dev'; it must be one of")
def csv_with_unknown_split(b):
    return "local/scene_csv.py", table_of(b, ["file,scene,split", f"{clips(b)[0]},bus,dev"]), b.out


@case("is in both train and test; keep it in one split")
def csv_with_a_split_location(b):
    rows = [f"{clip},bus,place {n % 3},{('train', 'test')[n % 2]}" for n, clip in enumerate(clips(b))]
    return "local/scene_csv.py", table_of(b, ["file,scene,location,split", *rows]), b.out


@case("has clips of one location only")
def csv_with_one_location(b):
    return "local/scene_csv.py", table_of(b, ["file,scene,location", *(f"{clip},bus,home" for clip in clips(b))]), b.out


@case("has the scene zoo, which has no training clip; add some")
def csv_with_a_scene_for_testing_alone(b):
    scenes = ["bus", "bus", "park", "park", "bus", "zoo"]
    splits = ["train"] * 4 + ["test"] * 2
    rows = [",".join(row) for row in zip(clips(b), scenes, splits, strict=False)]
    return "local/scene_csv.py", table_of(b, ["file,scene,split", *rows]), b.out


@case("has training clips of one scene only, bus")
def csv_with_one_scene(b):
    return "local/scene_csv.py", table_of(b, ["file,scene", *(f"{clip},bus" for clip in clips(b))]), b.out


@case("which no curated clip has")
def tagging_csv_with_a_strange_label(b):
    one, two, *_ = clips(b)
    return "local/tagging_csv.py", table_of(b, ["file,labels,split", f"{one},dog,curated", f"{two},cat,noisy"]), b.out


@case("was 2 and is 3); --force trains it again")
def training_of_another_configuration(b):
    succeed(*b.train())
    next(b.out.rglob("model.safetensors")).unlink()
    (next(b.out.rglob("provenance.json")).parent / "checkpoint.pt").write_bytes(b"of an unfinished training")
    return b.train("--training.epochs", 3)


@case("cannot be read as a checkpoint of this network")
def damaged_checkpoint(b):
    succeed(*b.train())
    weights = next(b.out.rglob("model.safetensors"))
    weights.rename(weights.with_name("checkpoint.pt"))
    return b.train()


@case("a file is where a folder is needed; check the path")
def output_is_a_file(b):
    b.out.write_text("in the way")
    return b.train()


def looks_whole(out):
    """Files that a later stage would take for a finished result."""
    names = ("index.json", "model.safetensors", "*.npz", "*.jsonl.gz", "RESULTS.md", "scores.json", "meta.csv")
    return [
        path
        for name in names
        for path in out.rglob(name)
        if not any(part.startswith(".") for part in path.relative_to(out).parts)
    ]


OTHER_SPLITS_ARE_WHOLE = {
    "truncated_clip",
    "clip_lost_after_manifests",
    "nan_samples",
    "clip_changed_after_manifests",
    "wrong_truth",
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(broken, name):
    break_it, said = CASES[name]
    command = break_it(broken)
    outcome = run(*command)
    assert outcome.status != 0
    assert said in outcome.error
    if name not in OTHER_SPLITS_ARE_WHOLE:
        assert not looks_whole(broken.out)


def test_the_exceptions_are_cases():
    assert CASES.keys() >= OTHER_SPLITS_ARE_WHOLE


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
    corpus = broken.copy("scenes")
    wanted = corpus.with_name("scènes à moi")
    corpus.rename(wanted)
    succeed(*broken.tau2019(wanted))
    index = json.loads((broken.out / "provenance.json").read_text())
    assert index["step"] == "tau2019"


def test_a_disk_that_fills_up(broken):
    """Packing under a limit on file size, as a full disk: one line, nothing that looks whole, and then it goes on."""
    code = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); sys.argv = sys.argv[1:];"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    program, *options = map(str, broken.pack(broken.copy("scenes")))
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
    wav = broken.wav()
    soundfile.write(wav, np.full((int(RATE * SECONDS) - 7, 2), 0.1), RATE, subtype="PCM_24")
    program, *options = broken.pack(broken.copy("scenes"))
    assert "1 clips padded or cut by up to 7 frames" in succeed(program, *options)
