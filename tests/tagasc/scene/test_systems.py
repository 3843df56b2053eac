import json
import subprocess
import sys
from pathlib import Path

import pytest

from tagasc.scene.experiment import best_on_validation
from tagasc.scene.systems import System, SystemVariant, read_systems, select
from tagasc.utils.errors import UserError
from tests.helpers import ROOT

TABLES = read_systems(ROOT / "egs/systems.yaml")


def pick(*names, experiment=None):
    return select(TABLES, names, Path("systems.yaml"), experiment)


def train(experiment, name, *accuracies):
    """Write the history of a training for each seed; the kept epoch has the given accuracy."""
    for seed, accuracy in enumerate(accuracies, 1):
        folder = experiment / f"scene/{name}/seed{seed}"
        folder.mkdir(parents=True)
        curve = enumerate((0.1, accuracy), 1)
        epochs = [{"epoch": epoch, "loss": 1.0, "validation_accuracy": value} for epoch, value in curve]
        (folder / "history.json").write_text(json.dumps({"parameters": 1, "best_epoch": 2, "epochs": epochs}))


def test_all_tables_and_single_names_each_once():
    assert len(pick("all")) == 56
    assert list(pick("table2", "codecat", "att_h2_l1"))[-2:] == ["beforecode_l5", "att_h2_l1"]
    assert pick("codecat") == {"codecat": SystemVariant(System(concat="code"))}


def test_a_control_is_the_system_with_altered_tags():
    assert pick("att_h2_l1@within") == {
        "att_h2_l1@within": SystemVariant(System(heads=2, attention_layers=1), "within")
    }


def test_a_control_without_a_system_alters_the_best_tag_system_on_validation(tmp_path):
    train(tmp_path, "baseline", 0.9)  # uses no tags
    train(tmp_path, "codecat", 0.5, 0.7)
    train(tmp_path, "att_h2_l1", 0.8, 0.3)
    train(tmp_path, "codecat@oracle", 1.0)  # a control is never chosen
    assert list(pick("@shuffled", experiment=tmp_path)) == ["codecat@shuffled"]
    assert best_on_validation(tmp_path, list(pick("all"))) == "baseline"
    assert best_on_validation(tmp_path / "empty", list(pick("all"))) is None


def test_of_equal_systems_the_earlier_one_is_best(tmp_path):
    train(tmp_path, "att_h2_l1", 0.5)
    train(tmp_path, "codecat", 0.5)
    assert best_on_validation(tmp_path, ["codecat", "att_h2_l1"]) == "codecat"


@pytest.mark.parametrize("name", ["att_h3", "baseline@shuffled", "nothing@shuffled", "codecat@mixed", "@shuffled"])
def test_unknown_systems_and_controls_are_refused(name, tmp_path):
    with pytest.raises(UserError):
        pick(name, experiment=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"t: {a: {heads: 2}, b: {}, a: {heads: 4}}", "duplicate key 'a' in .* line 1, column 27"),
        (b"t:\n  a: {}\nt:\n  b: {}\n", "duplicate key 't' in .* line 3"),
        (b"t: {a: {heads: 2, heads: 4}}", "duplicate key 'heads'"),
        (b"t: [", "is not valid YAML"),
        ("t: {forêt: {}}".encode("latin-1"), "is not valid YAML: 'utf-8' codec"),
    ],
)
def test_invalid_yaml_and_duplicate_names_are_refused(tmp_path, content, message):
    path = tmp_path / "systems.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_systems(path)
    assert str(caught.value).startswith(f"{path} is not valid YAML")


def test_records_may_be_merged(tmp_path):
    path = tmp_path / "systems.yaml"
    path.write_text("t:\n  a: &a {heads: 2}\n  b: {<<: *a, heads: 4}\n")
    assert [system.heads for system in read_systems(path)["t"].values()] == [2, 4]


def test_an_empty_selection_is_refused():
    with pytest.raises(UserError, match="--systems is empty; use all, table2"):
        pick()


def test_systems_and_experiment_do_not_import_torch():
    """Names are checked before stage 0, and torch takes seconds to import."""
    code = "import sys, tagasc.scene.systems, tagasc.scene.experiment; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
