"""Stages 5 to 7 on a tiny corpus: all 56 systems, controls, both protocols, failures."""

import json
import shutil

import numpy as np
import pytest
import skops.io
import torch
from sklearn.svm import SVC

from steps.train_scene import _labelled_codes
from tagasc.audio.store import AudioStore
from tagasc.backend.codes import Codes
from tagasc.scene.config import SceneTraining
from tagasc.scene.controls import CONTROLS
from tagasc.scene.corpus import SceneCorpus
from tagasc.scene.inference import codes_and_logits
from tagasc.scene.systems import System, read_systems, select
from tagasc.scene.training import SceneTrainer, load_scene_network
from tagasc.scene.trunk import TrunkConfig
from tagasc.utils import provenance
from tagasc.utils.device import computing_in
from tagasc.utils.files import read_json, read_record, write_json
from tests.helpers import ROOT, made_up, packed_noise, run, scene_options, succeed

FILE = ROOT / "egs/systems.yaml"
EVERY = list(select(read_systems(FILE), ["all"], FILE))
SOME = "baseline codecat codecat_fc beforecode_l3 att_h2_l1 att_h32_l0 separate_h2_c3_a3 shared_h4_l3".split()
WIDE = ["--trunk.stem_filters", 32, "--trunk.block_filters", "[32, 32, 32]"]  # for 32 heads
SYSTEMS_FILE = ["--systems-file", FILE]


def train(audio, tags, out, *options, **training):
    return "steps/train_scene.py", *scene_options(audio, tags, out, **training), *WIDE, *options


def codes(audio, tags, out, *options):
    return "steps/extract_codes.py", "--audio", audio, "--tags", tags, "--out", out, *SYSTEMS_FILE, *options


def svm(out, *options):
    return "steps/score_svm.py", "--out", out, *SYSTEMS_FILE, *options


@pytest.fixture(scope="module")
def chain(audio, tags, tmp_path_factory):
    """An experiment with a system of each kind and every control, two epochs each."""
    out = tmp_path_factory.mktemp("chain")
    controls = " ".join(f"@{control}" for control in CONTROLS)
    every = f"{' '.join(SOME)} {controls}"
    succeed(*train(audio, tags, out, "--systems", " ".join(SOME), "--protocol", "both"))
    succeed(*train(audio, tags, out, "--systems", controls))
    succeed(*codes(audio, tags, out, "--systems", every))
    succeed(*svm(out, "--systems", every, "--nj", 2))
    return out


def scores(out, name, seed=1):
    return json.loads((out / f"svm/{name}/seed{seed}/scores.json").read_text())["classifiers"]


@pytest.mark.slow
def test_all_56_systems_are_trained_and_scored(audio, tags, tmp_path):
    for program in (train(audio, tags, tmp_path), codes(audio, tags, tmp_path), svm(tmp_path)):
        succeed(*program, "--systems", "all")
    assert len(EVERY) == 56
    assert {path.parts[-3] for path in tmp_path.glob("svm/*/seed*/scores.json")} == {*EVERY, "tags_only"}


def test_systems_and_controls_are_scored(chain):
    names = {path.name for path in (chain / "svm").iterdir()}
    bases = {name.partition("@")[0] for name in names if "@" in name}
    assert len(bases) == 1  # the best tag system on validation
    assert names == {*SOME, *(f"{base}@{control}" for base in bases for control in CONTROLS), "tags_only"}
    for name in names:
        classifiers = scores(chain, name) if name != "tags_only" else scores(chain, name, 0)
        assert set(classifiers) == {"svm", "svm_standardised"} | ({"softmax"} if name != "tags_only" else set())
        for classifier in classifiers.values():
            assert {test: score["clips"] for test, score in classifier["scores"].items()} == {
                "test": 30,
                "test+unused": 40,
            }


def test_the_papers_protocol_has_every_epoch_of_every_system(chain):
    for name in SOME:
        paper = json.loads((chain / f"scene/{name}/seed1/test_by_epoch.json").read_text())
        assert paper["trained_on"] == "train"
        assert [row["epoch"] for row in paper["epochs"]] == [1, 1, 2, 2]
        assert not (chain / f"scene/{name}/seed1/epochs").exists()


def test_both_protocols_agree_where_they_select_the_same_svm(chain):
    """At the kept epoch, the SVM with C = 1 equals the one fitted during the training."""
    compared = 0
    for name in SOME:
        kept = json.loads((chain / f"scene/{name}/seed1/history.json").read_text())["best_epoch"]
        ours = scores(chain, name)["svm"]
        if ours["chosen"]["C"] != 1:
            continue
        rows = json.loads((chain / f"scene/{name}/seed1/test_by_epoch.json").read_text())["epochs"]
        row = next(r for r in rows if (r["epoch"], r["kernel"]) == (kept, ours["chosen"]["kernel"]))
        assert row["test"] == pytest.approx(ours["scores"]["test"]["accuracy"])
        assert row["test+unused"] == pytest.approx(ours["scores"]["test+unused"]["accuracy"])
        compared += 1
    assert compared > 5


def test_a_saved_svm_has_the_written_scores(chain):
    for classifier in ("svm", "svm_standardised"):
        path = chain / f"svm/codecat/seed1/{classifier}.skops"
        loaded = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
        test = Codes.read(chain / "codes/codecat/seed1/test.npz")
        correct = loaded.predict(test.codes) == test.scenes
        written = scores(chain, "codecat")[classifier]["scores"]["test"]
        assert correct.mean() == pytest.approx(written["accuracy"])
        by_scene = [correct[test.scenes == scene].mean() for scene in set(test.scenes)]
        assert np.mean(by_scene) == pytest.approx(written["class_averaged"])


def test_scores_hold_the_deviation_of_the_codes(tmp_path):
    """γ of the SVM depends on it: 1 / (n · deviation²)."""
    random = np.random.default_rng(0)
    for split, count in (("train", 60), ("validation", 30), ("test", 30)):
        scenes = np.array(["bus", "park", "tram"])[np.arange(count) % 3]
        values = (0.3 * random.normal(size=(count, 4)) + np.eye(3, 4)[np.arange(count) % 3]).astype(np.float32)
        ids = np.array([f"{split}{n}" for n in range(count)])
        path = tmp_path / f"codes/baseline/seed1/{split}.npz"
        Codes(ids, values, scenes, scenes, ids).write(path, {"inputs": {"network": "a"}})
    train = Codes.read(tmp_path / "codes/baseline/seed1/train.npz").codes
    said = succeed(*svm(tmp_path, "--systems", "baseline"))
    written = scores(tmp_path, "baseline")["svm"]["code_deviation"]
    assert written == pytest.approx(train.std(), rel=1e-5)
    path = tmp_path / "svm/baseline/seed1/svm.skops"
    loaded = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
    assert loaded._gamma == pytest.approx(1 / (4 * written**2), rel=1e-4)
    assert f"deviation of the codes {written:.3g}:" in " ".join(said.split())


def test_softmax_predictions_cover_all_scenes_of_the_network(chain, audio, tags, tmp_path):
    """Even if a scene has no training code, as on small corpora without the last batch."""
    network, metadata = load_scene_network(chain / "scene/baseline/seed1/model.safetensors")
    clips = SceneCorpus(audio, "tau2019", tags, torch.device("cpu")).clips(["test"], None, metadata["scenes"])
    _, logits = codes_and_logits(network, clips)
    wanted = [metadata["scenes"][index] for index in logits.argmax(axis=1)]
    folder = tmp_path / "codes/baseline/seed1"
    shutil.copytree(chain / "codes/baseline/seed1", folder)
    assert Codes.read(folder / "test.npz").softmax_predictions.tolist() == wanted
    train, record = Codes.read(folder / "train.npz"), read_record(folder / "train.npz")
    kept = train.scenes != metadata["scenes"][0]
    Codes(*(values[kept] for values in vars(train).values())).write(folder / "train.npz", record)
    succeed(*svm(tmp_path, "--systems", "baseline"))
    accuracy = scores(tmp_path, "baseline")["softmax"]["scores"]["test"]["accuracy"]
    assert accuracy == scores(chain, "baseline")["softmax"]["scores"]["test"]["accuracy"]
    assert accuracy == np.mean(np.array(wanted) == clips.labels)


def test_tags_only_are_the_tag_vectors(chain, tags):
    codes = Codes.read(chain / "codes/tags_only/seed0/test.npz")
    with np.load(tags / "tau2019_test.npz") as file:
        assert codes.ids.tolist() == file["ids"].tolist()
        assert (codes.codes == file["values"]).all()


def test_a_control_alters_the_tags_of_training_and_codes(audio, tags, tmp_path):
    """The code of codecat ends with the tags that the network was given."""
    names = "codecat@shuffled codecat@constant codecat@within codecat@oracle"
    succeed(*train(audio, tags, tmp_path, "--systems", names, "--training.epochs", 1))
    succeed(*codes(audio, tags, tmp_path, "--systems", names))
    with np.load(tags / "tau2019_test.npz") as file:
        own = file["values"]
    written = {control: Codes.read(tmp_path / f"codes/codecat@{control}/seed1/test.npz") for control in CONTROLS}
    given = {control: codes.codes[:, -own.shape[1] :] for control, codes in written.items()}
    assert (given["constant"] == given["constant"][0]).all()
    assert not (given["shuffled"] == own).all(axis=1).any()
    for scene in set(written["within"].scenes):
        clips = written["within"].scenes == scene
        assert sorted(map(tuple, given["within"][clips])) == sorted(map(tuple, own[clips]))
        assert (given["oracle"][clips] == given["oracle"][clips][0]).all()


def test_an_interrupted_and_resumed_run_has_the_same_codes(chain, audio, tags, tmp_path, monkeypatch):
    method = SceneTrainer.train

    def until(self, epoch):
        if epoch > 1:
            raise KeyboardInterrupt
        return method(self, epoch)

    options = ("--systems", "shared_h4_l3", "--protocol", "both")
    monkeypatch.setattr(SceneTrainer, "train", until)
    assert run(*train(audio, tags, tmp_path, *options)).status == 130
    assert len(list((tmp_path / "scene/shared_h4_l3/seed1/epochs").iterdir())) >= 1
    monkeypatch.setattr(SceneTrainer, "train", method)
    assert "resuming after epoch 1" in succeed(*train(audio, tags, tmp_path, *options))
    succeed(*codes(audio, tags, tmp_path, "--systems", "shared_h4_l3"))
    for split in ("train", "test", "unused"):
        whole, cut = (Codes.read(out / f"codes/shared_h4_l3/seed1/{split}.npz") for out in (chain, tmp_path))
        assert (whole.codes == cut.codes).all()
    papers = [
        json.loads((out / "scene/shared_h4_l3/seed1/test_by_epoch.json").read_text()) for out in (chain, tmp_path)
    ]
    assert papers[0]["epochs"] == papers[1]["epochs"]


def test_a_sweep_continues_after_a_failure(audio, tags, tmp_path):
    (tmp_path / "systems.yaml").write_text("mine:\n  one: {}\n  bad: {heads: 5}\n  two: {concat: code}\n")
    options = ("--systems", "all", "--systems-file", tmp_path / "systems.yaml")
    out = tmp_path / "out"
    trained = run(*train(audio, tags, out, *options))
    assert trained.status == 3
    assert "1 of 3 runs failed: bad.seed1: this system cannot be built on this trunk" in trained.error
    assert str(out / "log/scene/bad.seed1.log") in trained.error
    for step in (codes(audio, tags, out, *options), svm(out, *options)):
        assert run(*step).status == 3
    assert sorted(path.name for path in (out / "svm").iterdir()) == ["one", "tags_only", "two"]
    assert "already trained" in run(*train(audio, tags, out, *options)).said


def test_a_failed_run_does_not_affect_the_papers_protocol_of_others(audio, tags, tmp_path):
    (tmp_path / "systems.yaml").write_text("mine:\n  bad: {heads: 5}\n  last: {}\n")
    options = ("--systems", "all", "--systems-file", tmp_path / "systems.yaml", "--protocol", "both")
    assert run(*train(audio, tags, tmp_path, *options)).status == 3
    assert (tmp_path / "scene/last/seed1/test_by_epoch.json").exists()


def test_a_training_without_the_papers_protocol_cannot_add_it_later(audio, tags, tmp_path):
    succeed(*train(audio, tags, tmp_path, "--systems", "baseline"))
    message = succeed(*train(audio, tags, tmp_path, "--systems", "baseline", "--protocol", "both"))
    assert "baseline/seed1: no scores by the paper's protocol (2 of 2 epochs were trained without it)" in message
    succeed(*train(audio, tags, tmp_path, "--systems", "baseline", "--protocol", "both", "--force"))
    assert (tmp_path / "scene/baseline/seed1/test_by_epoch.json").exists()


def test_the_papers_protocol_trains_on_the_validation_clips_too(chain, audio, tags, tmp_path):
    out = tmp_path / "paper"
    options = ("--systems", "codecat", "--protocol", "paper", "--select-from", chain)
    succeed(*train(audio, tags, out, *options))
    paper = json.loads((out / "scene/codecat/seed1/test_by_epoch.json").read_text())
    assert paper["trained_on"] == "train+validation"
    history = json.loads((out / "scene/codecat/seed1/history.json").read_text())
    assert history["best_epoch"] == 2
    assert "validation_accuracy" not in history["epochs"][0]


def test_the_final_fit_uses_the_selected_epochs_kernel_and_cost(chain, audio, tags, tmp_path):
    out = tmp_path / "final"
    options = ("--systems", "codecat", "--select-from", chain)
    succeed(*train(audio, tags, out, *options, "--protocol", "final"))
    succeed(*codes(audio, tags, out, *options))
    succeed(*svm(out, *options))
    kept = json.loads((chain / "scene/codecat/seed1/history.json").read_text())["best_epoch"]
    assert len(json.loads((out / "scene/codecat/seed1/history.json").read_text())["epochs"]) == kept
    for classifier in ("svm", "svm_standardised"):
        final, selected = scores(out, "codecat")[classifier], scores(chain, "codecat")[classifier]
        assert final["chosen"] == selected["chosen"]
        path = out / f"svm/codecat/seed1/{classifier}.skops"
        loaded = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
        parts = [Codes.read(out / f"codes/codecat/seed1/{split}.npz") for split in ("train", "validation")]
        fitted_on = (loaded if classifier == "svm" else loaded[-1]).shape_fit_[0]
        assert fitted_on == sum(len(codes.ids) for codes in parts)


def test_codes_of_the_released_code_segment(chain, audio, tags, tmp_path):
    shutil.copytree(chain / "scene/codecat", tmp_path / "scene/codecat")
    succeed(*codes(audio, tags, tmp_path, "--systems", "codecat", "--code-segment", "released"))
    whole, released = (
        {split: Codes.read(out / f"codes/codecat/seed1/{split}.npz") for split in ("train", "test")}
        for out in (chain, tmp_path)
    )
    count = len(whole["train"].ids)
    assert len(released["train"].ids) == count // 24 * 24
    assert set(released["train"].ids) <= set(whole["train"].ids)
    assert released["train"].ids.tolist() != whole["train"].ids.tolist()[: len(released["train"].ids)]
    assert released["test"].ids.tolist() == whole["test"].ids.tolist()
    assert not np.array_equal(released["test"].codes, whole["test"].codes)


def test_the_papers_protocol_supports_the_released_code_segment(audio, tags, tmp_path):
    """An SVM on stage 6's codes of the only epoch has the same accuracy."""
    options = ("--systems", "codecat", "--code-segment", "released")
    succeed(*train(audio, tags, tmp_path, *options, "--protocol", "both", "--training.epochs", 1))
    succeed(*codes(audio, tags, tmp_path, *options))
    parts = {split: Codes.read(tmp_path / f"codes/codecat/seed1/{split}.npz") for split in ("train", "test")}
    paper = json.loads((tmp_path / "scene/codecat/seed1/test_by_epoch.json").read_text())
    assert paper["code_segment"] == "released"
    for row in paper["epochs"]:
        classifier = SVC(kernel=row["kernel"], C=1.0, gamma="scale").fit(parts["train"].codes, parts["train"].scenes)
        assert row["test"] == pytest.approx((classifier.predict(parts["test"].codes) == parts["test"].scenes).mean())


def test_codes_of_shuffled_windows_keep_their_scenes(tmp_path):
    """The code of codecat ends with the clip's tags."""
    clips = made_up([AudioStore(packed_noise(tmp_path / "p"), torch.device("cpu"))])
    settings = SceneTraining(batch=6, crop_seconds=9.7)
    trainer = SceneTrainer(settings, TrunkConfig(8, (8,), code_size=4), System("code"), clips, None, 1)
    labelled = _labelled_codes(trainer, clips, True, "released", 1)
    owners = [(clips.tags.numpy() == code[4:]).all(1).nonzero()[0].item() for code in labelled.codes]
    assert sorted(owners) == list(range(12))
    assert owners != sorted(owners)
    assert labelled.scenes.tolist() == clips.scenes[owners].tolist()


def test_tags_on_another_scale_reach_the_network(audio, tags, tmp_path):
    succeed(*train(audio, tags, tmp_path, "--systems", "codecat", "--training.tag_scale", "log"))
    succeed(*codes(audio, tags, tmp_path, "--systems", "codecat"))
    with np.load(tags / "tau2019_test.npz") as file:
        own = file["values"]
    given = Codes.read(tmp_path / "codes/codecat/seed1/test.npz").codes[:, -own.shape[1] :]
    np.testing.assert_allclose(given, np.log(np.clip(own, 1e-6, 1)), rtol=1e-4, atol=1e-5)


def test_the_precision_of_networks_and_codes_is_recorded(audio, tags, tmp_path):
    """float32 codes of a network that was trained in bfloat16 are allowed; another training in its place is not."""
    baseline, values = ("--systems", "baseline"), {}
    with computing_in("auto"):  # restored after the programs have changed it
        succeed(*train(audio, tags, tmp_path, *baseline, "--precision", "bfloat16", epochs=1))
        record = read_json(tmp_path / "scene/baseline/seed1/provenance.json", "")
        assert record["config"]["precision"] == "bfloat16"
        again = run(*train(audio, tags, tmp_path, *baseline, epochs=1))  # on a CPU, auto is float32
        assert "precision was 'bfloat16' and is 'float32'" in again.error
        for precision in ("bfloat16", "float32"):
            succeed(*codes(audio, tags, tmp_path, *baseline, "--precision", precision))
            path = tmp_path / "codes/baseline/seed1/test.npz"
            assert read_record(path)["config"]["precision"] == precision
            values[precision] = Codes.read(path).codes
    difference = np.linalg.norm(values["bfloat16"] - values["float32"]) / np.linalg.norm(values["float32"])
    assert 0 < difference < 0.05


def test_codes_of_another_run_are_refused(audio, tags, chain, tmp_path):
    for seed in (1, 2):
        shutil.copytree(chain / "codes/codecat/seed1", tmp_path / f"codes/codecat/seed{seed}")
    baseline = Codes.read(chain / "codes/baseline/seed1/test.npz")
    baseline.write(tmp_path / "codes/codecat/seed1/test.npz", {"inputs": {"network": "another"}})
    outcome = run(*svm(tmp_path, "--systems", "codecat", "--seeds", "1 2"))
    assert outcome.status == 3
    assert "seed1 holds codes of different networks; run stage 6 (codes) again" in outcome.said
    assert not (tmp_path / "svm/codecat/seed1").exists()


def test_codes_are_refused_with_tags_of_another_tagger(chain, audio, tags, tmp_path):
    shutil.copytree(chain / "scene/codecat", tmp_path / "out/scene/codecat")
    shutil.copytree(tags, tmp_path / "tags")
    path = tmp_path / "tags/tau2019_train.npz"
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **(arrays | {"values": arrays["values"] * 0.5}))
    outcome = run(*codes(audio, tmp_path / "tags", tmp_path / "out", "--systems", "codecat"))
    assert outcome.status == 1
    assert f"was trained on other tags than {path}; train it again (stage 5)" in outcome.error
    assert not (tmp_path / "out/codes/codecat").exists()


def test_clips_of_a_removed_split_are_neither_trained_on_nor_scored(manifests, audio, tags, tmp_path):
    """The outputs of stages 2, 4 and 6 for the removed split still exist."""
    data, packed, given, out = (tmp_path / name for name in ("data", "audio", "tags", "out"))
    shutil.copytree(manifests / "tau2019", data)
    shutil.copytree(audio, packed)
    shutil.copytree(tags, given)
    shutil.copytree(
        packed / "tau2019_unused", packed / "tau2019_events_unused"
    )  # a corpus whose name begins with the other's
    (packed / "tau2019_unused").rename(tmp_path / "elsewhere")
    (packed / "tau2019_unused").symlink_to(tmp_path / "elsewhere")
    options = ("--systems", "codecat")
    steps = [train(packed, given, out, *options), codes(packed, given, out, *options), svm(out, *options)]
    for step in steps:
        succeed(*step)
    assert set(scores(out, "codecat")["svm"]["scores"]) == {"test", "test+unused"}
    (data / "tau2019_cuts_unused.jsonl.gz").unlink()
    lost = run("steps/pack_audio.py", "--manifests", data, "--out", packed)
    assert lost.status != 0
    assert "tau2019_cuts_unused.jsonl.gz is missing; run stage 1 (manifests) again" in lost.said
    assert (packed / "tau2019_unused").exists()
    record = provenance.read(data)  # as stage 1 writes it without the split
    del record["outputs"]["tau2019_cuts_unused.jsonl.gz"]
    write_json(data / provenance.NAME, record)
    message = succeed("steps/pack_audio.py", "--manifests", data, "--out", packed)
    assert "tau2019_unused: removed, since its manifest is gone" in message
    left = {folder.name for folder in audio.iterdir()} - {"tau2019_unused"}
    assert {folder.name for folder in packed.iterdir()} == left | {"tau2019_events_unused"}
    assert (given / "tau2019_unused.npz").exists()
    assert str(out / "codes/codecat/seed1/unused.npz: removed") in "".join(map(str, (succeed(*s) for s in steps)))
    for name, seed in (("codecat", 1), ("tags_only", 0)):
        assert set(scores(out, name, seed)["svm"]["scores"]) == {"test"}
