import csv

import numpy as np
import pytest
import soundfile

from tests.helpers import run, succeed

CLASSES = ("bell", "dog", "rain")


@pytest.fixture
def sounds(tmp_path):
    """Twelve recordings of each of three classes in five groups; a fourth class is in one group only."""
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


def test_parts_are_of_disjoint_groups_and_only_noisy_labels_are_wrong(sounds, tmp_path):
    said = succeed(
        "local/synthetic/wrong_labels.py", sounds, tmp_path / "out", "--label-noise", 0.5, "--sampling-rate", 16000
    )
    assert "rare is left out" in said
    found = {part: rows(tmp_path / "out", part) for part in ("train_curated", "train_noisy", "test")}
    groups = {part: {name.split("-")[1] for name in labels} for part, labels in found.items()}
    assert groups == {"train_curated": {"1", "2"}, "train_noisy": {"3", "4"}, "test": {"5"}}
    wrong = {part: sum(label != name.split("-")[0] for name, label in some.items()) for part, some in found.items()}
    assert wrong["train_curated"] == wrong["test"] == 0
    assert 0 < wrong["train_noisy"] < len(found["train_noisy"])
    assert {label for some in found.values() for label in some.values()} == set(CLASSES)
    for part, labels in found.items():
        for name in labels:
            assert soundfile.info(tmp_path / f"out/FSDKaggle2019.audio_{part}/{name}").frames == 6000


def test_it_is_a_corpus_that_fsdkaggle2019_reads_and_made_once(sounds, tmp_path):
    command = ("local/synthetic/wrong_labels.py", sounds, tmp_path / "out", "--sampling-rate", 8000)
    succeed(*command)
    said = succeed(
        "local/fsdkaggle2019.py", tmp_path / "out", tmp_path / "data", "--sampling-rate", 8000, "--allow-partial"
    )
    assert "curated: 18 clips" in said
    assert "up to date" in succeed(*command)
    before = rows(tmp_path / "out", "train_noisy")
    succeed(*command, "--seed", 2)
    assert rows(tmp_path / "out", "train_noisy") != before


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["", "force"])
@pytest.mark.parametrize("record", [None, '{"step": "fsdkaggle2019"}'], ids=["no record", "another's record"])
def test_what_it_did_not_make_is_left_alone(sounds, tmp_path, record, force):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    if record:
        (tmp_path / "mine/provenance.json").write_text(record)
    outcome = run("local/synthetic/wrong_labels.py", sounds, tmp_path / "mine", *force)
    assert "was not made by this program" in outcome.error
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"
    assert (
        "was not made by this program"
        in run("local/synthetic/wrong_labels.py", sounds, tmp_path / "mine/thesis.txt").error
    )


@pytest.mark.parametrize("place", ["sounds", "sounds/corpus", "."])
def test_corpus_and_sounds_must_not_lie_in_each_other(sounds, tmp_path, place):
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "provenance.json").write_text('{"step": "wrong_labels"}')
    outcome = run("local/synthetic/wrong_labels.py", sounds, tmp_path / place, "--force")
    assert "must not lie in each other" in outcome.error
    assert len(list(sounds.rglob("*.wav"))) == 48


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--parts.test", "1"), "must each name groups"),
        (("--parts.noisy", ""), "must each name groups"),
        (("--parts.test", "9"), "fewer than two classes have recordings"),
        (("--label-noise", "2"), "--label-noise must lie in 0..1"),
        (("--group", "^x"), "does not match --group"),
    ],
)
def test_bad_input_is_one_clear_line(sounds, tmp_path, options, said):
    outcome = run("local/synthetic/wrong_labels.py", sounds, tmp_path / "out", *options)
    assert outcome.status in (1, 2)
    assert said in outcome.error
    assert not (tmp_path / "out").exists()
