"""TAU Urban Acoustic Scenes 2019: synthetic tables with the published counts, and small corpora."""

from collections import Counter

import pytest
from lhotse import load_manifest

from local.manifests import check_counts
from local.published import TAU2019, by_split
from local.splits import split_by_location
from local.tau import city_of, counts_of, official_fold
from local.tau2019 import SET, prepare_tau2019
from tests.helpers import run, succeed
from tests.local import trees

CITIES = set(trees.CITIES) - {"milan"}


def write_corpus(corpus, clips):
    return trees.write_corpus(corpus, trees.tau2019(clips), 48000, 2)


def fold_of(corpus):
    return official_fold(
        corpus / "meta.csv", *(corpus / f"evaluation_setup/fold1_{n}.csv" for n in ("train", "evaluate"))
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The official fold of tables with the published counts."""
    corpus = tmp_path_factory.mktemp("tau2019")
    trees.write_tables(corpus, trees.tau2019())
    return fold_of(corpus)


def test_the_official_fold_has_the_published_counts(published, tmp_path):
    check_counts(counts_of(published), by_split(TAU2019), tmp_path, allow_partial=False)
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
    assert set(per_city) == CITIES
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
    scene, city, location, segment, device = cut.id.split("-")
    assert cut.supervisions[0].custom | {"content": 0} == {
        "labels": [scene], "location": f"{city}-{location}", "city": city, "segment": segment, "device": device,
        "seconds": 0.01, "content": 0,
    }  # fmt: skip


def test_lhotses_function_returns_recordings_and_supervisions_by_split(tmp_path):
    names = write_corpus(tmp_path / "corpus", clips=24)
    options = {"seconds": 0.01, "allow_partial": True}
    sets = prepare_tau2019(str(tmp_path / "corpus"), str(tmp_path / "out"), 1, **options)
    assert set(sets) == {"train", "validation", "test", "unused"}
    assert all(set(kinds) == {"recordings", "supervisions"} for kinds in sets.values())
    assert sum(len(list(kinds["recordings"])) for kinds in sets.values()) == len(names)
    for kinds in sets.values():
        for recording, supervision in zip(kinds["recordings"], kinds["supervisions"], strict=True):
            assert supervision.recording_id == recording.id
    assert SET.name == "tau2019"


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
