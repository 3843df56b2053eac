from pathlib import Path

import pytest

from tagasc.scene.experiment import FITS, RunPaths, log_folder, parse_seeds, runs, scored_runs, started_runs
from tagasc.utils.errors import UserError


def test_the_layout_of_an_experiment():
    run = RunPaths(Path("exp"), "att_h2_l1@within", 2)
    assert run.weights == Path("exp/scene/att_h2_l1@within/seed2/model.safetensors")
    assert run.history == Path("exp/scene/att_h2_l1@within/seed2/history.json")
    assert run.codes_of("test") == Path("exp/codes/att_h2_l1@within/seed2/test.npz")
    assert run.scores == Path("exp/svm/att_h2_l1@within/seed2/scores.json")
    assert run.predictions == Path("exp/svm/att_h2_l1@within/seed2/predictions.csv")
    assert [run.of_fit(fit).experiment for fit in FITS] == [Path("exp"), Path("exp/paper"), Path("exp/final")]
    assert log_folder(Path("exp"), "svm") == Path("exp/log/svm")


def test_runs_are_every_system_with_every_seed():
    assert runs(Path("exp"), ["a", "b"], "2 1")[1:3] == [RunPaths(Path("exp"), "a", 1), RunPaths(Path("exp"), "b", 2)]


def test_seeds_are_whole_numbers_without_duplicates():
    assert parse_seeds("1 2 10 2") == [1, 2, 10]
    for seeds in ("1,2", "x", "", "-1"):
        with pytest.raises(UserError, match="--seeds"):
            parse_seeds(seeds)


def test_runs_are_found_by_system_and_number(tmp_path):
    for folder in (
        "scene/b/seed1",
        "scene/a/seed10",
        "scene/a/seed9",
        "svm/a/seed9",
        "svm/a/seed10",
        "scene/a/seedling",
    ):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "svm/a/seed9/scores.json").touch()
    assert [run.name for run in started_runs(tmp_path)] == ["a.seed9", "a.seed10", "b.seed1"]
    assert [run.name for run in scored_runs(tmp_path)] == ["a.seed9"]
