import csv
import errno
import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from local.synthetic.compose import SceneSize, _link, _plan
from local.synthetic.composition import CITIES, SCENES, UNSEEN_CITY, Sources
from local.synthetic.sounds import POOLS, SYNTHESISERS, RecordedBackgrounds, RecordedEvents, SynthesisedEvents
from local.tau2019 import PUBLISHED
from tests.helpers import RATE, run, succeed


def table(path, delimiter="\t"):
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def digests(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def test_the_layout_is_tau_2019(scene_corpus):
    meta = table(scene_corpus / "meta.csv")
    assert list(meta[0]) == ["filename", "scene_label", "identifier", "source_label"]
    for row in meta:
        scene, city, place, _, device = row["filename"].removeprefix("audio/").removesuffix(".wav").split("-")
        assert (scene, f"{city}-{place}", device) == (row["scene_label"], row["identifier"], row["source_label"])
        assert city in CITIES
    info = soundfile.info(scene_corpus / meta[0]["filename"])
    assert (info.subtype, info.channels, info.samplerate) == ("PCM_24", 2, RATE)
    train = table(scene_corpus / "evaluation_setup/fold1_train.csv")
    test = table(scene_corpus / "evaluation_setup/fold1_evaluate.csv")
    assert [row["filename"] for row in table(scene_corpus / "evaluation_setup/fold1_test.csv")] == [
        r["filename"] for r in test
    ]
    assert not any(UNSEEN_CITY in row["filename"] for row in train)
    place_of = {row["filename"]: row["identifier"] for row in meta}
    assert not {place_of[row["filename"]] for row in train} & {place_of[row["filename"]] for row in test}


def test_the_layout_is_fsdkaggle2019(tagging_corpus):
    for part, columns in (
        ("train_curated", ["fname", "labels", "freesound_id", "license"]),
        ("train_noisy", ["fname", "labels", "flickr_video_URL", "license"]),
        ("test", ["fname", "labels", "usage", "freesound_id", "license"]),
    ):
        rows = table(tagging_corpus / f"FSDKaggle2019.meta/{part}_post_competition.csv", ",")
        assert list(rows[0]) == columns
        audio = tagging_corpus / f"FSDKaggle2019.audio_{part}"
        assert {row["fname"] for row in rows} == {path.name for path in audio.iterdir()}
        info = soundfile.info(audio / rows[0]["fname"])
        assert (info.subtype, info.channels) == ("PCM_16", 1)
    vocabulary = (tagging_corpus / "FSDKaggle2019.meta/vocabulary.csv").read_text().splitlines()
    assert vocabulary == [f"{number},{name}" for number, name in enumerate(sorted(SYNTHESISERS))]


def test_the_same_seed_gives_the_same_files_whatever_the_processes(tmp_path):
    options = ["--scenes.seconds", 0.5, "--scenes.sampling_rate", 8000, "--scenes.train", 2, "--scenes.test", 1, "--scenes.unused", 0,
               "--tagging.sampling_rate", 8000, "--tagging.curated", 17, "--tagging.noisy", 17, "--tagging.test", 17]  # fmt: skip
    for name, more in {"a": (), "b": ("--nj", 2), "c": ("--seed", 7)}.items():
        succeed("local/synthetic/compose.py", "--out", tmp_path / name, *options, *more)
    one, two, other = (digests(tmp_path / name) for name in "abc")
    assert one == two
    wavs = {name for name in one if name.endswith(".wav")}
    assert len(wavs) == 30 + 51
    assert not [name for name in wavs & other.keys() if one[name] == other[name]]
    assert "up to date" in succeed("local/synthetic/compose.py", "--out", tmp_path / "a", *options)
    outcome = run("local/synthetic/compose.py", "--out", tmp_path / "a", *options, "--scenes.train", 3)
    assert "was made with other options; --force makes it anew" in outcome.error


SMALL = ["--scenes.seconds", 0.1, "--scenes.sampling_rate", 8000, "--scenes.train", 1, "--scenes.test", 1, "--scenes.unused", 0,
         "--tagging.sampling_rate", 8000, "--tagging.longest", 0.3, "--tagging.curated", 17, "--tagging.noisy", 17, "--tagging.test", 17]  # fmt: skip


def test_options_that_came_later_had_their_defaults(tmp_path):
    """A corpus made before the options ``unique_clips`` and ``group`` is that of their defaults, and of no other value."""
    succeed("local/synthetic/compose.py", "--out", tmp_path, *SMALL)
    for record in tmp_path.glob("*/soundscapes.json"):
        options = json.loads(record.read_text())
        del options["scenes"]["unique_clips"], options["tagging"]["unique_clips"], options["group"]
        record.write_text(json.dumps(options))
    labels = tmp_path / "TAU-urban-acoustic-scenes-2019-development/event_labels.csv"
    labels.rename(labels.with_name("soundscapes_events.csv"))
    assert succeed("local/synthetic/compose.py", "--out", tmp_path, *SMALL).count("up to date") == 2
    assert labels.exists()
    outcome = run("local/synthetic/compose.py", "--out", tmp_path, *SMALL, "--scenes.unique_clips", 1)
    assert "was made with other options" in outcome.error


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["", "force"])
def test_what_it_did_not_make_is_left_alone(tmp_path, force):
    published = tmp_path / "TAU-urban-acoustic-scenes-2019-development"
    published.mkdir()
    (published / "meta.csv").write_text("36 GB")
    outcome = run("local/synthetic/compose.py", "--out", tmp_path, *SMALL, *force)
    assert "was not made by this program" in outcome.error
    assert (published / "meta.csv").read_text() == "36 GB"


def test_force_makes_its_own_anew(tmp_path):
    succeed("local/synthetic/compose.py", "--out", tmp_path, *SMALL)
    assert "up to date" not in succeed("local/synthetic/compose.py", "--out", tmp_path, *SMALL, "--seed", 1, "--force")


def test_a_large_corpus_of_few_sounds(tmp_path):
    """Clips past the distinct ones are links to one of the same scene and part, with its events or labels."""
    out = tmp_path / "out"
    succeed("local/synthetic/compose.py", "--out", out, "--scenes.seconds", 0.5, "--scenes.sampling_rate", 8000, "--scenes.train", 5,
            "--scenes.test", 3, "--scenes.unused", 1, "--scenes.unique_clips", 2, "--tagging.sampling_rate", 8000,
            "--tagging.curated", 40, "--tagging.noisy", 3, "--tagging.test", 4, "--tagging.unique_clips", 17)  # fmt: skip
    scenes, tagging = (out / name for name in ("TAU-urban-acoustic-scenes-2019-development", "FSDKaggle2019"))
    train = [
        row["filename"] for row in table(scenes / "evaluation_setup/fold1_train.csv") if row["scene_label"] == "park"
    ]
    assert [(scenes / name).samefile(scenes / train[n % 2]) for n, name in enumerate(train)] == [True] * 5
    assert len({path.stat().st_ino for path in (scenes / "audio").iterdir()}) == 10 * (2 + 2 + 1)
    events = {name: [] for name in train}
    for row in table(scenes / "event_labels.csv"):
        events.get(row.pop("filename"), []).append(row)
    assert events[train[0]] == events[train[2]] == events[train[4]]
    labels = {}
    for row in table(tagging / "FSDKaggle2019.meta/train_curated_post_competition.csv", ","):
        inode = (tagging / "FSDKaggle2019.audio_train_curated" / row["fname"]).stat().st_ino
        labels.setdefault(inode, []).append(row["labels"])
    assert len(labels) == 17
    assert sorted(map(len, labels.values())) == [2] * 11 + [3] * 6
    assert all(len(set(same)) == 1 for same in labels.values())


@pytest.mark.parametrize("why", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_without_hard_links_sounds_are_copied(tmp_path, monkeypatch, why):
    def refuse(*_):
        raise OSError(why, os.strerror(why))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    files = [tmp_path / name for name in "abc"]
    files[0].write_bytes(b"sound")
    _link(files, [0, 0, 0])
    assert [file.read_bytes() for file in files] == [b"sound"] * 3


def test_the_full_size_has_the_published_counts():
    size = SceneSize(published=True)
    found = Counter()
    for scene in SCENES:
        found.update(
            {f"{part} {scene}": count for part, count in zip(("train", "test", "unused"), size.of(scene), strict=True)}
        )
    assert found == PUBLISHED


def test_a_location_belongs_to_one_scene_and_part():
    plans = _plan(SceneSize(train=9, test=6, unused=3), Sources(SynthesisedEvents(8000, 0)), 0)
    of = {}
    for plan in plans:
        assert of.setdefault(plan.location.name, (plan.scene, plan.part)) == (plan.scene, plan.part)
    assert len({plan.name for plan in plans}) == len(plans)


@pytest.mark.parametrize("name", SYNTHESISERS)
def test_pools_hold_different_recordings_of_every_class(name):
    events = SynthesisedEvents(16000, seed=3)
    heard = {pool: set() for pool in POOLS}
    for pool in POOLS:
        for draw in range(4):
            wave = events.draw(name, pool, np.random.default_rng(draw))
            assert np.isfinite(wave).all()
            assert np.abs(wave).max() == pytest.approx(1)
            heard[pool].add(hashlib.sha256(wave.tobytes()).hexdigest())
    for one in POOLS:
        for other in POOLS:
            assert one == other or not heard[one] & heard[other]


@pytest.fixture
def recordings(tmp_path):
    """Two classes in five groups, one class in three groups, one that is also a background; two backgrounds."""
    random = np.random.default_rng(0)
    for name, groups in (("bark", 5), ("bell", 5), ("cough", 3), ("rain", 5)):
        (tmp_path / "events" / name).mkdir(parents=True)
        for group in range(groups):
            for take in "AB":
                wave = random.normal(size=4000) * np.r_[np.zeros(500), np.ones(3000), np.zeros(500)]
                soundfile.write(tmp_path / f"events/{name}/{group}-77-{take}.wav", 0.1 * wave, 8000)
    (tmp_path / "backgrounds").mkdir()
    for name in ("rain", "wind"):
        soundfile.write(tmp_path / f"backgrounds/{name}.wav", 0.1 * random.normal(size=(80000, 2)), 8000)
    return tmp_path


def test_groups_of_recordings_lie_in_one_pool_and_poor_classes_are_dropped(recordings):
    backgrounds = RecordedBackgrounds(recordings / "backgrounds", 8000)
    events = RecordedEvents(recordings / "events", 8000, 0, r"^(\d+)-", backgrounds.names)
    assert events.classes == ["bark", "bell"]
    assert events.dropped["rain"] == "is a background"
    assert "no recording for" in events.dropped["cough"]
    pool_of = {}
    for by_pool in events.files.values():
        for pool, files in by_pool.items():
            for file in files:
                assert pool_of.setdefault(file.stem.split("-")[0], pool) == pool
    assert set(pool_of.values()) == set(POOLS)
    assert len(events.draw("bark", "tagging_train", np.random.default_rng(0))) == 3000  # silence is cut off


def test_locations_have_stretches_of_their_own(recordings):
    backgrounds = RecordedBackgrounds(recordings / "backgrounds", 8000)
    whole, _ = soundfile.read(recordings / "backgrounds/rain.wav")
    stretch = backgrounds.draw(0, 3, 10, 6000, np.random.default_rng(0))
    own = whole[3 * 8000 : 4 * 8000]
    # Away from crossfades every sample is the stretch's, up to one factor.
    middle = stretch[2000:2100]
    scores = [abs(np.corrcoef(middle[:, 0], own[n : n + 100, 0])[0, 1]) for n in range(len(own) - 100)]
    assert max(scores) > 0.999
    assert stretch.shape == (6000, 2)


def test_recorded_sounds_make_both_corpora(recordings):
    said = succeed(
        "local/synthetic/compose.py", "--out", recordings / "out", "--events", recordings / "events", "--backgrounds", recordings / "backgrounds",
        "--group", r"^(\d+)-", "--scenes.seconds", 1, "--scenes.sampling_rate", 8000, "--scenes.train", 2, "--scenes.test", 1,
        "--scenes.unused", 0, "--tagging.sampling_rate", 8000, "--tagging.curated", 10, "--tagging.noisy", 10, "--tagging.test", 10,
        "--tagging.second_event", 1, "--tagging.missing", 0, "--tagging.wrong", 1,
    )  # fmt: skip
    assert "rain is left out: is a background" in said
    events = table(recordings / "out/TAU-urban-acoustic-scenes-2019-development/event_labels.csv")
    assert {row["event"] for row in events} <= {"bark", "bell"}


def test_noisy_labels_are_wrong_at_the_stated_rate(tmp_path):
    counts = {}
    for wrong in (0.0, 0.6):
        options = ["--tagging.noisy", 340, "--tagging.curated", 17, "--tagging.test", 17, "--tagging.second_event", 0, "--tagging.wrong", wrong,
                   "--tagging.sampling_rate", 8000, "--tagging.longest", 0.3, "--scenes.train", 1, "--scenes.test", 1, "--scenes.unused", 0,
                   "--scenes.seconds", 0.1, "--scenes.sampling_rate", 8000]  # fmt: skip
        succeed("local/synthetic/compose.py", "--out", tmp_path / str(wrong), *options)
        rows = table(tmp_path / str(wrong) / "FSDKaggle2019/FSDKaggle2019.meta/train_noisy_post_competition.csv", ",")
        counts[wrong] = {row["fname"]: row["labels"] for row in rows}
    differ = np.mean([counts[0.0][name] != counts[0.6][name] for name in counts[0.0]])
    assert 0.5 < differ < 0.7
