import json

import numpy as np
import pytest
from sklearn.svm import SVC

from tagasc.paper_protocol import EpochScoring, Labelled
from tagasc.tags import write_npz


def labelled(random, count):
    scenes = np.arange(count) % 3
    return Labelled((np.eye(3)[scenes] + 0.7 * random.normal(size=(count, 3))).astype(np.float32), scenes)


@pytest.fixture
def epochs():
    """Codes of three epochs."""
    random = np.random.default_rng(0)
    return {
        epoch: {"train": labelled(random, 60), "test": labelled(random, 30), "unused": labelled(random, 9)}
        for epoch in (1, 2, 3)
    }


def finished(folder):
    """Say that the training has ended, as the weights do."""
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").touch()


def test_every_epoch_and_kernel_is_scored_on_both_test_sets(tmp_path, epochs):
    with EpochScoring(1) as scoring:
        scoring.begin(tmp_path, "train")
        for epoch, codes in epochs.items():
            scoring.add(epoch, lambda codes=codes: codes)
        finished(tmp_path)
    found = json.loads((tmp_path / "paper.json").read_text())
    assert (found["trained_on"], found["C"]) == ("train", 1.0)
    assert [(row["epoch"], row["kernel"]) for row in found["epochs"]] == [
        (epoch, kernel) for epoch in (1, 2, 3) for kernel in ("rbf", "sigmoid")
    ]
    for row in found["epochs"]:
        parts = epochs[row["epoch"]]
        svm = SVC(kernel=row["kernel"], C=1.0, gamma="scale").fit(parts["train"].codes, parts["train"].scenes)
        right = {part: (svm.predict(parts[part].codes) == parts[part].scenes) for part in ("test", "unused")}
        assert row["test"] == right["test"].mean()
        assert row["test+unused"] == (right["test"].sum() + right["unused"].sum()) / 39
    assert not (tmp_path / "epochs").exists()


def test_what_a_cut_run_left_is_taken_up_and_not_computed_again(tmp_path, epochs):
    def must_not_be_called():
        raise AssertionError("this epoch's codes are known")

    with EpochScoring(1) as scoring:  # a training that is cut: no weights
        scoring.begin(tmp_path, "train")
        scoring.add(1, lambda: epochs[1])
    assert not (tmp_path / "paper.json").exists()
    assert (tmp_path / "epochs/001.json").exists()
    arrays = {f"{part}_{kind}": value for part, of in epochs[2].items() for kind, value in vars(of).items()}
    write_npz(tmp_path / "epochs/002.npz", {}, **arrays)  # cut before it was scored
    with EpochScoring(1) as scoring:
        scoring.begin(tmp_path, "train")
        scoring.add(1, must_not_be_called)
        scoring.add(2, must_not_be_called)
        scoring.add(3, lambda: epochs[3])
        finished(tmp_path)
    rows = json.loads((tmp_path / "paper.json").read_text())["epochs"]
    assert [row["epoch"] for row in rows] == [1, 1, 2, 2, 3, 3]


def test_one_trainings_codes_at_a_time_wait_on_disk(tmp_path, epochs):
    with EpochScoring(1) as scoring:
        for name in ("one", "two"):
            scoring.begin(tmp_path / name, "train")
            assert not list(tmp_path.rglob("*.npz"))
            scoring.add(1, lambda: epochs[1])
            finished(tmp_path / name)
    assert not list(tmp_path.rglob("*.npz"))
    assert len(list(tmp_path.rglob("paper.json"))) == 2
