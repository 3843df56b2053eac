"""TAU Urban 2022 Mobile: the published counts, the training splits of DCASE 2024, and segments joined from seconds."""

from collections import Counter

import numpy as np
import pytest
import soundfile
from lhotse import load_manifest

from local.published import TAU2020, TAU2022_SPLITS
from local.tau import check_corpus
from local.tau2022 import SET, _train_on, prepare_tau2022
from tagasc.audio.packed import JoinedAudio, PackedAudio
from tests.helpers import run, succeed
from tests.local import trees
from tests.local.test_tau2020 import PRINTED

SECOND = 441  # frames


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A tree of all 230,350 clips, and DCASE 2024's splits made by their rule: whole segments, nested."""
    corpus = tmp_path_factory.mktemp("tau2022") / "corpus"
    parts = trees.in_seconds(trees.tau2020())
    trees.write_corpus(corpus, parts, 44100, 1)
    for per_cent, count in list(TAU2022_SPLITS.items())[:2]:
        rows = [row[:2] for row in parts["train"][:count]]
        trees.write_table(corpus / f"evaluation_setup/split{per_cent}.csv", trees.HEADER[:2], rows, "\r\n")
    return corpus, check_corpus(SET, corpus, allow_partial=False)


@pytest.mark.slow
def test_the_tree_has_the_published_counts_and_splits(published):
    corpus, checked = published
    for split in ("train", "test", "unused"):
        devices = Counter(entry.custom["device"] for entry in checked.splits[split])
        assert [devices[device] for device in TAU2020] == [10 * count for count in PRINTED[split][1:]]
    smaller = set()
    for per_cent, count in list(TAU2022_SPLITS.items())[:2]:
        table = corpus / f"evaluation_setup/split{per_cent}.csv"
        splits = _train_on(table, checked.splits, per_cent, allow_partial=False)
        train = {entry.id for entry in splits["train"]}
        assert len(train) == count
        assert sum(map(len, splits.values())) == 230_350
        assert smaller < train
        smaller = train


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A corpus of three locations a scene and part, two of them as split5.csv; each file differs."""
    corpus = tmp_path_factory.mktemp("small") / "corpus"
    parts = trees.few(trees.tau2020(), locations=3)
    for part in ("train", "test"):  # few segments of each location
        kept = Counter()
        parts[part] = [row for row in parts[part] if kept.update([row[2]]) or kept[row[2]] <= 2]
    parts = trees.in_seconds(parts)
    (corpus / "audio").mkdir(parents=True)
    for number, name in enumerate(trees.write_tables(corpus, parts)):
        soundfile.write(corpus / name, np.full(SECOND, number % 20000, np.int16), 44100, subtype="PCM_16")
    places = {
        scene: list(dict.fromkeys(row[2] for row in parts["train"] if row[1] == scene))[:2] for scene in trees.SCENES
    }
    half = [row[:2] for row in parts["train"] if row[2] in places[row[1]]]
    trees.write_table(corpus / "evaluation_setup/split5.csv", trees.HEADER[:2], half)
    return corpus, parts, half


def prepared(small, out, *options):
    said = succeed(
        "local/tau2022.py", small[0], out / "data", "--seconds", 0.01, "--allow-partial", "--nj", 1, *options
    )
    succeed("steps/pack_audio.py", "--manifests", out / "data", "--out", out / "audio")
    return said, {s: PackedAudio(out / f"audio/tau2022_{s}") for s in ("train", "validation", "test")}


def test_a_training_split_leaves_the_other_clips_unused(small, tmp_path):
    _, parts, half = small
    _, packed = prepared(small, tmp_path, "--train-split", 5)
    assert {f"audio/{clip}.wav" for s in ("train", "validation") for clip in packed[s].ids} == {
        name for name, _ in half
    }
    assert packed["test"].ids == [name[6:-4] for name, *_ in parts["test"]]
    assert not (tmp_path / "audio/tau2022_unused").exists()
    unused = list(load_manifest(tmp_path / "data/tau2022_recordings_unused.jsonl.gz"))
    assert len(unused) == len(parts["unused"]) + len(parts["train"]) - len(half)


@pytest.mark.parametrize("joined", ["tags", "clips"])
def test_joined_segments_are_their_seconds_in_order(small, tmp_path, joined):
    corpus, parts, _ = small
    _, packed = prepared(small, tmp_path, "--join-segments", joined)
    segments = JoinedAudio(packed["test"])
    assert len(packed["test"]) == len(parts["test"]) // (10 if joined == "clips" else 1)
    assert len(segments) == len(parts["test"]) // 10
    for clip in segments.clips[:5]:
        assert clip.frames == 10 * SECOND
        samples = segments.samples[clip.start : clip.start + clip.frames].reshape(10, SECOND)
        begin, _, device = clip.id.rpartition("-")
        files = [soundfile.read(corpus / f"audio/{begin}-{n}-{device}.wav", dtype="int16")[0] for n in range(10)]
        assert np.array_equal(samples, np.stack(files))
    segments.compare_all()
    if joined == "tags":
        assert segments.owners.tolist() == [n // 10 for n in range(len(parts["test"]))]
        return
    cuts = load_manifest(tmp_path / "data/tau2022_cuts_test.jsonl.gz")
    assert {round(cut.duration * 44100) for cut in cuts} == {10 * SECOND}
    assert len(list(load_manifest(tmp_path / "data/tau2022_supervisions_test.jsonl.gz"))) == len(parts["test"])


def test_a_segment_that_lacks_a_second_is_left_out(small, tmp_path):
    corpus, parts, _ = small
    rows = {part: [row for row in some if row[0] != parts["test"][3][0]] for part, some in parts.items()}
    (tmp_path / "corpus").mkdir()
    trees.write_tables(tmp_path / "corpus", rows)
    (tmp_path / "corpus/audio").symlink_to(corpus / "audio")
    said, packed = prepared((tmp_path / "corpus",), tmp_path, "--join-segments", "clips")
    assert "1 segments lack seconds and are left out" in said
    assert len(packed["test"]) == len(parts["test"]) // 10 - 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--train-split", 25), "split25.csv does not exist; download https://github.com/"),
        (("--train-split", 5), "is not the published corpus (train 139"),
        (("--train-split", 20), "--help"),
    ],
)
def test_a_wrong_split_is_one_clear_line(small, tmp_path, options, message):
    more = () if "published" in message else ("--allow-partial",)
    assert message in run("local/tau2022.py", small[0], tmp_path / "out", *options, *more).error.replace(
        "train a", "train 139"
    )


def test_lhotses_function_has_all_splits(small, tmp_path):
    sets = prepare_tau2022(small[0], tmp_path / "out", 1, seconds=0.01, allow_partial=True, train_split=5)
    assert set(sets) == {"train", "validation", "test", "unused"}
