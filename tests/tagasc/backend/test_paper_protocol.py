import json

import numpy as np
import pytest
from sklearn.svm import SVC

from tagasc.backend.paper_protocol import EpochScorer, LabelledCodes
from tagasc.utils.errors import UserError
from tagasc.utils.files import write_npz


def labelled(random, count):
    scenes = np.arange(count) % 3
    return LabelledCodes((np.eye(3)[scenes] + 0.7 * random.normal(size=(count, 3))).astype(np.float32), scenes)


@pytest.fixture
def epochs():
    """Codes of three epochs."""
    random = np.random.default_rng(0)
    return {
        epoch: {"train": labelled(random, 60), "test": labelled(random, 30), "unused": labelled(random, 9)}
        for epoch in (1, 2, 3)
    }


RECORD = {"step": "score_epochs", "config": {"trained_on": "train", "C": 1.0}, "inputs": {"audio test": "a"}}
OTHER = RECORD | {"inputs": {"audio test": "b"}}


def must_not_be_called():
    raise AssertionError("this epoch is queued or scored already")


def score(folder, epochs, codes, record=RECORD, ends=True):
    """Train for ``epochs`` epochs and score those in ``codes``; then finish, or stop as if interrupted."""
    with EpochScorer(1) as scorer, scorer.score(folder, epochs, record) as add:
        for epoch, parts in codes.items():
            add(epoch, parts if callable(parts) else lambda parts=parts: parts)
        if ends:
            (folder / "model.safetensors").touch()


def paper(folder):
    return json.loads((folder / "test_by_epoch.json").read_text())


def test_every_epoch_and_kernel_is_scored_on_both_test_sets(tmp_path, epochs):
    score(tmp_path, 3, epochs)
    scores = paper(tmp_path)
    assert (scores["trained_on"], scores["C"], scores["provenance"]) == ("train", 1.0, RECORD)
    assert [(row["epoch"], row["kernel"]) for row in scores["epochs"]] == [
        (epoch, kernel) for epoch in (1, 2, 3) for kernel in ("rbf", "sigmoid")
    ]
    for row in scores["epochs"]:
        parts = epochs[row["epoch"]]
        svm = SVC(kernel=row["kernel"], C=1.0, gamma="scale").fit(parts["train"].codes, parts["train"].scenes)
        correct = {part: (svm.predict(parts[part].codes) == parts[part].scenes) for part in ("test", "unused")}
        assert row["test"] == correct["test"].mean()
        assert row["code_deviation"] == pytest.approx(parts["train"].codes.std(), rel=1e-5)
        assert svm._gamma == pytest.approx(1 / (3 * row["code_deviation"] ** 2), rel=1e-4)
        assert row["test+unused"] == (correct["test"].sum() + correct["unused"].sum()) / 39
    assert not (tmp_path / "epochs").exists()


def test_an_interrupted_run_resumes_its_queue(tmp_path, epochs):
    score(tmp_path, 3, {1: epochs[1]}, ends=False)
    assert not (tmp_path / "test_by_epoch.json").exists()
    assert (tmp_path / "epochs/001.json").exists()
    arrays = {f"{part}_{kind}": value for part, codes in epochs[2].items() for kind, value in vars(codes).items()}
    write_npz(tmp_path / "epochs/002.npz", {}, **arrays)  # cut before it was scored
    score(tmp_path, 3, {1: must_not_be_called, 2: must_not_be_called, 3: epochs[3]})
    assert [row["epoch"] for row in paper(tmp_path)["epochs"]] == [1, 1, 2, 2, 3, 3]


def test_a_queue_of_other_clips_is_not_resumed(tmp_path, epochs, caplog):
    score(tmp_path, 3, {1: epochs[1]}, ends=False)
    score(tmp_path, 3, {2: epochs[2], 3: epochs[3]}, record=OTHER)
    assert not (tmp_path / "test_by_epoch.json").exists()
    assert "(1 of 3 epochs were trained without it); --force" in caplog.text


def test_a_training_with_unscored_epochs_has_no_scores(tmp_path, epochs, caplog):
    score(tmp_path, 3, {2: epochs[2], 3: epochs[3]})
    assert "(1 of 3 epochs were trained without it); --force trains it again" in caplog.text
    caplog.clear()
    score(tmp_path, 3, {})  # trained already
    assert "(3 of 3 epochs were trained without it)" in caplog.text
    assert not (tmp_path / "test_by_epoch.json").exists()


def test_scores_on_other_clips_are_logged_as_outdated(tmp_path, epochs, caplog):
    score(tmp_path, 1, {1: epochs[1]})
    score(tmp_path, 1, {})
    assert not caplog.text
    score(tmp_path, 1, {}, record=OTHER)
    assert "(its input audio test has changed since); --force" in caplog.text


def test_a_failed_training_does_not_affect_the_next(tmp_path, epochs):
    """No SVM can be fitted on NaN; the next training is scored."""
    bad = {part: LabelledCodes(codes.codes * np.nan, codes.scenes) for part, codes in epochs[1].items()}
    with EpochScorer(1) as scorer:
        with (
            pytest.raises(UserError, match="bad: no SVM could be fitted on the codes of epoch 1"),
            scorer.score(tmp_path / "bad", 1, RECORD) as add,
        ):
            add(1, lambda: bad)
        with scorer.score(tmp_path / "good", 1, RECORD) as add:
            add(1, lambda: epochs[1])
            (tmp_path / "good/model.safetensors").touch()
        assert paper(tmp_path / "good")
