"""FSDKaggle2019: synthetic tables of both releases with the published counts, and small corpora."""

import csv

import numpy as np
import pytest
import soundfile
from lhotse import load_manifest

from local.fsdkaggle2019 import KAGGLE, ZENODO, counts_of, listed_clips, prepare_fsdkaggle2019, published, release_of
from local.manifests import check_counts
from tests.helpers import run, succeed

CLASSES = sorted(f"Class_{n:02d}" for n in range(80))
USAGE = ("Public", "Private")
COUNTS = {"curated": (4970, 5752), "noisy": (19815, 24000), "test": (4481, 6250)}


def rows_of(split):
    """Yield as many clips and labels as published."""
    clips, labels = COUNTS[split]
    for number in range(clips):
        count = 1 + (number < labels - clips)
        yield f"{split}{number:05d}.wav", ",".join(CLASSES[(number + n) % 80] for n in range(count))


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def write_zenodo(corpus, clips=None):
    """Write the tables of Zenodo's release, with at most ``clips`` of each split."""
    for split, table in ZENODO.tables.items():
        usage = lambda n, split=split: (USAGE[n % 4 > 0 or n == 4480],) if split == "test" else ()
        rows = [(*row, *usage(n), n, "CC0") for n, row in enumerate(list(rows_of(split))[:clips])]
        write(corpus / table, [("fname", "labels", *(("usage",) if split == "test" else ()), "id", "license"), *rows])
    write(corpus / ZENODO.vocabulary, list(enumerate(CLASSES)))


def write_kaggle(corpus, clips=None):
    """Write the tables of Kaggle's release, whose test clips have no labels."""
    for split in ("curated", "noisy"):
        write(corpus / KAGGLE.tables[split], [("fname", "labels"), *list(rows_of(split))[:clips]])
    test = [(name, *["0"] * 80) for name, _ in list(rows_of("test"))[:20]]
    write(corpus / KAGGLE.vocabulary, [("fname", *CLASSES), *test])


def write_audio(corpus, release, clips):
    """Write one short sound, and links to it as the first clips of each split."""
    sound = corpus.parent / "sound.wav"
    soundfile.write(sound, np.zeros(441), 44100, subtype="PCM_16")
    for split, folder in release.audio.items():
        (corpus / folder).mkdir(parents=True)
        for name, _ in list(rows_of(split))[:clips]:
            (corpus / folder / name).hardlink_to(sound)


def supervisions(out):
    return {
        split: list(load_manifest(out / f"fsdkaggle2019_supervisions_{split}.jsonl.gz"))
        for split in ("curated", "noisy", "test")
    }


@pytest.mark.parametrize(
    ("write_tables", "release", "test_clips"), [(write_zenodo, ZENODO, 4481), (write_kaggle, KAGGLE, 20)]
)
def test_each_release_has_the_published_counts(tmp_path, write_tables, release, test_clips):
    write_tables(tmp_path)
    assert release_of(tmp_path) is release
    splits = listed_clips(tmp_path, release, set(CLASSES), allow_partial=False)
    assert {split: len(clips) for split, clips in splits.items()} == {
        "curated": 4970,
        "noisy": 19815,
        "test": test_clips,
    }
    counts = counts_of(CLASSES, splits)
    check_counts(counts, published(release), tmp_path, allow_partial=False)
    assert counts["curated labels"] == 5752
    assert counts["Public"] == (1120 if release is ZENODO else 0)


def test_manifests_of_zenodos_release(tmp_path):
    write_zenodo(tmp_path / "corpus", clips=60)
    write_audio(tmp_path / "corpus", ZENODO, clips=60)
    succeed("local/fsdkaggle2019.py", tmp_path / "corpus", tmp_path / "out", "--allow-partial", "--nj", 2)
    clips = supervisions(tmp_path / "out")
    assert [clip.custom["usage"] for clip in clips["test"]] == ["Public", "Private", "Private", "Private"] * 15
    for split in clips:
        assert [(f"{c.id}.wav", ",".join(c.custom["labels"])) for c in clips[split]] == list(rows_of(split))[:60]


def test_lhotses_function_returns_recordings_and_supervisions_by_split(tmp_path):
    write_zenodo(tmp_path / "corpus", clips=5)
    write_audio(tmp_path / "corpus", ZENODO, clips=5)
    sets = prepare_fsdkaggle2019(tmp_path / "corpus", tmp_path / "out", 1, allow_partial=True)
    assert {split: len(list(kinds["recordings"])) for split, kinds in sets.items()} == {
        "curated": 5,
        "noisy": 5,
        "test": 5,
    }
    assert [each.recording_id for each in sets["test"]["supervisions"]] == [
        each.id for each in sets["test"]["recordings"]
    ]


def test_manifests_of_kaggles_release(tmp_path):
    write_kaggle(tmp_path / "corpus", clips=20)
    write_audio(tmp_path / "corpus", KAGGLE, clips=20)
    succeed("local/fsdkaggle2019.py", tmp_path / "corpus", tmp_path / "out", "--allow-partial")
    clips = supervisions(tmp_path / "out")
    assert len(clips["test"]) == 20
    assert clips["test"][0].custom["labels"] == []
    assert clips["curated"][0].custom["labels"] == CLASSES[:2]


def test_clips_are_in_the_order_of_their_names_whatever_the_tables_is(tmp_path):
    """The folds of the tagger are drawn from positions, and the published ones from a table sorted by name."""
    for corpus in ("sorted", "reversed"):
        write_zenodo(tmp_path / corpus, clips=9)
    table = tmp_path / "reversed" / ZENODO.tables["curated"]
    header, *lines = table.read_text().splitlines()
    table.write_text("\n".join([header, *reversed(lines)]) + "\n")
    ids = [
        [clip.id for clip in listed_clips(tmp_path / corpus, ZENODO, set(CLASSES), allow_partial=True)["curated"]]
        for corpus in ("sorted", "reversed")
    ]
    assert ids[0] == ids[1] == sorted(ids[0])


def test_a_corpus_without_noisy_clips_needs_allow_partial(tmp_path):
    write_zenodo(tmp_path / "corpus", clips=3)
    write_audio(tmp_path / "corpus", ZENODO, clips=3)
    (tmp_path / "corpus" / ZENODO.audio["noisy"]).rename(tmp_path / "aside")
    command = ("local/fsdkaggle2019.py", tmp_path / "corpus", tmp_path / "out")
    assert "3 of 3 audio files are missing" in run(*command).error
    assert not (tmp_path / "out").exists()
    message = succeed(*command, "--allow-partial")
    assert "no noisy clips" in message
    assert "not the published numbers" in message
    assert not list((tmp_path / "out").glob("*noisy*"))
    assert list((tmp_path / "out").glob("*cuts_curated*"))
