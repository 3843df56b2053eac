"""TAU Urban 2020 Mobile: both releases with the published counts, devices, and clips that no stage may use."""

from collections import Counter

import pytest
from lhotse import load_manifest

from local.published import TAU2020, TAU2020_WITHDRAWN
from local.splits import split_by_location
from local.tau import check_corpus, city_of
from local.tau2020 import CURRENT, OLDER, SET, prepare_tau2020
from tests.helpers import run, succeed
from tests.local import trees

# Of the tables of corpora: clips by device a, b, c, s1 to s6, of meta.csv, train and evaluate.
PRINTED = {
    "all": (23035, 14400, 1078, 1077, 1080, 1080, 1080, 1080, 1080, 1080),
    "train": (13962, 10215, 749, 748, 750, 750, 750, 0, 0, 0),
    "test": (2968, 330, 329, 329, 330, 330, 330, 330, 330, 330),
    "unused": (6105, 3855, 0, 0, 0, 0, 0, 750, 750, 750),
}


@pytest.fixture(scope="module", params=["current", "older"])
def published(request, tmp_path_factory):
    """A tree of each release, and what was read of it; the tables of the older one have CRLF."""
    corpus = tmp_path_factory.mktemp(request.param) / "corpus"
    parts = trees.tau2020(older=request.param == "older")
    trees.write_corpus(corpus, parts, 44100, 1, "\r\n" if request.param == "older" else "\n")
    return request.param, corpus, check_corpus(SET, corpus, allow_partial=False)


def test_each_release_has_the_published_counts(published):
    name, _, checked = published
    assert checked.release == name
    splits = {"all": sum(checked.splits.values(), []), **checked.splits}
    withdrawn = {"all": 5, "train": 3, "test": 2, "unused": 0}
    for split, (total, *printed) in PRINTED.items():
        devices = Counter(entry.custom["device"] for entry in splits[split])
        assert len(splits[split]) == total + (withdrawn[split] if name == "older" else 0)
        assert len(splits[split]) == sum(devices.values())
        if name == "current":
            assert [devices[device] for device in TAU2020] == printed
    assert len(splits["all"]) == (23040 if name == "older" else 23035)


def test_train_and_test_share_no_location_and_every_device_of_a_location_is_on_one_side(published):
    _, _, checked = published
    locations = {split: {e.custom["location"] for e in entries} for split, entries in checked.splits.items()}
    assert {split: len(locations[split]) for split in ("train", "test")} == {"train": 365, "test": 146}
    train, validation = split_by_location(checked.splits["train"], 0.15, 2020, city_of)
    held = {entry.custom["location"] for entry in validation}
    assert not held & {entry.custom["location"] for entry in train}
    assert {entry.custom["city"] for entry in validation} == set(trees.CITIES)
    assert {entry.custom["device"] for entry in validation} == {"a", "b", "c", "s1", "s2", "s3"}
    for entries in (train, validation):
        at = {(e.custom["location"], e.custom["segment"]) for e in entries if e.custom["device"] != "a"}
        assert at <= {(e.custom["location"], e.custom["segment"]) for e in entries if e.custom["device"] == "a"}


@pytest.fixture
def small(tmp_path):
    """A corpus of three locations a scene and part."""
    parts = trees.few(trees.tau2020(), locations=3)
    trees.write_corpus(tmp_path / "corpus", parts, 44100, 1)
    return parts, ("local/tau2020.py", tmp_path / "corpus", tmp_path / "out", "--seconds", 480 / 44100)


def test_no_stage_sees_a_clip_of_neither_list(small, tmp_path):
    parts, command = small
    succeed(*command, "--allow-partial")
    cuts = {path.name for path in (tmp_path / "out").glob("*_cuts_*")}
    assert cuts == {f"tau2020_cuts_{split}.jsonl.gz" for split in ("train", "validation", "test")}
    succeed("steps/pack_audio.py", "--manifests", tmp_path / "out", "--out", tmp_path / "audio")
    assert {path.name for path in (tmp_path / "audio").iterdir()} == {
        f"tau2020_{s}" for s in ("train", "validation", "test")
    }
    unused = load_manifest(tmp_path / "out/tau2020_supervisions_unused.jsonl.gz")
    assert [f"audio/{each.id}.wav" for each in unused] == [name for name, *_ in parts["unused"]]
    devices = Counter(
        cut.supervisions[0].custom["device"] for cut in load_manifest(tmp_path / "out/tau2020_cuts_test.jsonl.gz")
    )
    assert devices == Counter(device for *_, device in parts["test"])


def test_the_withdrawn_clips_may_remain_on_the_disk(small, tmp_path):
    _, command = small
    for stem in TAU2020_WITHDRAWN:
        (tmp_path / f"corpus/audio/{stem}.wav").write_bytes(b"")
    (tmp_path / "corpus/audio/._hidden.wav").write_bytes(b"")
    assert "not in meta.csv" not in succeed(*command, "--allow-partial")
    (tmp_path / "corpus/audio/tram-lyon-1-1-b.wav").write_bytes(b"")
    said = succeed(*command, "--allow-partial")
    assert f"1 file(s) of {tmp_path}/corpus/audio are not in meta.csv, first tram-lyon-1-1-b.wav; left out" in said
    assert "the current release" in said


def test_lhotses_function_has_all_splits(small, tmp_path):
    parts, _ = small
    sets = prepare_tau2020(tmp_path / "corpus", tmp_path / "out", 2, seconds=480 / 44100, allow_partial=True)
    assert set(sets) == {"train", "validation", "test", "unused"}
    assert len(list(sets["test"]["supervisions"])) == len(parts["test"])


def change(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda c, p: (c / p["test"][0][0]).unlink(), "audio files are missing, first"),
        (lambda c, p: (c / "audio/bus-paris-1-2-a.wav").write_bytes(b""), "are not in meta.csv, first bus-paris-1-2-a.wav; move"),
        (lambda c, p: change(c / "evaluation_setup/fold1_train.csv", "audio/", "audio/x"), "is not in meta.csv; download"),
        (lambda c, p: trees.write_tables(c, p | {"train": [*p["train"], p["test"][0]], "test": p["test"][1:]}), "is in both train and test of fold 1"),
        (lambda c, p: change(c / "meta.csv", "\ta\n", "\tb\n"), "and the other columns contradict each other; download"),
        (lambda c, p: trees.write_tables(c, trees.in_seconds(p)), "is not called <scene>-<city>-<location>-<segment>-<device>.wav"),
        (lambda c, p: None, "is not the published corpus (train a "),
    ],
)  # fmt: skip
def test_a_tree_that_is_not_the_corpus_is_one_clear_line(small, tmp_path, break_it, message):
    parts, command = small
    break_it(tmp_path / "corpus", parts)
    assert message in run(*command).error
    assert not (tmp_path / "out").exists()


def test_the_releases_differ_by_the_five_withdrawn_clips():
    assert sum(OLDER.published.values()) - sum(CURRENT.published.values()) == len(TAU2020_WITHDRAWN) == 5
