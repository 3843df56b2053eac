"""Accuracy by group: against counts of the predictions, with unseen groups marked and summed apart."""

import csv

import numpy as np
import pytest

from tests.experiments import Fake
from tests.helpers import succeed

DEVICES = ("a", "b", "s1", "s4")
BEST = "att_h4_l2"


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """Two systems with two and one seeds; device s4, on which they are worse, and city milan have no training clip."""
    fake = Fake(tmp_path_factory.mktemp("groups") / "recipe", clips=240, by_location=6)
    everywhere = {"codes": True, "weights": True}
    fake.device = np.array(DEVICES)[np.arange(len(fake.ids)) % 4]
    fake.hard = np.where(fake.device == "s4", 1.0, fake.hard / 2)
    fake.add("baseline", 1, 0.7, 0.6)
    fake.add("baseline", 2, 0.7, 0.6)
    fake.add(BEST, 1, 0.8, 0.8, **everywhere)
    city = lambda number: ("milan", "paris")[number // 6 % 2]
    shared = {"labels": ["bus"], "seconds": 10.0, "content": 5}
    test = [
        {
            **shared,
            "device": fake.device[n],
            "city": city(n),
            "segment": str(n),
            "location": fake.locations[n],
            "only": "x",
        }
        | ({"weather": "rain"} if n else {})
        for n in range(240)
    ]
    fake.write_fields(
        test,
        [{**shared, "device": d, "city": "paris"} for d in ("a", "b")],
        [{**shared, "device": "s1", "city": "paris"}],
    )
    return fake


@pytest.fixture(scope="module")
def page(fake):
    succeed("steps/report.py", *fake.options())
    return fake.report()


def predictions(fake, system, seed):
    path = fake.experiment / f"svm/{system}/seed{seed}/predictions.csv"
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    return np.array([row["svm"] == row["scene"] for row in rows]), np.array([row["scene"] for row in rows])


def table_of(page, title, number=0):
    """Rows of a table in a section, by the first cell."""
    section = page.partition(f"## {title}\n")[2].partition("\n## ")[0]
    tables = [[]]
    for line in section.splitlines():
        if line.startswith("| "):
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif tables[-1]:
            tables.append([])
    header, _, *rows = tables[number]
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def test_each_groups_accuracy_is_that_of_its_clips_over_seeds(fake, page):
    rows = table_of(page, "Accuracy by device")
    assert list(rows) == ["a", "b", "s1", "s4 (unseen)", "all seen", "all unseen"]
    for name, devices in {"a": "a", "s4 (unseen)": "s4", "all seen": ("a", "b", "s1"), "all unseen": "s4"}.items():
        mask = np.isin(fake.device[:240], devices)
        assert rows[name]["clips"] == str(mask.sum())
        assert rows[name]["locations"] == str(len(set(fake.locations[:240][mask])))
        seeds = [100 * predictions(fake, "baseline", seed)[0][mask].mean() for seed in (1, 2)]
        assert rows[name]["baseline %"] == f"{np.mean(seeds):.1f} ± {np.std(seeds, ddof=1):.1f}"
        best = 100 * predictions(fake, BEST, 1)[0][mask].mean()
        assert rows[name][f"{BEST} %"] == f"{best:.1f}"
        assert float(rows[name][f"{BEST} minus baseline"]) == pytest.approx(best - np.mean(seeds), abs=0.051)
        assert " to " in rows[name]["95 % CI (locations)"]
    assert float(rows["s4 (unseen)"][f"{BEST} %"]) < float(rows["all seen"][f"{BEST} %"]) - 20


def test_fields_that_group_clips_are_found_and_others_left_out(page):
    assert "## Accuracy by city\n" in page
    assert list(table_of(page, "Accuracy by city"))[:2] == ["milan (unseen)", "paris"]
    assert page.count("## Accuracy by ") == 3  # and by scene
    for text in ("by segment", "by location", "by only", "by weather"):
        assert text not in page


def test_the_table_of_scenes_and_devices_is_that_of_the_predictions(fake, page):
    rows = table_of(page, "Accuracy by device", 1)
    correct, scenes = predictions(fake, BEST, 1)
    assert list(rows) == [*sorted(fake.scenes), "all scenes"]
    for scene in fake.scenes:
        for device in ("a", "s4"):
            mask = (scenes == scene) & (fake.device[:240] == device)
            title = "s4 (unseen)" if device == "s4" else device
            assert rows[scene][title] == (f"{100 * correct[mask].mean():.1f}" if mask.any() else "")
    assert rows["all scenes"]["all"] == f"{100 * correct.mean():.1f}"


def test_output_csv_has_the_form_of_dcase(fake, page):
    with (fake.folder / "exp/report/output.csv").open(newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t")
    assert header == ["filename", "scene_label", *sorted(fake.scenes)]
    assert [row[0] for row in rows] == [f"audio/{clip}.wav" for clip in fake.ids[:240]]
    for _, label, *values in rows:
        assert sum(map(float, values)) == pytest.approx(1, abs=1e-4)
        assert label == header[2 + int(np.argmax(list(map(float, values))))]
    assert f"The probabilities of {BEST}, seed 1," in page


def test_fields_can_be_named(fake):
    succeed("steps/report.py", *fake.options("--groups", "city only"))
    assert [name for name in ("city", "only", "device") if f"## Accuracy by {name}\n" in fake.report()] == [
        "city",
        "only",
    ]
    succeed("steps/report.py", *fake.options("--groups", "weather"))
    assert "Not shown: no field 'weather' in" in fake.report()
    assert "known are city, device, only: change --groups" in fake.report()


def test_a_report_without_manifests_or_of_other_clips_says_what_is_missing(tmp_path):
    fake = Fake(tmp_path)
    fake.add("baseline", 1)
    succeed("steps/report.py", *fake.options())
    assert "tau2019_cuts_test.jsonl.gz does not exist; run stage 1 (manifests) to create it" in fake.report()
    fake.write_fields([{"device": "a"}] * 10, [], [])
    succeed("steps/report.py", *fake.options())
    assert f"lists no test clip {fake.ids[10]}, which was scored; run stages 1 to 7 again" in fake.report()


def test_the_papers_protocol_is_shown_for_its_corpus_or_where_it_was_run(tmp_path):
    fake = Fake(tmp_path)
    fake.add("baseline", 1)
    succeed("steps/report.py", *fake.options())
    assert fake.report().count("elected on test") > 1
    (fake.tags / "tau2019_test.npz").rename(fake.tags / "tau2020_test.npz")
    succeed("steps/report.py", *fake.options("--corpus", "tau2020"))
    assert "**Selected on test**" not in fake.report()
    assert "selected on test %" not in fake.report()
    fake.add("codecat", 1, paper=True)
    succeed("steps/report.py", *fake.options("--corpus", "tau2020"))
    assert "selected on test %" in fake.report()
