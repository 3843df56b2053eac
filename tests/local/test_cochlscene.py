"""CochlScene: a small tree in its layout; what folders and names say."""

import numpy as np
import pytest
import soundfile
from lhotse import load_manifest

from local.cochlscene import SCENES, prepare_cochlscene
from tests.helpers import run, succeed

FRAMES = 441


def write_tree(corpus, users=2):
    """So many participants of each split and scene, with two segments each; return the names of the files."""
    sound = corpus.parent / "sound.wav"
    soundfile.write(sound, np.zeros(FRAMES), 44100, subtype="PCM_16")
    names = []
    for number, split in enumerate(("Train", "Val", "Test")):
        for user in range(users):
            for scene in SCENES:
                for segment in range(2):
                    name = f"{split}/{scene}/{scene}_user{number}{user:03}_149824{user:02}_{segment:03}.wav"
                    (corpus / name).parent.mkdir(parents=True, exist_ok=True)
                    (corpus / name).hardlink_to(sound)
                    names.append(name)
    return names


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "CochlScene"), tmp_path / "CochlScene"


def command(corpus, out):
    return "local/cochlscene.py", corpus, out, "--seconds", FRAMES / 44100


def test_the_manifests_list_every_clip(tree, tmp_path):
    names, corpus = tree
    assert "156 clips of 6 participants" in succeed(*command(corpus, tmp_path / "out"))
    cuts = {
        s: list(load_manifest(tmp_path / f"out/cochlscene_cuts_{s}.jsonl.gz")) for s in ("train", "validation", "test")
    }
    assert sorted(cut.recording.sources[0].source for some in cuts.values() for cut in some) == sorted(
        str(corpus / name) for name in names
    )
    custom = cuts["validation"][0].supervisions[0].custom
    assert cuts["validation"][0].id == "Bus_user1000_14982400_000"
    assert (custom["labels"], custom["location"], custom["submission"], custom["segment"]) == (
        ["Bus"], "user1000", "14982400", "000",
    )  # fmt: skip
    assert "up to date" in succeed(*command(corpus, tmp_path / "out"))


def test_lhotses_function_has_all_splits(tree, tmp_path):
    sets = prepare_cochlscene(tree[1], tmp_path / "out", 1, seconds=FRAMES / 44100)
    assert {split: len(list(kinds["recordings"])) for split, kinds in sets.items()} == dict.fromkeys(
        ("train", "validation", "test"), 52
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Train/Car/Car_user0000_14982400_000.wav", "Train/Car/Bus_user0000_14982400_000.wav", "does not match the pattern"),
        ("Train/Car/Car_user0000_14982400_000.wav", "Train/Boat/Boat_user0000_14982400_000.wav", "unknown scene 'Boat'"),
        ("Val/Car/Car_user1000_14982400_000.wav", "Val/Car/Car_user0000_14982400_009.wav", "participant user0000 is in both train and validation"),
        ("Test/Park", "../Park", "test has no Park (1 such gaps); download"),
        ("Test", "../Test", "test has no Bus (13 such gaps); download"),
    ],
)  # fmt: skip
def test_a_tree_that_is_not_the_corpus_is_one_clear_line(tree, tmp_path, old, new, message):
    (tree[1] / new).parent.mkdir(exist_ok=True)
    (tree[1] / old).rename(tree[1] / new)
    assert message in run(*command(tree[1], tmp_path / "out")).error
    assert not (tmp_path / "out").exists()
