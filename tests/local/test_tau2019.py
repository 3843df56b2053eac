"""Manifests of trees in the published layout and counts."""

import csv
from collections import Counter
from itertools import cycle

import numpy as np
import pytest
import soundfile
from lhotse import load_manifest

from local.published import TAU2019
from local.tau2019 import city_of
from tests.helpers import run, succeed

CITIES = ("barcelona", "helsinki", "lisbon", "london", "lyon", "paris", "prague", "stockholm", "vienna")


def write(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows([header, *rows])


def write_tree(corpus, clips=1440):
    """The published tree, whole or with at most so many clips of each scene and part, all links to one short file."""
    (corpus / "audio").mkdir(parents=True)
    sound = corpus.parent / "one.wav"
    soundfile.write(sound, np.zeros((480, 2)), 48000, subtype="PCM_24")
    location, parts = 0, {"train": [], "test": [], "unused": []}
    for scene, (train, test, _) in TAU2019.items():
        for part, count in (("train", train), ("test", test), ("unused", 1440 - train - test)):
            cities = cycle(["milan"] if part == "unused" else CITIES + (("milan",) if part == "test" else ()))
            for number in range(min(count, clips)):
                if number % 12 == 0:
                    location, city = location + 1, next(cities)
                parts[part].append(
                    (f"audio/{scene}-{city}-{location}-{number}-a.wav", scene, f"{city}-{location}", "a")
                )
    for row in sum(parts.values(), []):
        (corpus / row[0]).hardlink_to(sound)
    write(corpus / "meta.csv", ("filename", "scene_label", "identifier", "source_label"), sum(parts.values(), []))
    setup = corpus / "evaluation_setup"
    write(setup / "fold1_train.csv", ("filename", "scene_label"), [row[:2] for row in parts["train"]])
    write(setup / "fold1_evaluate.csv", ("filename", "scene_label"), [row[:2] for row in parts["test"]])
    write(setup / "fold1_test.csv", ("filename",), [row[:1] for row in parts["test"]])


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    corpus = tmp_path_factory.mktemp("tau") / "TAU-urban-acoustic-scenes-2019-development"
    write_tree(corpus)
    return corpus


def test_the_published_counts_and_a_validation_split_by_location(published, tmp_path, without_headers):
    said = succeed("local/tau2019.py", published, tmp_path / "out")
    assert "not the published numbers" not in said
    found = without_headers[tmp_path / "out"]
    assert len(found["train"]) + len(found["validation"]) == 9185
    assert (len(found["test"]), len(found["unused"])) == (4185, 1030)
    assert {city_of(e.custom["location"]) for e in found["unused"]} == {"milan"}
    assert 0.13 < len(found["validation"]) / 9185 < 0.17
    locations = {split: {e.custom["location"] for e in found[split]} for split in found}
    assert not locations["train"] & locations["validation"]
    per_scene = Counter(e.labels[0] for e in found["validation"])
    for scene, (count, *_) in TAU2019.items():
        assert 0.12 < per_scene[scene] / count < 0.18
    per_city = Counter(city_of(e.custom["location"]) for e in found["validation"])
    assert set(per_city) == set(CITIES)
    assert max(per_city.values()) < 2 * min(per_city.values())


def test_the_manifests_hold_every_clip(tmp_path):
    write_tree(tmp_path / "corpus", clips=60)
    succeed("local/tau2019.py", tmp_path / "corpus", tmp_path / "out", "--seconds", 0.01, "--allow-partial", "--nj", 2)
    names = [cut.id for split in ("train", "validation", "test", "unused") for cut in cuts(tmp_path / "out", split)]
    assert sorted(names) == sorted(path.stem for path in (tmp_path / "corpus/audio").iterdir())
    cut = cuts(tmp_path / "out", "test")[0]
    assert (cut.recording.num_channels, cut.recording.sampling_rate, cut.num_samples) == (2, 48000, 480)
    assert cut.supervisions[0].custom["labels"] == [cut.id.split("-")[0]]
    assert cut.supervisions[0].custom["location"] == "-".join(cut.id.split("-")[1:3])


def cuts(out, split):
    return list(load_manifest(out / f"tau2019_cuts_{split}.jsonl.gz"))


def test_a_lost_clip_is_named_and_allow_partial_goes_on(published, tmp_path, without_headers):
    lost = next(iter((published / "audio").iterdir()))
    aside = tmp_path / "aside.wav"
    lost.rename(aside)
    try:
        outcome = run("local/tau2019.py", published, tmp_path / "out")
        assert outcome.status == 1
        assert f"1 of 14400 audio files are missing, first {lost}" in outcome.error
        assert not without_headers
        said = succeed("local/tau2019.py", published, tmp_path / "out", "--allow-partial")
        assert "1 of 14400 audio files are missing and left out" in said
        assert sum(map(len, without_headers[tmp_path / "out"].values())) == 14399
    finally:
        aside.rename(lost)
