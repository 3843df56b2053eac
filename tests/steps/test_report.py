import json
import re
import shutil
import subprocess
from html import escape

import numpy as np
import pytest

from tagasc.backend.codes import Codes
from tagasc.report import figures
from tagasc.report.results import read_results
from tagasc.scene.controls import CONTROLS
from tagasc.utils.cli import to_json
from tagasc.utils.files import digest, write_npz
from tests.experiments import RECORD, Fake
from tests.helpers import ROOT, run, succeed

FIGURES = ("accuracies", "heads_layers", "confusions", "curves", "scene_tags", "attention", "codes")
BEST = "att_h4_l2"  # best on validation


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Four systems, one with two seeds, with controls and a final fit."""
    fake = Fake(tmp_path_factory.mktemp("small"))
    everywhere = {"codes": True, "weights": True}
    fake.add("baseline", 1, 0.6, 0.6, paper=True, final=True, **everywhere)
    fake.add("baseline", 2, 0.6, 0.6, paper=True, final=True)
    fake.add("codecat", 1, 0.9, 0.5)
    fake.add(BEST, 1, 0.62, 0.8, paper="paper", **everywhere)
    fake.add("shared_h4_l3", 1, 0.7, 0.7)
    for control in CONTROLS:
        fake.add(f"shared_h4_l3@{control}", 1, 0.95, 0.99)
    fake.add("tags_only", 0, 0.5)
    return fake


@pytest.fixture(scope="module")
def reported(small):
    output = succeed("steps/report.py", *small.options("--note", "Synthetic corpus: made up."))
    return small.report(), (small.folder / "exp/report/RESULTS.html").read_text(encoding="utf-8"), output


@pytest.fixture
def copy(small, tmp_path):
    """A copy of the same folder, to be changed."""
    shutil.copytree(small.folder, tmp_path / "recipe")
    return Fake(tmp_path / "recipe")


def test_validation_selects_the_best_system_among_those_that_are_not_controls(reported):
    page, _, _ = reported
    assert f"best system on validation, {BEST}, reaches" in page
    assert f"baseline and {BEST} (the best on validation)" in page
    assert "4 of 56 systems were run." in page


def test_the_papers_tables_are_complete_and_mark_cells_not_run(reported):
    page, _, _ = reported
    for title in ("Table 2:", "Table 3:", "Table 4:", "Table 5:", "Table 6:"):
        assert f"### {title}" in page
    tables = page[page.index("### Table 2") : page.index("Heads × layers")]
    assert tables.count("not run") == 56 - 4 + 4  # and the four rows of Table 6 that are quoted
    assert "not comparable with ours" in page
    assert "*76.75*" in page


def test_accuracies_of_the_papers_protocol_name_their_training_clips(reported):
    page, _, _ = reported
    header = next(line for line in page.splitlines() if line.startswith("| system | parameters | seeds"))
    row = dict(zip(header.split(" | "), _row(page, "### test (", BEST).split(" | "), strict=True))
    assert row["selected on test %"] == "63.3"  # 62 % + 1 (kernel) + 0.3 (epoch 3)
    assert row["trained on"] == "train+validation"
    row = dict(zip(header.split(" | "), _row(page, "### test (", "baseline").split(" | "), strict=True))
    assert row["trained on"] == "train"
    assert row["final fit %"]
    assert "### test+unused (72 clips)" in page


def test_controls_are_labelled_and_excluded_from_holms_correction(reported):
    page, _, _ = reported
    for name in ("within", "oracle"):
        for line in (line for line in page.splitlines() if line.startswith(f"| shared_h4_l3@{name} ")):
            assert "true label" in line
    family = page[page.index("### Differences") : page.index("## Controls")]
    assert "@" not in family
    assert "tags_only" not in family
    assert "covers all 3 systems" in family
    pattern = (
        r"shared_h4_l3 minus shared_h4_l3@shuffled: .* points .*: (no )?significant .*fewer than three shared seeds"
    )
    assert re.search(pattern, page)


def test_the_best_of_several_systems_with_controls_is_shown(tmp_path):
    """The best system overall has no controls here."""
    fake = Fake(tmp_path)
    names = list(fake.records)
    older, newer, best = "codecat", "shared_h4_l3", names[-1]
    assert names.index(older) < names.index(newer) < names.index(best)
    for name, validation in (("baseline", 0.5), (older, 0.6), (newer, 0.7), (best, 0.8)):
        fake.add(name, 1, 0.7, validation)
    for name in (older, newer):
        fake.add(f"{name}@shuffled", 1, 0.6, 0.9)
    succeed("steps/report.py", *fake.options())
    section = fake.report().partition("## Controls")[2].partition("## Accuracy by scene")[0]
    assert f"{newer} minus {newer}@shuffled" in section
    assert older not in section


def test_the_html_file_embeds_every_table_and_figure(reported):
    page, html, _ = reported
    tables = sum(line.startswith("| :--") for line in page.splitlines())
    assert html.count("<table>") == tables > 10
    assert html.count("<img ") == page.count("![") == len(FIGURES)
    for reference in re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', html):
        assert reference.startswith("data:image/png;base64,")


@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_is_written_and_shown(small, reported, name):
    assert (small.folder / f"exp/report/{name}.png").stat().st_size > 8000
    assert f"({name}.png)" in reported[0]


def test_every_figure_of_a_synthetic_corpus_has_a_watermark(tmp_path, monkeypatch):
    fake, watermarks = Fake(tmp_path, clips=16), {}
    fake.add("baseline", 1, 0.7)
    history = {"epochs": [{"epoch": 1, "loss": 0.5, "validation_lwlrap": 0.5, "score": 0.5}], "best_epoch": 1}
    scores = {"lwlrap": {"stage 1": {"test": 0.5}}, "networks": 1, "parameters": 9, "joint_pass": False}
    (fake.tagger / "fold0/stage1").mkdir(parents=True)
    for name, value in (("tagger.json", {}), ("scores.json", scores), ("fold0/stage1/history.json", history)):
        (fake.tagger / name).write_text(json.dumps(value))
    save = figures.save_figure

    def record(figure, path, watermark=""):
        watermarks[path.stem] = watermark
        save(figure, path, watermark)

    monkeypatch.setattr(figures, "save_figure", record)
    succeed("steps/report.py", *fake.options("--note", "Synthetic corpus."))
    assert {"accuracies", "confusions", "curves", "tagger"} <= watermarks.keys()
    assert set(watermarks.values()) == {"synthetic"}


def test_the_terminal_shows_a_short_table_what_it_means_and_the_note(reported):
    page, _, output = reported
    said = " ".join(output.split())
    assert f"The best system on validation, {BEST}, reaches" in said
    assert f"The best system {said.split('The best system ')[1].split(' Synthetic corpus')[0]}" in page
    assert "shared_h4_l3@oracle (uses the true label)" in output
    assert "Synthetic corpus" in output


def test_the_table_on_the_terminal_says_how_many_systems_it_omits(tmp_path):
    fake = Fake(tmp_path, clips=16)
    for name in list(fake.records)[:23]:
        fake.add(name, 1, 0.7, 0.7)
    fake.add("baseline", 1, 0.7, 0.1)
    output = succeed("steps/report.py", *fake.options())
    assert "3 more systems are in the report" in output
    assert "\nbaseline" in output


@pytest.mark.parametrize(("by_location", "locations"), [(15, 4), (7, 9), (6, 10)])
def test_the_report_says_how_many_locations_it_rests_on(tmp_path, by_location, locations):
    fake = Fake(tmp_path, by_location=by_location)
    fake.add("baseline", 1, 0.2, 0.5)
    fake.add("codecat", 1, 1.1, 0.9)  # right on every clip
    fake.add("codecat@shuffled", 1, 0.2, 0.5)
    output = succeed("steps/report.py", *fake.options())
    page = fake.report()
    assert f"The 60 test clips are from {locations} locations." in page
    enough = locations >= 10
    assert ("without at least 10 there are no" in page) == (not enough)
    over_locations, over_clips = _row(page, "### Differences", "codecat").split("|")[3:5]
    assert (" to +" in over_locations, " to +" in over_clips, " to +" in output) == (enough, True, enough)
    assert page.count(": significant gain") == enough
    assert page.count(f"no significant gain can be claimed from {locations} locations") == (not enough)
    assert f"Significantly better than the baseline: {int(enough)} of" in page or "Significantly" not in page


def test_if_the_baseline_is_the_best_it_is_compared_with_the_best_of_the_others(tmp_path):
    fake = Fake(tmp_path)
    for name, validation in (("baseline", 0.9), ("codecat", 0.5), ("codecat_fc", 0.7)):
        fake.add(name, 1, 0.7, validation)
    fake.add("codecat@oracle", 1, 1.0, 0.99)
    succeed("steps/report.py", *fake.options())
    assert "The best system on validation is the baseline itself" in fake.report()
    assert "baseline and codecat_fc (the best of the others on validation)" in fake.report()


def test_names_of_scenes_and_clips_are_escaped(tmp_path):
    script = "<script>alert(1)</script>"
    fake = Fake(tmp_path, scenes=(script, "a|b", "bus", "park"))
    fake.add("baseline", 1)
    fake.add(BEST, 1, weights=True)
    tags = tmp_path / "dump/tags/tiny/tau2019_test.npz"
    arrays = dict(np.load(tags))
    write_npz(tags, {}, ids=arrays["ids"][:4], classes=arrays["classes"], values=arrays["values"][:4])
    succeed("steps/report.py", *fake.options())
    page, html = fake.report(), (tmp_path / "exp/report/RESULTS.html").read_text(encoding="utf-8")
    assert "Not shown: " in page  # names a clip without tags
    assert "<script" not in page + html
    assert f">{escape(script)}</td>" in html
    header = next(line for line in page.splitlines() if line.startswith("| scene | clips |"))
    assert _row(page, "## Accuracy by scene", "a&#124;b").count("|") == header.count("|")


def test_a_dollar_in_a_name_is_text(tmp_path):
    fake = Fake(tmp_path, scenes=(r"$\frac{a}$", "$5 shop", "a$b$c", r"$\nothing$"))
    fake.add("baseline", 1)
    fake.add(BEST, 1, weights=True)
    tags = tmp_path / "dump/tags/tiny/tau2019_test.npz"
    arrays = dict(np.load(tags))
    classes = np.array([rf"$\frac{{{name}}}$" for name in arrays["classes"]])
    write_npz(tags, {}, ids=arrays["ids"], classes=classes, values=arrays["values"])
    succeed("steps/report.py", *fake.options())
    assert {"confusions.png", "scene_tags.png"} <= {path.name for path in (tmp_path / "exp/report").iterdir()}


def test_nothing_that_a_record_or_a_folder_says_becomes_part_of_the_page(copy):
    script = "<script>alert(1)</script>"
    hostile = {
        "config": {script: 1, "value": script, "precision": script},
        "date": script,
        "commit": script,
        "versions": {script: script},
        "machine": {"system": script, "processors": script},
    }
    record = copy.experiment / "scene/baseline/seed1/provenance.json"
    record.write_text(json.dumps(RECORD | hostile))
    folder = script.replace("/", "")
    for kind in ("scene", "svm", "codes"):
        shutil.copytree(copy.experiment / kind / BEST, copy.experiment / kind / f"{BEST}{folder}")
    (copy.experiment / "scene" / f"unscored{folder}" / "seed1").mkdir(parents=True)
    journal = copy.folder / "exp/log/commands"
    journal.parent.mkdir(parents=True)
    journal.write_text(f"./run.sh\n```\n{script}\n")
    succeed("steps/report.py", *copy.options("--note", script, "--tagger", copy.tagger.parent / folder))
    page = (copy.folder / "exp/report/RESULTS.html").read_text(encoding="utf-8")
    assert page.count(escape(script)) >= 9
    assert f"precision of the networks in training: {escape(script)}" in page
    assert "<script" not in page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_runs_no_script_of_a_report(copy, tmp_path):
    attack = '"><img src=x onerror="document.title=`owned`"><svg onload="document.title=`owned`">'
    attack += "<script>document.title=`owned`</script>"
    record = copy.experiment / "scene/baseline/seed1/provenance.json"
    record.write_text(json.dumps(RECORD | {"config": {attack: attack}, "date": attack, "versions": {attack: attack}}))
    succeed("steps/report.py", *copy.options("--note", attack))
    page = copy.folder / "exp/report/RESULTS.html"
    assert "owned" not in _title(page, tmp_path)
    text = page.read_text(encoding="utf-8")
    policy = "Content-Security-Policy"
    assert policy in text
    page.write_text(text.replace("</body>", f"{attack}</body>") if "</body>" in text else text + attack)
    assert "owned" not in _title(page, tmp_path)  # by the policy, where nothing is escaped
    page.write_text(page.read_text().replace(policy, "X-None"))
    assert _title(page, tmp_path) == "owned"  # the browser does run scripts


def _title(page, profile):
    options = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}/browser", "--dump-dom")
    command = ["chromium", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return re.search("<title>(.*?)</title>", done.stdout, re.DOTALL)[1]


def test_the_report_names_missing_tags_weights_and_codes(tmp_path):
    fake = Fake(tmp_path)
    fake.add("att_h2_l0", 1)
    (fake.tags / "tau2019_test.npz").unlink()
    succeed("steps/report.py", *fake.options())
    page = fake.report()
    for file, stage in (
        ("tau2019_test.npz", "4 (tags)"),
        ("model.safetensors", "5 (scenes)"),
        ("test.npz", "6 (codes)"),
    ):
        assert f"{file} does not exist; run stage {stage} to create it" in page
    assert "The baseline was not run" in page
    assert "no control was run" in page


OLD_SCORES = {"classifiers": {"svm": {"chosen": {"kernel": "rbf"}, "scores": {"test": {"accuracy": 0.5}}}}}


@pytest.mark.parametrize(
    ("folder", "damage", "message"),
    [
        ("svm", lambda text: json.dumps(OLD_SCORES), "scores.json has an older format; run stage 7 (svm) again"),
        ("svm", lambda text: text[:-30], "predictions.csv is incomplete; run stage 7 (svm) again"),
        (
            "svm",
            lambda text: text.replace("location", "place", 1),
            "predictions.csv is incomplete; run stage 7 (svm) again",
        ),
    ],
)
def test_a_damaged_result_is_an_error_that_names_file_and_remedy(copy, folder, damage, message):
    path = copy.experiment / folder / "codecat/seed1" / message.split()[0]
    path.write_text(damage(path.read_text() if path.exists() else ""))
    outcome = run("steps/report.py", *copy.options())
    assert outcome.status == 1
    assert f"codecat/seed1/{message}" in outcome.error


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("history.json", "has no readable learning curves"),
        ("test_by_epoch.json", "the report does without"),
    ],
)
def test_lost_curves_do_not_cost_the_report(copy, name, warning):
    (copy.experiment / "scene/codecat/seed1" / name).write_text('{"epochs": []}')
    said = succeed("steps/report.py", *copy.options())
    assert f"codecat/seed1{'/' + name if name.startswith('test') else ''}" in said
    assert warning in said
    assert "codecat" in copy.report()


def test_outdated_and_unfinished_results_are_listed(copy):
    def depend(folder, **inputs):
        path = copy.experiment / folder / "baseline/seed1/provenance.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"inputs": inputs}))

    for split in ("train", "test"):  # packed audio
        path = copy.folder / f"dump/audio/tau2019_{split}/index.json"
        path.parent.mkdir(parents=True)
        path.write_text("[]")
    same = digest(path)
    depend("scene", **{"audio train": same, "audio test": same, "something else": "0"})
    depend("svm", test="another")
    depend("final/svm", test="another")
    (copy.experiment / "scene/codecat/seed7").mkdir()
    succeed("steps/report.py", *copy.options())
    page = copy.report()
    for title in ("scores of baseline, seed 1: its input test", "scores of baseline, seed 1 (final): its input test"):
        assert f"- {title} has changed" in page
    assert "network of baseline" not in page
    assert "failed or are unfinished: codecat/seed7." in page
    depend("scene", **{"audio train": "another"})
    succeed("steps/report.py", *copy.options())
    assert "network of baseline, seed 1: its input audio train has changed" in copy.report()


def test_systems_edited_after_training_are_listed(copy, tmp_path):
    for kind, name in (("scene", "codecat"), ("final/scene", "baseline"), ("scene", "shared_h4_l3@shuffled")):
        path = copy.experiment / kind / name / "seed1/provenance.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        config = {"system": to_json(copy.records[name.partition("@")[0]])}
        path.write_text(json.dumps(RECORD | {"config": config}), encoding="utf-8")
    succeed("steps/report.py", *copy.options())
    assert "Outdated" not in copy.report()
    systems = tmp_path / "systems.yaml"
    text = (ROOT / "egs/systems.yaml").read_text(encoding="utf-8")
    for old, new in (
        ("codecat: {concat: code}", "codecat: {concat: code_fc}"),
        ("baseline: {}", "baseline: {concat: code}"),
        (
            "concat_layers: 3, heads: 4, attention_layers: 3, shared",
            "concat_layers: 3, heads: 2, attention_layers: 3, shared",
        ),
    ):
        text = text.replace(old, new)
    systems.write_text(text, encoding="utf-8")
    succeed("steps/report.py", *copy.options("--systems_file", systems))
    for text in (
        "codecat, seed 1: concat was code, is code_fc",
        "baseline, seed 1 (final): concat was none, is code",
        "shared_h4_l3@shuffled, seed 1: heads was 4, is 2",
    ):
        assert f"- network of {text} in {systems}" in copy.report()
    assert copy.report().count("- network of") == 3


MIXED = "Not all results were made with the same settings"


def _configure(fake, kind, run, **config):
    path = fake.experiment / kind / run / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config": config}))


def test_deviating_settings_are_announced_at_the_top_and_listed_below(copy):
    for name, control in (
        ("baseline/seed1", None),
        (f"{BEST}/seed1", None),
        ("shared_h4_l3@shuffled/seed1", "shuffled"),
    ):
        system, seed = name.split("/")
        training = {"epochs": 16, "learning_rate": 1e-4}
        config = {"system": {"heads": len(system)}, "control": control, "seed": int(seed[4:]), "training": training}
        _configure(copy, "scene", name, **config, epochs=16, trained_on="train")
        _configure(copy, "svm", name, svm={"costs": [1, 10]})
    # Choices that the final fit takes from validation do not count as settings.
    (copy.experiment / "final/scene/baseline/seed1").mkdir(parents=True)
    shutil.copy(
        copy.experiment / "scene/baseline/seed1/provenance.json", copy.experiment / "final/scene/baseline/seed1"
    )
    _configure(
        copy, "final/scene", "baseline/seed1", training=training, seed=1, epochs=9, trained_on="train+validation"
    )
    _configure(copy, "final/svm", "baseline/seed1", svm={"kernel": "rbf", "C": 1})
    _configure(copy, "final/svm", "baseline/seed2", svm={"kernel": "sigmoid", "C": 10})
    output = succeed("steps/report.py", *copy.options())
    assert MIXED not in copy.report() + output
    _configure(copy, "scene", "baseline/seed2", seed=2, epochs=90, training={"epochs": 90, "learning_rate": 2e-4})
    _configure(copy, "svm", "baseline/seed2", svm={"costs": [1]})
    output = succeed("steps/report.py", *copy.options())
    page = copy.report()
    assert MIXED in page[: page.index("systems were run.")]
    assert MIXED in output
    made = page[page.index("## How this was made") :]
    settings = "training.epochs is 90 (most: 16), training.learning_rate is 0.0002 (most: 0.0001)"
    assert f"- network of baseline, seed 2: {settings}\n" in made
    assert "- scores of baseline, seed 2: svm.costs is [1] (most: [1, 10])\n" in made
    assert made.count("(most: ") == 3


def test_codes_of_another_segment_are_listed(copy):
    path = copy.folder / "dump/audio/tau2019_test/index.json"
    path.parent.mkdir(parents=True)
    path.write_text("[]")
    for name, segment in (("baseline", "whole"), (BEST, "released")):
        path = copy.experiment / f"codes/{name}/seed1/test.npz"
        Codes.read(path).write(path, RECORD | {"config": {"code_segment": segment}})
    succeed("steps/report.py", *copy.options())
    assert f"test codes of {BEST}, seed 1: code_segment is released (others: whole)" in copy.report()


def test_tags_alone_are_not_enough_for_a_report(tmp_path):
    fake = Fake(tmp_path)
    fake.add("tags_only", 0)
    assert "run stages 5 to 7" in run("steps/report.py", *fake.options()).error


def test_runs_scored_on_other_clips_are_left_out(copy):
    path = copy.experiment / "svm/baseline/seed2/predictions.csv"
    path.write_text(path.read_text().replace("clip-00000", "clip-99999"))
    names = {result.name: result.seeds for result in read_results(copy.experiment, ["baseline", "codecat"])}
    assert names["baseline"] == [1]
    assert list(names)[:2] == ["baseline", "codecat"]
    assert list(names)[-5:] == [*(f"shared_h4_l3@{control}" for control in CONTROLS), "tags_only"]


def _row(page, heading, name):
    section = page[page.index(heading) :]
    return next(line for line in section.splitlines() if line.startswith(f"| {name} "))
