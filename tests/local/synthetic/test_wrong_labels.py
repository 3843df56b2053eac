import csv

import numpy as np
import pytest
import soundfile

from tests.helpers import run, succeed

PROGRAM = "local/synthetic/wrong_labels.py"
CLASSES = ("bell", "dog", "rain")


@pytest.fixture
def sounds(tmp_path):
    """Twelve recordings each of three classes in five groups; a fourth class is in one group only."""
    for number, name in enumerate((*CLASSES, "rare")):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for take in range(12):
            group = 1 if name == "rare" else take % 5 + 1
            wave = 0.1 * np.sin(0.05 * (number + 1) * np.arange(3000))
            soundfile.write(tmp_path / f"sounds/{name}/{group}-{take}-A.wav", wave, 8000)
    return tmp_path / "sounds"


def rows(out, part):
    with (out / f"FSDKaggle2019.meta/{part}_post_competition.csv").open() as file:
        return {row["fname"]: row["labels"] for row in csv.DictReader(file)}


def test_parts_have_disjoint_groups_and_only_noisy_labels_are_wrong(sounds, tmp_path):
    message = succeed(PROGRAM, sounds, tmp_path / "out", "--label-noise", 0.5, "--sampling-rate", 16000)
    assert "rare is left out" in message
    labels_of = {part: rows(tmp_path / "out", part) for part in ("train_curated", "train_noisy", "test")}
    groups = {part: {name.split("-")[1] for name in labels} for part, labels in labels_of.items()}
    assert groups == {"train_curated": {"1", "2"}, "train_noisy": {"3", "4"}, "test": {"5"}}
    wrong = {
        part: sum(label != name.split("-")[0] for name, label in labels.items()) for part, labels in labels_of.items()
    }
    assert wrong["train_curated"] == wrong["test"] == 0
    assert 0 < wrong["train_noisy"] < len(labels_of["train_noisy"])
    assert {label for labels in labels_of.values() for label in labels.values()} == set(CLASSES)
    for part, labels in labels_of.items():
        for name in labels:
            assert soundfile.info(tmp_path / f"out/FSDKaggle2019.audio_{part}/{name}").frames == 6000


def test_the_corpus_is_readable_by_fsdkaggle2019_and_built_once(sounds, tmp_path):
    command = (PROGRAM, sounds, tmp_path / "out", "--sampling-rate", 8000)
    succeed(*command)
    message = succeed(
        "local/fsdkaggle2019.py", tmp_path / "out", tmp_path / "data", "--sampling-rate", 8000, "--allow-partial"
    )
    assert "curated: 18 clips" in message
    assert "up to date" in succeed(*command)
    before = rows(tmp_path / "out", "train_noisy")
    succeed(*command, "--seed", 2)
    assert rows(tmp_path / "out", "train_noisy") != before


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["", "force"])
@pytest.mark.parametrize("record", [None, '{"step": "fsdkaggle2019"}'], ids=["no record", "other record"])
def test_other_folders_and_files_are_never_replaced(sounds, tmp_path, record, force):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.txt").write_text("years of work")
    if record:
        (tmp_path / "other/provenance.json").write_text(record)
    outcome = run(PROGRAM, sounds, tmp_path / "other", *force)
    assert "was not built by this program" in outcome.error
    assert (tmp_path / "other/thesis.txt").read_text() == "years of work"
    assert "was not built by this program" in run(PROGRAM, sounds, tmp_path / "other/thesis.txt").error


@pytest.mark.parametrize("folder", ["sounds", "sounds/corpus", "."])
def test_corpus_and_sounds_must_not_contain_each_other(sounds, tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "provenance.json").write_text('{"step": "wrong_labels"}')
    outcome = run(PROGRAM, sounds, tmp_path / folder, "--force")
    assert "must not contain each other" in outcome.error
    assert len(list(sounds.rglob("*.wav"))) == 48


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--parts.test", "1"), "must each name groups"),
        (("--parts.noisy", ""), "must each name groups"),
        (("--parts.test", "9"), "fewer than two classes have recordings"),
        (("--label-noise", "2"), "--label-noise must be in 0..1"),
        (("--group", "^x"), "does not match --group"),
    ],
)
def test_bad_options_are_one_line(sounds, tmp_path, options, message):
    outcome = run(PROGRAM, sounds, tmp_path / "out", *options)
    assert outcome.status in (1, 2)
    assert message in outcome.error
    assert not (tmp_path / "out").exists()
