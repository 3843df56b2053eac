"""A whole recipe end to end, through run.sh, on a corpus of seconds; in a folder with spaces and accents in its name."""

import re
import shutil

import numpy as np
import pytest

from tagasc.audio.packed import PackedAudio, packed_splits
from tests.helpers import Recipe


def test_every_log_has_the_memory_used(finished):
    logs = list((finished.folder / "exp/log").glob("[0-8].*.log"))
    assert len(logs) >= 9
    for log in logs:
        assert re.search(r": at most [\d.]+ GB of memory", log.read_text()), log


def test_a_bare_run_ends_with_a_report(finished):
    report = (finished.folder / "exp/report/RESULTS.md").read_text()
    for name in ("baseline", "shared_h4_l3", "Synthetic", "lwlrap", "scene clips, test", "test+unused", "torch 2."):
        assert name in report
    assert not re.search("Outdated|other settings", report)
    for picture in ("accuracies", "confusions", "curves", "tagger"):
        assert (finished.folder / f"exp/report/{picture}.png").stat().st_size > 5000
    assert list((finished.folder / "exp/table1-tiny/scene/baseline/seed1/tensorboard").iterdir())


@pytest.mark.slow
def test_a_second_run_redoes_nothing(finished):
    before = finished.digests()
    changed = {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*.safetensors")}
    status, output = finished.run()
    assert status == 0, output
    assert output.count("already trained") == 3  # the tagger and two networks
    assert finished.digests() == before
    assert {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*.safetensors")} == changed


@pytest.mark.slow
def test_the_same_command_elsewhere_gives_the_same_results(finished, tmp_path):
    other = Recipe(tmp_path / "other")
    shutil.copytree(finished.folder / "conf", other.folder / "conf")
    shutil.copy(finished.folder / "recipe.sh", other.folder)
    status, output = other.run("--stop-stage", 7)
    assert status == 0, output
    # Manifests hold paths, and what is made from them their hashes; the audio, weights and predictions must agree.
    results = [name for name in finished.digests() if not name.startswith("exp/bundle/")]  # other tests may export it
    wanted = [name for name in results if name.endswith((".safetensors", ".npy", "predictions.csv"))]
    assert len(wanted) == 4 + 7 + 3  # the tagger has a snapshot beside its best weights
    assert {name: other.digests()[name] for name in wanted} == {name: finished.digests()[name] for name in wanted}


@pytest.mark.slow
def test_every_fit_and_a_control_are_in_the_report(finished, tmp_path):
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder)
    options = ("--protocol", "paper", "--final-fit", "all", "--controls", "@shuffled")
    status, output = recipe.run("--stage", 5, *options)
    assert status == 0, output
    experiment = recipe.folder / "exp/table1-tiny"
    for name in ("baseline", "shared_h4_l3", "shared_h4_l3@shuffled"):
        for place in (f"paper/scene/{name}/seed1/test_by_epoch.json", f"final/svm/{name}/seed1/scores.json"):
            assert (experiment / place).exists(), place
    report = (recipe.folder / "exp/report/RESULTS.md").read_text()
    for words in ("train+validation", "final fit", "shared_h4_l3@shuffled", "tags of another clip"):
        assert words in report
    assert not re.search("Outdated|other settings", report)
    status, output = recipe.run("--stage", 5, *options)
    assert status == 0, output
    assert "kept epoch" not in output  # nothing is trained again


@pytest.mark.slow
def test_on_the_cpu_processes_share_the_list_of_runs(finished, tmp_path):
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder, ignore=shutil.ignore_patterns("scene", "codes", "svm"))
    status, output = recipe.run("--stage", 5, "--stop-stage", 5, "--nj", 2, "--seeds", "1 2")
    assert status == 0, output
    logs = [(recipe.folder / f"exp/log/5.scenes.{number}.log").read_text() for number in (0, 1)]
    assert sum(log.count("kept epoch") for log in logs) == 4  # each run once
    assert len(list((recipe.folder / "exp/table1-tiny/scene").glob("*/seed*/model.safetensors"))) == 4


@pytest.mark.slow
def test_two_taggers_are_compared_one_of_them_an_embedding(finished, tmp_path):
    recipe = Recipe(tmp_path / "copy")
    shutil.copytree(finished.folder, recipe.folder)
    splits = packed_splits(recipe.folder / "dump/audio", "tau2019").values()
    ids = [clip for folder in splits for clip in PackedAudio(folder).ids]
    values = np.random.default_rng(0).normal(5, 3, (len(ids), 4))
    arrays = {
        "classes": np.array([f"value {n + 1}" for n in range(4)]),
        "values": values,
        "kind": np.array("embedding"),
    }
    np.savez(tmp_path / "ears.npz", ids=np.array(ids), **arrays)
    systems = "baseline codecat codecat@shuffled codecat@constant"
    options = ("--taggers", f"tiny ears={tmp_path}/ears.npz", "--tag-scale", "probability", "--protocol", "ours")
    status, output = recipe.run("--stage", 4, *options, "--systems", systems)
    assert status == 0, output
    trained = {path.name for path in recipe.folder.glob("exp/table1-ears-probability/scene/*")}
    assert trained == set(systems.split()) - {"baseline"}
    page = (recipe.folder / "exp/report/RESULTS.md").read_text()
    section = page.partition("\n## Comparison of taggers\n")[2].partition("\n## ")[0]
    assert "| shared_h4_l3 | tiny |" in section  # the bare run's experiment
    for name in ("tiny-probability", "ears-probability"):
        assert f"| codecat | {name} |" in section
    assert "embedding, standardised" in section
    assert "it is that of tiny-probability" in section
    events = (recipe.folder / "exp/report/EVENTS.md").read_text()
    for name in ("tiny-probability", "ears-probability"):
        assert f"## {name}, codecat\n" in events
    assert "Of 2 combinations" in events
    assert "Synthetic corpus" in events
    status, output = recipe.run("--stage", 4, *options, "--systems", systems)
    assert status == 0, output
    assert output.count("already trained") == 7
