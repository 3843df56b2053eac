from pathlib import Path

import numpy as np
import pytest

from tagasc.report.comparison import Comparison, Difference, accuracy_intervals, compute_differences
from tagasc.report.markdown import aligned, markdown_table
from tagasc.report.results import ScoredClips, ScoredRun, SystemResult
from tagasc.report.sections import verdict
from tagasc.report.tables import (
    accuracy_table,
    chosen_table,
    control_table,
    difference_table,
    distinctive_events,
    scene_table,
    top_systems,
)
from tagasc.scene.experiment import RunPaths

CLIPS = ScoredClips(
    np.arange(7).astype(str),
    np.array(["test"] * 6 + ["unused"]),
    np.array(["bus", "bus", "park", "park", "tram", "tram", "bus"]),
    np.array(["a", "a", "b", "b", "c", "c", "d"]),
)


def run(seed, predictions, validation, paper=None, final=None):
    predictions, scores = np.array(predictions), {}
    for split in ("test", "test+unused"):
        correct = float((predictions == CLIPS.scenes)[CLIPS.in_split(split)].mean())
        scores[split] = {"clips": int(CLIPS.in_split(split).sum()), "accuracy": correct, "class_averaged": correct}
    chosen = {"kernel": "rbf", "C": 1.0, "validation_accuracy": 0.1}
    classifiers = {"svm": {"chosen": chosen, "scores": scores}, "softmax": {"scores": scores}}
    epochs = [{"epoch": 1, "loss": 1.0, "validation_accuracy": validation}]
    history = {"best_epoch": 1, "epochs": epochs, "parameters": 1234567}
    return ScoredRun(
        RunPaths(Path("exp"), "system", seed),
        classifiers,
        {"svm": CLIPS.indices_of(predictions)},
        history,
        {},
        paper,
        final,
    )


def system(name, *runs):
    return SystemResult(name, CLIPS, list(runs))


BASE = system("baseline", run(1, ["bus", "park", "park", "bus", "tram", "bus", "bus"], 0.5))
TAGS = system(
    "att_h2_l1",
    run(1, ["bus", "bus", "park", "bus", "tram", "tram", "tram"], 0.6),
    run(2, ["bus", "bus", "park", "park", "tram", "tram", "tram"], 0.8),
)
ORACLE = system("att_h2_l1@oracle", run(1, CLIPS.scenes, 1.0))


def rows_of(table):
    header, rows = table
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_accuracies_are_means_and_deviations_over_seeds():
    results = [BASE, TAGS]
    base, tags = rows_of(accuracy_table(results, "test", accuracy_intervals(results, "test")))
    assert (base["SVM %"], base["seeds"], base["validation %"]) == ("50.0", "1", "50.0")
    assert tags["SVM %"] == "91.7 ± 11.8"
    assert tags["validation %"] == "70.0 ± 14.1"
    assert tags["parameters"] == "1,234,567"
    assert "final fit %" not in tags  # empty for all systems
    assert "SVM, standardised codes %" not in tags
    assert tags["selected on test %"] == "not run"


def test_the_papers_protocol_takes_the_best_epoch_and_kernel_of_each_seed():
    epochs = [{"epoch": 1, "kernel": "rbf", "test": 0.5}, {"epoch": 2, "kernel": "sigmoid", "test": 0.7}]
    first = run(1, CLIPS.scenes, 0.5, {"trained_on": "train", "epochs": epochs})
    second = run(2, CLIPS.scenes, 0.5, {"trained_on": "train", "epochs": [{"epoch": 1, "kernel": "rbf", "test": 0.6}]})
    result = system("codecat", first, second)
    row = rows_of(accuracy_table([result], "test", accuracy_intervals([result], "test")))[0]
    assert row["selected on test %"] == "65.0 ± 7.1"
    assert row["trained on"] == "train"
    row = rows_of(accuracy_table([result], "test+unused", accuracy_intervals([result], "test+unused")))[0]
    assert row["selected on test %"] == "not run"


def test_the_final_fit_has_its_own_column():
    final = {"svm": {"scores": {"test": {"accuracy": 0.75}}}}
    result = system("codecat", run(1, CLIPS.scenes, 0.5, final=final))
    assert rows_of(accuracy_table([result], "test", accuracy_intervals([result], "test")))[0]["final fit %"] == "75.0"


def test_differences_intervals_and_p_values():
    differences = compute_differences([BASE, TAGS, ORACLE], BASE, "test")
    assert set(differences) == {"att_h2_l1", "att_h2_l1@oracle"}
    assert differences["att_h2_l1"].mean == pytest.approx(2.5 / 6)
    assert difference(interval=(0.02, 0.2)).negated().by_location == (-0.2, -0.02)
    # Three locations with differences of 1, 0.5 and 1 clips: two of 8 permutations are as extreme.
    assert differences["att_h2_l1"].p == pytest.approx(2 / 8)
    # With the shared seed 1, the system recognises two clips that the baseline misses, and misses none.
    assert differences["att_h2_l1"].mcnemar_p == pytest.approx(2 / 4)
    table = rows_of(difference_table(differences, ["att_h2_l1"], {"att_h2_l1": 0.5}))
    assert [row["system"] for row in table] == ["att_h2_l1"]
    assert (table[0]["p (permutation)"], table[0]["p (Holm)"]) == ("0.2500", "0.5000")


def difference(locations=10, interval=(0.02, 0.2), p=0.01, seed_deviation=None):
    return Difference(0.1, locations, interval, (0.05, 0.15), p, None, seed_deviation)


def test_verdicts_state_significance_and_the_deviation_over_seeds():
    certain = difference(seed_deviation=0.096)
    assert verdict(certain, "gain", "loss") == "significant gain (standard deviation over seeds: 9.6 points)"
    assert verdict(certain.negated(), "gain", "loss") == "significant loss (standard deviation over seeds: 9.6 points)"
    once = "(fewer than three shared seeds; another seed may reverse it)"
    assert verdict(difference(), "gain", "loss") == f"significant gain {once}"
    assert verdict(difference(interval=(-0.01, 0.2)), "gain", "loss") == f"no significant gain {once}"
    assert verdict(difference(p=0.06), "gain", "loss") == f"no significant gain {once}"


def test_no_verdict_is_given_on_a_few_locations():
    unknown = (np.nan, np.nan)
    assert verdict(difference(9, unknown), "gain", "loss") == "no significant gain can be claimed from 9 locations"
    assert verdict(difference(1, unknown).negated(), "help", "harm").endswith(
        "no significant help can be claimed from 1 location"
    )
    counted = compute_differences([BASE, TAGS], BASE, "test")["att_h2_l1"]
    assert counted.locations == 3
    assert not counted.significant


def test_the_deviation_over_seeds_is_of_the_difference():
    wrong, correct = ["park", "park", "bus", "bus", "bus", "bus", "bus"], CLIPS.scenes.tolist()
    base, tags = (
        system(name, *(run(seed, predictions, 0.5) for seed in (1, 2, 3)))
        for name, predictions in (("baseline", wrong), ("codecat", correct))
    )
    tags.runs[0] = run(1, [*correct[:3], "bus", *correct[4:]], 0.5)  # one clip of six less
    certain = compute_differences([base, tags], base, "test")["codecat"]
    assert certain.seed_deviation == pytest.approx(np.std([5 / 6, 1, 1], ddof=1))
    del base.runs[2]
    assert compute_differences([base, tags], base, "test")["codecat"].seed_deviation is None


def test_holms_correction_covers_the_systems_of_all_tables(tmp_path):
    third = system("codecat", *TAGS.runs)  # Table 2; att_h2_l1 is in Table 3, and controls are excluded
    comparison = Comparison(tmp_path, [BASE, TAGS, third, ORACLE], {}, TAGS, tmp_path, tmp_path)
    assert comparison.holms_p == {"att_h2_l1": pytest.approx(0.5), "codecat": pytest.approx(0.5)}
    assert Comparison(tmp_path, [BASE], {}, BASE, tmp_path, tmp_path).holms_p == {}


def test_unused_clips_count_only_in_test_plus_unused():
    assert BASE.accuracy_by_clip("test").sum() == 3
    assert BASE.accuracy_by_clip("test+unused").sum() == 4


def test_controls_are_never_ranked_and_warn_of_the_true_label():
    assert not ORACLE.is_ranked
    assert not system("tags_only", *TAGS.runs).is_ranked
    assert not system("att_h2_l1@shuffled", *TAGS.runs).is_ranked
    assert BASE.is_ranked
    assert ORACLE.title == "att_h2_l1@oracle (uses the true label)"
    assert system("x@within").uses_the_label
    assert not system("x@shuffled").uses_the_label
    assert [result.name for result in top_systems([BASE, TAGS, ORACLE], 2)] == ["baseline", "att_h2_l1"]


def test_controls_are_compared_with_baseline_and_system():
    results = [BASE, TAGS, ORACLE]
    to_baseline, to_system = (compute_differences(results, base, "test") for base in (BASE, TAGS))
    rows = {row["system"]: row for row in rows_of(unique(control_table(results, TAGS, "test", to_baseline, to_system)))}
    assert rows["att_h2_l1@shuffled"]["SVM %"] == "not run"
    assert "true label" in rows["att_h2_l1@oracle"]["its tags"]
    assert rows["att_h2_l1@oracle"]["minus baseline"] == "+50.0"
    assert rows["att_h2_l1@oracle"]["att_h2_l1 minus it"] == "-8.3"


def unique(table):
    header, rows = table
    return [f"{title} {n}" if header.index(title) < n else title for n, title in enumerate(header)], rows


def test_confusions_are_shares_of_the_true_scenes_clips():
    shares = TAGS.confusion_shares("test")
    assert shares.sum(axis=1).tolist() == [1, 1, 1]
    assert shares[1].tolist() == [0.25, 0.75, 0]


def test_scene_table_as_markdown_and_as_text():
    table = scene_table([BASE, TAGS], "test")
    assert [tuple(row[:5]) for row in table[1]] == [
        ("bus", "2", "50.0", "100.0", "+50.0"),
        ("park", "2", "50.0", "75.0", "+25.0"),
        ("tram", "2", "50.0", "100.0", "+50.0"),
    ]
    assert (
        markdown_table(table).splitlines()[1] == "| :-- | --: | --: | --: | --: | :-- |"
    )  # one location per scene, so no interval
    lines = aligned(table).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].startswith("bus ")


def test_chosen_table_has_one_row_per_run():
    assert [row[:6] for row in chosen_table([TAGS])[1]] == [
        ("att_h2_l1", "1", "1 of 1", "rbf", "1", "-"),
        ("att_h2_l1", "2", "1 of 1", "rbf", "1", "-"),
    ]
    TAGS.runs[0].classifiers["svm"]["code_deviation"] = 0.68765
    header, (row, _) = chosen_table([TAGS])
    del TAGS.runs[0].classifiers["svm"]["code_deviation"]
    assert dict(zip(header, row, strict=True))["deviation of the codes"] == "0.688"


def test_the_event_added_to_a_scene_is_its_most_distinctive():
    scenes = np.arange(60) % 3
    values = np.random.default_rng(0).random((60, 4)) + np.eye(3, 4)[scenes]
    _, rows = distinctive_events(values, ["a", "b", "c", "d"], scenes, ["x", "y", "z"])
    assert [row[1][0] for row in rows] == ["a", "b", "c"]
    within, others = values[scenes == 0, 0].mean(), values[scenes != 0, 0].mean()
    assert f"({within:.3f}, others {others:.3f})" in rows[0][1]
