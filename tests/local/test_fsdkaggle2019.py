import csv

import numpy as np
import pytest
import soundfile
from lhotse import load_manifest

from tests.conftest import run, succeed

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


@pytest.fixture(scope="module")
def zenodo(sound):
    corpus = sound.parent / "zenodo"
    meta = corpus / "FSDKaggle2019.meta"
    for part in COUNTS:
        rows = rows_of(part)
        link(corpus / f"FSDKaggle2019.audio_{part}", rows, sound)
        if part == "test":
            body = [(*row, "Public" if n < 1120 else "Private", n, "CC0") for n, row in enumerate(rows)]
            header = ("fname", "labels", "usage", "freesound_id", "license")
        else:
            body = [(*row, n, "CC0") for n, row in enumerate(rows)]
            header = ("fname", "labels", "freesound_id", "license")
        write(meta / f"{part}_post_competition.csv", [header, *body])
    write(meta / "vocabulary.csv", list(enumerate(CLASSES)))
    return corpus


def test_zenodo_release_with_the_published_counts(zenodo, tmp_path):
    said = succeed("local/fsdkaggle2019.py", zenodo, tmp_path / "out", "--nj", 8)
    assert "not the published numbers" not in said
    found = {
        s: list(load_manifest(tmp_path / f"out/fsdkaggle2019_supervisions_{s}.jsonl.gz"))
        for s in ("curated", "noisy", "test")
    }
    assert {split: len(clips) for split, clips in found.items()} == {"curated": 4970, "noisy": 19815, "test": 4481}
    assert sum(len(clip.custom["labels"]) for clip in found["curated"]) == 5752
    assert sum(clip.custom["usage"] == "Public" for clip in found["test"]) == 1120


def test_kaggle_release(sound, tmp_path):
    corpus = tmp_path / "kaggle"
    for part, table in (("train_curated", "train_curated.csv"), ("train_noisy", "train_noisy.csv")):
        rows = rows_of(part)
        link(corpus / part, rows, sound)
        write(corpus / table, [("fname", "labels"), *rows])
    test = [(f"{n:08x}.wav", *["0"] * 80) for n in range(20)]
    link(corpus / "test", test, sound)
    write(corpus / "sample_submission.csv", [("fname", *CLASSES), *test])
    succeed("local/fsdkaggle2019.py", corpus, tmp_path / "out", "--nj", 8)
    found = list(load_manifest(tmp_path / "out/fsdkaggle2019_supervisions_test.jsonl.gz"))
    assert len(found) == 20
    assert found[0].custom["labels"] == []


def test_a_corpus_without_its_noisy_part_needs_leave(zenodo, tmp_path):
    noisy = zenodo / "FSDKaggle2019.audio_train_noisy"
    aside = zenodo.parent / "aside"
    noisy.rename(aside)
    try:
        outcome = run("local/fsdkaggle2019.py", zenodo, tmp_path / "out")
        assert outcome.status == 1
        assert "19815 of 19815 audio files are missing" in outcome.error
        said = succeed("local/fsdkaggle2019.py", zenodo, tmp_path / "out", "--allow-partial")
        assert "no noisy clips" in said
        assert "not the published numbers" in said
    finally:
        aside.rename(noisy)
