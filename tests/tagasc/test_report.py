import numpy as np

from tagasc.report import Run, SystemResult, accuracy_table, aligned, best_of, class_table, markdown

SCENES = np.array(["bus", "bus", "park", "park", "tram", "tram", "bus"])
SPLITS = np.array(["test"] * 6 + ["unused"])


def run(seed, named, validation):
    named = np.array(named)
    scores = {}
    for split in ("test", "test+unused"):
        which = np.isin(SPLITS, split.split("+"))
        right = float((named == SCENES)[which].mean())
        scores[split] = {"clips": int(which.sum()), "accuracy": right, "class_averaged": right, "softmax_accuracy": 0.5}
    predictions = {
        "clip": np.arange(7).astype(str), "split": SPLITS, "scene": SCENES, "svm": named,
        "location": np.array(["a", "a", "b", "b", "c", "c", "d"]),
    }  # fmt: skip
    chosen = {"kernel": "rbf", "C": 1.0, "validation_accuracy": validation}
    return Run(seed, scores, chosen, predictions, {"best_epoch": 1, "epochs": [{}]}, 1234567, {})


BASE = SystemResult("baseline", [run(1, ["bus", "park", "park", "bus", "tram", "bus", "bus"], 0.5)])
TAGS = SystemResult(
    "att_h2_l1",
    [
        run(1, ["bus", "bus", "park", "bus", "tram", "tram", "tram"], 0.6),
        run(2, ["bus", "bus", "park", "park", "tram", "tram", "tram"], 0.8),
    ],
)


def test_accuracies_differences_and_seeds():
    header, rows = accuracy_table([BASE, TAGS], "test")
    base, tags = (dict(zip(header[:7], row[:7], strict=True)) for row in rows)
    assert (base["accuracy %"], base["minus baseline"], base["seeds"]) == ("50.0", "", "1")
    assert tags["accuracy %"] == "91.7 ± 11.8"
    assert tags["minus baseline"] == "+41.7"
    assert tags["parameters"] == "1,234,567"


def test_unused_clips_count_only_where_said():
    assert BASE.right("test").sum() == 3
    assert BASE.right("test+unused").sum() == 4


def test_the_best_system_is_chosen_by_validation():
    worse_on_test = SystemResult("codecat", [run(1, ["tram"] * 7, 0.9)])
    assert best_of([BASE, TAGS, worse_on_test]) is worse_on_test


def test_confusions_are_shares_of_the_true_scenes_clips():
    shares = TAGS.confusion("test", ["bus", "park", "tram"])
    assert shares.sum(axis=1).tolist() == [1, 1, 1]
    assert shares[1].tolist() == [0.25, 0.75, 0]


def test_class_table_and_its_spellings():
    table = class_table([BASE, TAGS], "test")
    assert [tuple(row) for row in table[1]] == [
        ("bus", "2", "50.0", "100.0"),
        ("park", "2", "50.0", "75.0"),
        ("tram", "2", "50.0", "100.0"),
    ]
    assert markdown(table).splitlines()[1] == "| :-- | --: | --: | --: |"
    lines = aligned(table).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].startswith("bus ")
