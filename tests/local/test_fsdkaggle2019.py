import csv

import numpy as np
import pytest
import soundfile
from lhotse import load_manifest

from tests.helpers import run, succeed

CLASSES = sorted(f"Class_{n:02d}" for n in range(80))
COUNTS = {"train_curated": (4970, 5752), "train_noisy": (19815, 24000), "test": (4481, 6250)}


def rows_of(part):
    """As many clips and labels as published."""
    clips, labels = COUNTS[part]
    rows = []
    for number in range(clips):
        held = 1 + (number < labels - clips) if labels < 2 * clips else 2
        rows.append((f"{part[:8]}{number:05d}.wav", ",".join(CLASSES[(number + n) % 80] for n in range(held))))
    return rows


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def link(folder, rows, sound):
    folder.mkdir(parents=True)
    for name, *_ in rows:
        (folder / name).hardlink_to(sound)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "one.wav"
    soundfile.write(path, np.zeros(441), 44100, subtype="PCM_16")
    return path


def write_zenodo(corpus, sound, clips=None):
    """Zenodo's release, whole or with so many clips of each part."""
    meta = corpus / "FSDKaggle2019.meta"
    for part in COUNTS:
        rows = rows_of(part)[:clips]
        link(corpus / f"FSDKaggle2019.audio_{part}", rows, sound)
        if part == "test":
            body = [(*row, "Public" if n < 1120 else "Private", n, "CC0") for n, row in enumerate(rows)]
            header = ("fname", "labels", "usage", "freesound_id", "license")
        else:
            body = [(*row, n, "CC0") for n, row in enumerate(rows)]
            header = ("fname", "labels", "freesound_id", "license")
        write(meta / f"{part}_post_competition.csv", [header, *body])
    write(meta / "vocabulary.csv", list(enumerate(CLASSES)))


def write_kaggle(corpus, sound, clips=None):
    """Kaggle's release, which has no labels of its test clips."""
    for part in ("train_curated", "train_noisy"):
        rows = rows_of(part)[:clips]
        link(corpus / part, rows, sound)
        write(corpus / f"{part}.csv", [("fname", "labels"), *rows])
    test = [(f"{n:08x}.wav", *["0"] * 80) for n in range(20)]
    link(corpus / "test", test, sound)
    write(corpus / "sample_submission.csv", [("fname", *CLASSES), *test])


@pytest.fixture(scope="module")
def zenodo(sound):
    write_zenodo(sound.parent / "zenodo", sound)
    return sound.parent / "zenodo"


def supervisions(out):
    return {
        split: list(load_manifest(out / f"fsdkaggle2019_supervisions_{split}.jsonl.gz"))
        for split in ("curated", "noisy", "test")
    }


def test_zenodo_release_with_the_published_counts(zenodo, tmp_path, without_headers):
    said = succeed("local/fsdkaggle2019.py", zenodo, tmp_path / "out")
    assert "not the published numbers" not in said
    found = without_headers[tmp_path / "out"]
    assert {split: len(clips) for split, clips in found.items()} == {"curated": 4970, "noisy": 19815, "test": 4481}
    assert sum(len(clip.labels) for clip in found["curated"]) == 5752
    assert sum(clip.custom["usage"] == "Public" for clip in found["test"]) == 1120


def test_kaggle_release_with_the_published_counts(sound, tmp_path, without_headers):
    write_kaggle(tmp_path / "kaggle", sound)
    said = succeed("local/fsdkaggle2019.py", tmp_path / "kaggle", tmp_path / "out")
    assert "not the published numbers" not in said
    assert {s: len(c) for s, c in without_headers[tmp_path / "out"].items()} == {
        "curated": 4970,
        "noisy": 19815,
        "test": 20,
    }


def test_manifests_of_zenodos_release(sound, tmp_path):
    write_zenodo(tmp_path / "zenodo", sound, clips=1125)
    succeed("local/fsdkaggle2019.py", tmp_path / "zenodo", tmp_path / "out", "--allow-partial", "--nj", 2)
    found = supervisions(tmp_path / "out")
    assert {split: len(clips) for split, clips in found.items()} == {"curated": 1125, "noisy": 1125, "test": 1125}
    assert [clip.custom["usage"] for clip in found["test"]] == ["Public"] * 1120 + ["Private"] * 5
    for split, part in (("curated", "train_curated"), ("noisy", "train_noisy"), ("test", "test")):
        assert [(f"{c.id}.wav", ",".join(c.custom["labels"])) for c in found[split]] == rows_of(part)[:1125]


def test_manifests_of_kaggles_release(sound, tmp_path):
    write_kaggle(tmp_path / "kaggle", sound, clips=20)
    succeed("local/fsdkaggle2019.py", tmp_path / "kaggle", tmp_path / "out", "--allow-partial")
    found = supervisions(tmp_path / "out")
    assert len(found["test"]) == 20
    assert found["test"][0].custom["labels"] == []
    assert found["curated"][0].custom["labels"] == CLASSES[:2]


def test_a_corpus_without_its_noisy_part_needs_leave(zenodo, tmp_path, without_headers):
    noisy = zenodo / "FSDKaggle2019.audio_train_noisy"
    aside = zenodo.parent / "aside"
    noisy.rename(aside)
    try:
        outcome = run("local/fsdkaggle2019.py", zenodo, tmp_path / "out")
        assert outcome.status == 1
        assert "19815 of 19815 audio files are missing" in outcome.error
        assert not without_headers
        said = succeed("local/fsdkaggle2019.py", zenodo, tmp_path / "out", "--allow-partial")
        assert "no noisy clips" in said
        assert "not the published numbers" in said
        assert set(without_headers[tmp_path / "out"]) == {"curated", "test"}
    finally:
        aside.rename(noisy)
