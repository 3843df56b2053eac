"""Taggers compared on made-up results: tables against an independent computation, choice, verdicts, foreign text."""

import json
import re
import shutil

import numpy as np
import pytest

from tagasc.report.results import read_results
from tagasc.study.ears import read_ears
from tagasc.study.events import cases, events_page
from tagasc.study.taggers import choice, figures_table, systems_table, taggers_section
from tests.experiments import RECORD, Fake
from tests.helpers import succeed

ORDER = ["baseline", "codecat", "att_h2_l1"]
SCALES = ("probability", "log", "logit")


def fake(folder, name, tags="", **options):
    """Made-up experiment exp/table1-<name> with tags of its own; its clips are those of every other."""
    made = Fake(folder, **options)
    made.experiment, made.tags = folder / f"exp/table1-{name}", folder / f"dump/tags/{tags or name}"
    made.random = np.random.default_rng(len(name))
    made.write_tags()
    return made


def add(made, **accuracies):
    """Add three seeds of each system; its validation accuracy goes down as its test accuracy goes up."""
    for name, accuracy in accuracies.items():
        for seed in (0,) if name == "tags_only" else (1, 2, 3):
            made.add(name.replace("__", "@"), seed, accuracy, 1 - accuracy)


def read(made):
    return read_ears(made.experiment, made.tags, "tau2019", read_results(made.experiment, ORDER), ORDER)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Taggers tiny, other and other with logarithms; only tiny has a baseline."""
    folder = tmp_path_factory.mktemp("three")
    first, second, third = fake(folder, "tiny"), fake(folder, "other"), fake(folder, "other-log", "other")
    add(first, baseline=0.5, codecat=0.6, tags_only=0.4)
    add(second, codecat=0.8, att_h2_l1=0.7, tags_only=0.5)
    add(third, codecat=0.7)
    add(fake(folder, "without-tags", "gone"), codecat=0.9)
    (folder / "dump/tags/gone/tau2019_test.npz").unlink()
    return first


def by_clip(folder, name, system):
    """Share of seeds that recognise each test clip, read from the files alone."""
    correct = []
    for path in sorted((folder / f"exp/table1-{name}/svm/{system}").glob("seed*/predictions.csv")):
        rows = [line.split(",") for line in path.read_text().splitlines()]
        test, scene, svm = (rows[0].index(column) for column in ("split", "scene", "svm"))
        correct.append([row[scene] == row[svm] for row in rows[1:] if row[test] == "test"])
    return np.array(correct, float)


def test_the_table_of_systems_by_tagger_agrees_with_an_independent_computation(three):
    ears = read(three)
    assert [ear.name for ear in ears] == ["tiny", "other", "other-log"]
    header, rows = systems_table(ears, ears[0].by_name["baseline"])
    assert header[5] == "minus baseline"
    assert header[7] == "minus tiny"
    titles = [row[:2] for row in rows]
    assert titles == [("baseline", ""), *(("codecat", ear.name) for ear in ears), ("att_h2_l1", "other"),
                      ("tags_only", "tiny"), ("tags_only", "other")]  # fmt: skip
    locations = np.arange(60) // 4
    drawn = np.random.default_rng(7).integers(15, size=(4000, 15))
    for system, tagger, seeds, accuracy, *rest in rows[1:]:
        own = by_clip(three.folder, tagger, system)
        spread = f" ± {100 * own.mean(axis=1).std(ddof=1):.1f}" if len(own) > 1 else ""
        assert (seeds, accuracy) == (str(len(own)), f"{100 * own.mean():.1f}{spread}")
        bases = [("tiny", "baseline"), None if tagger == "tiny" or system == "att_h2_l1" else ("tiny", system)]
        for base, mean, interval in zip(bases, rest[1:5:2], rest[2:5:2], strict=True):
            if base is None:
                assert (mean, interval) == ("", "")
                continue
            gap = own.mean(axis=0) - by_clip(three.folder, *base).mean(axis=0)
            assert float(mean) == pytest.approx(100 * gap.mean(), abs=0.051)
            means = np.array([gap[locations == n].mean() for n in range(15)])[drawn].mean(axis=1)
            wanted = 100 * np.percentile(means, [2.5, 97.5])
            assert [float(bound) for bound in interval.split(" to ")] == pytest.approx(wanted, abs=1.5)


def test_validation_chooses_the_tagger_whatever_the_test_clips_say(three):
    """Here the validation accuracy is highest where that on test is lowest."""
    assert re.match(r"Validation chooses \*\*tiny\*\*, with codecat: 40\.0 ± 0\.0 %", choice(read(three)))


def test_the_report_compares_and_answers(three):
    said = succeed("steps/report.py", *three.options())
    page = three.report()
    section = page.partition("\n## Comparison of taggers\n")[2].partition("\n## ")[0]
    assert section.count("| codecat |") == 3
    assert "The baseline uses no tags; it is that of tiny." in section
    assert not (three.folder / "exp/report/EVENTS.md").exists()  # no controls
    assert "Do the events help" not in said


def test_figures_of_a_tagger_are_those_that_stage_4_wrote(tmp_path):
    made = fake(tmp_path, "tiny")
    add(made, baseline=0.5, codecat=0.6)
    assert "rate, Hz" not in figures_table(read(made))[0]
    source = {"kind": "onnx", "source": "ced", "sampling_rate": 16000, "parameters": None, "audio_seconds": 4000.0}
    source |= {"seconds": 8, "lengths": {"repeated": 3, "whole": 57}, "clips": 60}
    (made.tags / "source.json").write_text(json.dumps(source))
    (made.tags / "scores.json").write_text(json.dumps({"lwlrap": {"test": 0.6894}}))
    ears = read(made)
    header, rows = figures_table(ears)
    row = dict(zip(header, rows[0], strict=True))
    assert row == {"tagger": "tiny", "source": "onnx ced", "values": "8 events", "taken as": "probability",
                   "rate, Hz": "16,000", "audio s per s": "500", "lwlrap on scene clips": "test 0.689"}  # fmt: skip
    assert "- tiny: lengths: repeated 3, whole 57" in "\n".join(taggers_section(ears))
    for damaged in ("", "[1]", '{"sampling_rate": [1], "seconds": "x", "audio_seconds": {}}', "{"):
        (made.tags / "source.json").write_text(damaged)
        assert "rate, Hz" not in figures_table(read(made))[0]


def test_foreign_text_is_escaped_and_outdated_results_are_named(tmp_path):
    evil = "<script>alert(1)</script>|[x](http://y)"
    made = fake(tmp_path, "tiny")
    add(made, baseline=0.5, codecat=0.9, codecat__shuffled=0.5, codecat__constant=0.5)
    other = fake(tmp_path, "<b>|ears")
    add(other, codecat=0.9, codecat__shuffled=0.5, codecat__constant=0.5)
    index = tmp_path / "dump/audio/tau2019_test/index.json"
    index.parent.mkdir(parents=True)
    index.write_text("{}")
    record = RECORD | {"inputs": {"audio test": "0" * 64}}  # the audio was packed again since
    (other.experiment / "scene/codecat/seed2/provenance.json").write_text(json.dumps(record))
    (made.tags / "source.json").write_text(json.dumps({"kind": evil, evil: [evil], "window": {evil: evil}}))
    succeed("steps/report.py", *made.options("--note", "Synthetic."))
    for name in ("RESULTS", "EVENTS"):
        page = (tmp_path / f"exp/report/{name}.md").read_text(encoding="utf-8")
        html = (tmp_path / f"exp/report/{name}.html").read_text(encoding="utf-8")
        assert "ears" in page
        assert "alert" in page
        assert "ears: network of codecat, seed 2: its input audio test has changed" in page
        assert not re.search(r"<script|<b>|\]\(http", page)
        assert not re.search(r"<script|<b>|href=", html)
        assert "**Synthetic.**" in page


def test_an_experiment_scored_on_other_clips_is_left_out(three, tmp_path):
    made = fake(tmp_path, "tiny")
    add(made, baseline=0.5, codecat=0.6)
    add(fake(tmp_path, "other", clips=64), codecat=0.7)
    assert [ear.name for ear in read(made)] == ["tiny"]


def test_other_settings_are_named(tmp_path):
    for name, epochs, scale in (("tiny", 36, "log"), ("other", 20, "probability")):
        made = fake(tmp_path, name)
        add(made, baseline=0.5, codecat=0.6)
        for path in made.experiment.glob("scene/*/seed*/provenance.json"):
            config = {"training": {"epochs": epochs, "tag_scale": scale}}
            path.write_text(json.dumps(RECORD | {"config": config}))
    first = Fake(tmp_path)
    section = "\n".join(taggers_section(read(first)))
    assert "- other: training.epochs is 20, not 36\n" in section
    assert "Outdated" not in section
    assert "tag_scale is" not in section


@pytest.mark.parametrize(
    ("system", "controls", "verdict"),
    [
        (0.95, (0.5, 0.5), "the events help"),
        (0.95, (0.95, 0.95), "only the extra inputs help"),
        (0.5, (0.5, 0.5), "open"),
        (0.95, (0.5, 0.95), "open"),
        (0.3, (0.9, 0.9), "harm"),
    ],
)
def test_the_verdict_follows_from_the_differences(tmp_path, system, controls, verdict):
    made = fake(tmp_path, "tiny", clips=120)
    shuffled, constant = controls
    add(made, baseline=0.5, codecat=system, codecat__shuffled=shuffled, codecat__constant=constant, codecat__oracle=1.0)
    (case,) = cases(read(made))
    assert case.verdict == verdict
    page = "\n".join(events_page(read(made), "T", [], tmp_path / "none"))
    assert f"Of 1 combinations of tagger, scale and system: {verdict} in 1 (tiny, codecat)." in page
    assert "| codecat@within | tags of another clip of the same scene; **uses the true label** |  | not run |" in page


def test_p_of_the_events_is_corrected_for_all_tests_on_the_page(tmp_path):
    for name in ("tiny", "other"):
        add(fake(tmp_path, name), baseline=0.5, codecat=0.6, codecat__shuffled=0.55, codecat__constant=0.56)
    few = "With fewer than 3 seeds"
    page = lambda: "\n".join(events_page(read(Fake(tmp_path)), "T", [], tmp_path / "none"))
    assert few not in page()
    every = cases(read(Fake(tmp_path)))
    tests = [test for case in every for test in case.events.values()]
    assert len(tests) == 4
    smallest = min(tests, key=lambda test: test.difference.p)
    assert smallest.p == pytest.approx(min(1, 4 * smallest.difference.p))
    shutil.rmtree(tmp_path / "exp/table1-other/svm/codecat/seed2")
    assert few in page()
