"""TAU Urban Acoustic Scenes 2019: synthetic tables with the published counts, and small corpora."""

import csv
from collections import Counter
from itertools import cycle

import numpy as np
import pytest
import soundfile
from lhotse import load_manifest

from local.manifests import check_counts
from local.published import TAU2019
from local.splits import split_by_location
from local.tau2019 import PUBLISHED, city_of, official_fold
from tests.helpers import run, succeed

CITIES = ("barcelona", "helsinki", "lisbon", "london", "lyon", "paris", "prague", "stockholm", "vienna")


def write(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows([header, *rows])


def write_tables(corpus, clips=1440):
    """Write the published tables, with at most ``clips`` of each scene and part; return the file names."""
    location, parts = 0, {"train": [], "test": [], "unused": []}
    for scene, (train, test, unused) in TAU2019.items():
        for part, count in (("train", train), ("test", test), ("unused", unused)):
            cities = cycle(["milan"] if part == "unused" else CITIES + (("milan",) if part == "test" else ()))
            for number in range(min(count, clips)):
                if number % 12 == 0:
                    location, city = location + 1, next(cities)
                name = f"audio/{scene}-{city}-{location}-{number}-a.wav"
                parts[part].append((name, scene, f"{city}-{location}", "a"))
    rows = sum(parts.values(), [])
    write(corpus / "meta.csv", ("filename", "scene_label", "identifier", "source_label"), rows)
    for table, part in (("fold1_train", "train"), ("fold1_evaluate", "test")):
        write(corpus / f"evaluation_setup/{table}.csv", ("filename", "scene_label"), [row[:2] for row in parts[part]])
    return [row[0] for row in rows]


def write_corpus(corpus, clips):
    """Write the tables and one short sound, to which every clip is a link; return the file names."""
    names = write_tables(corpus, clips)
    (corpus / "audio").mkdir()
    sound = corpus.parent / "sound.wav"
    soundfile.write(sound, np.zeros((480, 2)), 48000, subtype="PCM_24")
    for name in names:
        (corpus / name).hardlink_to(sound)
    return names


def fold_of(corpus):
    return official_fold(
        corpus / "meta.csv", *(corpus / f"evaluation_setup/fold1_{n}.csv" for n in ("train", "evaluate"))
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The official fold of tables with the published counts."""
    corpus = tmp_path_factory.mktemp("tau2019")
    write_tables(corpus)
    return fold_of(corpus)


def test_the_official_fold_has_the_published_counts(published, tmp_path):
    counts = Counter(f"{split} {entry.labels[0]}" for split, entries in published.items() for entry in entries)
    check_counts(counts, PUBLISHED, tmp_path, allow_partial=False)
    assert {split: len(entries) for split, entries in published.items()} == {
        "train": 9185,
        "test": 4185,
        "unused": 1030,
    }
    assert {city_of(entry.custom["location"]) for entry in published["unused"]} == {"milan"}


def test_validation_holds_out_locations_of_every_scene_and_city(published):
    train, validation = split_by_location(published["train"], 0.15, 2019, city_of)
    assert len(train) + len(validation) == 9185
    assert 0.13 < len(validation) / 9185 < 0.17
    assert not {e.custom["location"] for e in train} & {e.custom["location"] for e in validation}
    per_scene = Counter(entry.labels[0] for entry in validation)
    for scene, (count, *_) in TAU2019.items():
        assert 0.12 < per_scene[scene] / count < 0.18
    per_city = Counter(city_of(entry.custom["location"]) for entry in validation)
    assert set(per_city) == set(CITIES)
    assert max(per_city.values()) < 2 * min(per_city.values())


def test_the_manifests_list_every_clip(tmp_path):
    names = write_corpus(tmp_path / "corpus", clips=24)
    succeed("local/tau2019.py", tmp_path / "corpus", tmp_path / "out", "--seconds", 0.01, "--allow-partial", "--nj", 2)
    cuts = {
        split: list(load_manifest(tmp_path / f"out/tau2019_cuts_{split}.jsonl.gz"))
        for split in ("train", "validation", "test", "unused")
    }
    assert sorted(f"audio/{cut.id}.wav" for some in cuts.values() for cut in some) == sorted(names)
    cut = cuts["test"][0]
    assert (cut.recording.num_channels, cut.recording.sampling_rate, cut.num_samples) == (2, 48000, 480)
    assert cut.supervisions[0].custom["labels"] == [cut.id.split("-")[0]]
    assert cut.supervisions[0].custom["location"] == "-".join(cut.id.split("-")[1:3])


def test_a_missing_clip_is_named_unless_allow_partial(tmp_path):
    names = write_corpus(tmp_path / "corpus", clips=24)
    (tmp_path / "corpus" / names[0]).unlink()
    command = ("local/tau2019.py", tmp_path / "corpus", tmp_path / "out", "--seconds", 0.01)
    missing = f"1 of {len(names)} audio files are missing"
    outcome = run(*command)
    assert outcome.status == 1
    assert f"{missing}, first {tmp_path / 'corpus' / names[0]}" in outcome.error
    assert not (tmp_path / "out").exists()
    message = succeed(*command, "--allow-partial")
    assert f"{missing} and left out" in message
    assert "not the published numbers" in message
    assert len(list(load_manifest(tmp_path / "out/tau2019_cuts_unused.jsonl.gz"))) == 240
