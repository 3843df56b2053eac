"""Stage 1, pseudo-labels, stage 2 and scores of a tagger, end to end on a tiny corpus."""

import json
import shutil

import numpy as np
import pytest
import torch
from sklearn.model_selection import KFold

from tagasc.audio.packed import PackedAudio
from tagasc.report.tagger import tagger_section
from tagasc.tagger.clips import TaggedClips
from tagasc.tagger.inference import load_ensemble, load_tagger, load_tagger_network
from tagasc.tagger.tags import TagVectors
from tagasc.tagger.training import TaggerTrainer
from tagasc.training.weights import read_weights
from tagasc.utils.files import digest, read_json, read_npz
from tests.helpers import TAGGER, run, succeed

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
PROGRAMS = ("train_tagger", "make_pseudo_labels", "train_tagger_semi", "score_tagger")
BOTH = """--stages 2 --training.folds 3 --training.epochs 3 --training.cycle 2 --semi.epochs 2 --semi.noisy_folds 3
    --inference.pads [8,40]"""


@pytest.fixture(scope="module")
def options(audio):
    return ["--audio", audio, *TAGGER, *BOTH.split(), "--folds", "0 1"]


@pytest.fixture(scope="module")
def whole(options, tmp_path_factory):
    """A tagger with both stages on two of three folds, trained without interruption."""
    out = tmp_path_factory.mktemp("whole") / "both"
    train(out, options)
    return out


def train(out, options, *further):
    """Run all four programs; return their output."""
    return "".join(succeed(f"steps/{program}.py", "--out", out, *options, *further) for program in PROGRAMS)


def weights(folder):
    return {str(path.relative_to(folder)): digest(path) for path in folder.rglob("*.safetensors")}


def test_a_tagger_has_snapshots_predictions_and_scores(whole):
    expected = {"model", "snapshot1", "snapshot2"}
    assert {path.stem for path in (whole / "fold0/stage1").glob("*.safetensors")} == expected
    assert {path.stem for path in (whole / "fold1/stage2").glob("*.safetensors")} == expected - {"snapshot2"}
    snapshots = [value for name, value in weights(whole).items() if "snapshot" in name]
    assert len(set(snapshots)) == len(snapshots) == 6  # each of 2 folds: 2 snapshots of stage 1, 1 of stage 2
    metadata = read_json(whole / "tagger.json", "")
    assert [model["weights"] for model in metadata["models"]] == [
        f"fold{k}/stage2/snapshot1.safetensors" for k in (0, 1)
    ]
    scores = read_json(whole / "scores.json", "")
    assert set(scores["lwlrap"]) == {"stage 1", "stage 2"}
    for values in scores["lwlrap"].values():
        assert set(values) == {"out-of-fold", "test", "test Public", "test Private"}
        assert all(0 < value <= 1 for value in values.values())


def test_a_second_run_trains_nothing(whole, options):
    before = weights(whole)
    output = train(whole, options)
    assert output.count("already trained") == 4
    assert output.count("up to date") == 3
    assert weights(whole) == before


def test_predictions_of_a_removed_stage_are_deleted(whole, options, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    predictions = lambda: sorted(path.stem for path in (folder / "predictions").iterdir())
    assert predictions() == ["stage1_out_of_fold", "stage1_test", "stage2_out_of_fold", "stage2_test"]
    output = train(folder, options, "--stages", 1)
    assert output.count("already trained") == 2
    assert predictions() == ["stage1_out_of_fold", "stage1_test"]
    assert set(read_json(folder / "scores.json", "")["lwlrap"]) == {"stage 1"}


@pytest.mark.parametrize("stop", [(1, 2), (2, 1)], ids=["in stage 1", "in stage 2"])
def test_an_interrupted_training_resumes_to_the_same_weights(whole, options, tmp_path, monkeypatch, stop):
    """Interrupt in the middle of an epoch, within a cycle, in either stage."""
    original = TaggerTrainer.train

    def interrupted(self, epoch):
        if (int(self.fold.folder.name[-1]), epoch - 1) == stop:
            next(iter(self.network.parameters())).data.add_(1)
            raise KeyboardInterrupt
        return original(self, epoch)

    monkeypatch.setattr(TaggerTrainer, "train", interrupted)
    programs = PROGRAMS[: 1 if stop[0] == 1 else 3]
    statuses = [run(f"steps/{program}.py", "--out", tmp_path / "x", *options).status for program in programs]
    assert statuses == [0] * (len(programs) - 1) + [130]
    assert not (tmp_path / "x/tagger.json").exists()
    monkeypatch.setattr(TaggerTrainer, "train", original)
    torch.rand(5)
    assert "resuming after epoch" in train(tmp_path / "x", options)
    assert weights(tmp_path / "x") == weights(whole)
    for name in ("fold0/pseudo_labels.npz", "predictions/stage2_test.npz"):
        assert digest(tmp_path / "x" / name) == digest(whole / name)


def test_force_trains_again(whole, options, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path / "x")
    output = train(tmp_path / "x", options, "--force")
    assert "already trained" not in output
    assert "up to date" not in output
    assert weights(tmp_path / "x") == weights(whole)
    monkeypatch.setenv("TAGASC_RUN", "the next run")
    output = succeed("steps/train_tagger_semi.py", "--out", tmp_path / "x", *options, "--force")
    assert output.count("kept epoch") == 2


@pytest.mark.parametrize("part", ["--part=stage1", "--part stage2"])
def test_the_removed_option_part_names_the_programs(part, audio, tmp_path):
    outcome = run("steps/train_tagger.py", "--audio", audio, "--out", tmp_path / "x", *part.split())
    assert outcome.status == 2
    assert all(f"steps/{program}.py" in outcome.error for program in PROGRAMS)


def test_stage_2_without_stage_1_names_the_program_to_run(options, tmp_path):
    outcome = run("steps/train_tagger_semi.py", "--out", tmp_path / "x", *options)
    assert "2 of 2 runs failed" in outcome.error
    assert "snapshot2.safetensors does not exist; run steps/train_tagger.py" in outcome.said


def test_each_fold_tags_its_own_held_out_clips(whole, audio):
    clips = PackedAudio(audio / "fsdkaggle2019_curated")
    split = list(KFold(3, shuffle=True, random_state=42).split(np.arange(len(clips))))
    ids = read_npz(whole / "predictions/stage2_out_of_fold.npz", ("ids",), "")["ids"].tolist()
    assert ids == [clips.ids[n] for fold in (0, 1) for n in split[fold][1]]


def test_pseudo_labels_agree_with_a_reference(whole, audio):
    """The mean over the fold's own snapshots, without pads, squared, divided by the sum over the classes."""
    paths = [whole / f"fold1/stage1/snapshot{n}.safetensors" for n in (1, 2)]
    _, mel, classes = load_tagger_network(paths[0])
    clips = TaggedClips(audio / "fsdkaggle2019_noisy", classes, mel, CPU)
    values = [load_ensemble([path], (0,), CPU).tags(clips, torch.arange(len(clips))) for path in paths]
    squared = np.mean(values, axis=0) ** 2
    labels = TagVectors.read(whole / "fold1/pseudo_labels.npz")
    assert labels.ids == clips.packed.ids
    np.testing.assert_allclose(labels.values, squared / squared.sum(axis=1, keepdims=True), rtol=1e-4)
    other = TagVectors.read(whole / "fold0/pseudo_labels.npz")
    assert np.abs(other.values - labels.values).max() > 1e-3


def test_pseudo_labels_from_all_folds_are_marked_as_leaking(whole, options, tmp_path):
    shutil.copytree(whole, tmp_path / "x", ignore=shutil.ignore_patterns("stage2", "predictions"))
    output = train(tmp_path / "x", options, "--pseudo_labels.models", "all")
    assert output.count("mean over 4 networks") == 2
    values = [TagVectors.read(tmp_path / f"x/fold{k}/pseudo_labels.npz").values for k in (0, 1)]
    np.testing.assert_array_equal(*values)
    scores = read_json(tmp_path / "x/scores.json", "")["lwlrap"]
    assert "out-of-fold (leaks)" in scores["stage 2"]
    assert "out-of-fold" in scores["stage 1"]


def test_the_best_single_model_is_chosen_out_of_fold(whole, options, tmp_path):
    shutil.copytree(whole, tmp_path / "x")
    output = train(tmp_path / "x", options, "--inference.models", "best")
    assert "lwlrap out-of-fold (chosen on these) 0." in " ".join(output.split())
    scores = read_json(tmp_path / "x/scores.json", "")["lwlrap"]
    assert all("out-of-fold (chosen on these)" in values for values in scores.values())
    page = "\n".join(tagger_section(tmp_path / "x", tmp_path, tmp_path))
    assert "| out-of-fold (chosen on these) |" in page
    assert "*chosen on these*: the network" in page
    histories = [read_json(whole / f"fold{k}/stage2/history.json", "") for k in (0, 1)]
    score = [history["epochs"][history["best_epoch"] - 1]["validation_lwlrap"] for history in histories]
    listed = read_json(tmp_path / "x/tagger.json", "")["models"]
    assert [model["weights"] for model in listed] == [f"fold{int(score[1] > score[0])}/stage2/model.safetensors"]


def test_the_best_weights_are_a_snapshot(whole):
    history = read_json(whole / "fold0/stage1/history.json", "")
    assert [row["score"] > 0 for row in history["epochs"]] == [False, True, True]
    best, _ = read_weights(whole / "fold0/stage1/model.safetensors", "")
    snapshot, _ = read_weights(whole / f"fold0/stage1/snapshot{1 + (history['best_epoch'] == 3)}.safetensors", "")
    assert all(torch.equal(best[name], snapshot[name]) for name in best)


def test_stage_2_is_outdated_by_another_stage_1(whole, options, tmp_path):
    shutil.copytree(whole, tmp_path / "x")
    (tmp_path / "x/fold0/stage1/snapshot2.safetensors").write_bytes(
        (tmp_path / "x/fold1/stage1/snapshot2.safetensors").read_bytes()
    )
    outcome = run("steps/train_tagger_semi.py", "--out", tmp_path / "x", *options)
    assert "1 of 2 runs failed" in outcome.error
    assert "fold0/stage2 holds another training (its input" in outcome.said


def test_a_tagger_with_changed_weights_is_refused(whole, audio, tmp_path):
    shutil.copytree(whole, tmp_path / "x")
    (tmp_path / "x/fold0/stage2/snapshot1.safetensors").write_bytes(
        (tmp_path / "x/fold1/stage2/snapshot1.safetensors").read_bytes()
    )
    options = ["--tags-from", tmp_path / "x", "--audio", audio, "--out", tmp_path / "tags"]
    assert "has changed since" in run("steps/extract_tags.py", *options).error


def test_a_joint_pass_changes_the_weights_and_is_recorded(options, whole, tmp_path):
    train(tmp_path / "x", options, "--training.joint_pass", "true")
    assert read_json(tmp_path / "x/scores.json", "")["joint_pass"] is True
    assert read_json(whole / "scores.json", "")["joint_pass"] is False
    assert set(weights(tmp_path / "x").values()).isdisjoint(weights(whole).values())


def test_without_noisy_clips_three_parts_are_skipped_and_logged(options, tmp_path):
    output = train(tmp_path / "x", options, "--noisy", "false")
    assert "noisy head skipped: no noisy clips" in output
    assert "pseudo-labels skipped: no noisy clips" in output
    assert "stage 2 skipped: no noisy clips" in output
    assert set(read_json(tmp_path / "x/scores.json", "")["lwlrap"]) == {"stage 1"}


def test_tags_of_a_clip_do_not_depend_on_the_other_clips(whole, audio):
    ensemble = load_tagger(whole, CPU)
    clips = TaggedClips(audio / "fsdkaggle2019_test", ensemble.classes, ensemble.mel, CPU)
    together = ensemble.tags(clips, torch.arange(len(clips)))
    assert len(set(clips.frames.tolist())) > 5
    for number in (0, 7, 20):
        np.testing.assert_allclose(ensemble.tags(clips, torch.tensor([number]))[0], together[number], atol=1e-5)


def test_left_out_clips_are_not_trained_on(options, audio, tmp_path):
    clips = PackedAudio(audio / "fsdkaggle2019_curated")
    one_fold = [*options, "--stages", 1, "--folds", "0"]
    excluded = clips.ids[int(next(KFold(3, shuffle=True, random_state=42).split(np.arange(len(clips))))[0][0])]
    for name, ids in (("with", []), ("without", [excluded])):
        succeed("steps/train_tagger.py", "--out", tmp_path / name, *one_fold, "--training.leave_out", json.dumps(ids))
    assert weights(tmp_path / "with") != weights(tmp_path / "without")
