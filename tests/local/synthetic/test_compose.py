import csv
import errno
import hashlib
import json
import os
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile

from local.published import TAU2019, by_split
from local.synthetic.compose import SceneSize, TaggingSize, _link, _make_scenes, _plan, _tagging_clip
from local.synthetic.composition import CITIES, SCENES, UNSEEN_CITY, Sources
from local.synthetic.sounds import POOLS, SYNTHESISERS, RecordedBackgrounds, RecordedEvents, SynthesisedEvents
from tests.helpers import RATE, run, succeed


def table(path, delimiter="\t"):
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def digests(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def test_the_scene_corpus_has_the_layout_of_tau_2019(scene_corpus):
    meta = table(scene_corpus / "meta.csv")
    assert list(meta[0]) == ["filename", "scene_label", "identifier", "source_label"]
    for row in meta:
        scene, city, location, _, device = row["filename"].removeprefix("audio/").removesuffix(".wav").split("-")
        assert (scene, f"{city}-{location}", device) == (row["scene_label"], row["identifier"], row["source_label"])
        assert city in CITIES
    info = soundfile.info(scene_corpus / meta[0]["filename"])
    assert (info.subtype, info.channels, info.samplerate) == ("PCM_24", 2, RATE)
    train = table(scene_corpus / "evaluation_setup/fold1_train.csv")
    test = table(scene_corpus / "evaluation_setup/fold1_evaluate.csv")
    assert [row["filename"] for row in table(scene_corpus / "evaluation_setup/fold1_test.csv")] == [
        r["filename"] for r in test
    ]
    assert not any(UNSEEN_CITY in row["filename"] for row in train)
    location_of = {row["filename"]: row["identifier"] for row in meta}
    assert not {location_of[row["filename"]] for row in train} & {location_of[row["filename"]] for row in test}


def test_the_tagging_corpus_has_the_layout_of_fsdkaggle2019(tagging_corpus):
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


SIZE = f"""--scenes.seconds 0.1 --scenes.sampling_rate {RATE // 2} --scenes.train 1 --scenes.test 1 --scenes.unused 0
    --tagging.sampling_rate {RATE // 2} --tagging.longest 0.3 --tagging.curated 17 --tagging.noisy 17 --tagging.test 17"""
PROGRAM = "local/synthetic/compose.py"
SCENE_CORPUS = "TAU-urban-acoustic-scenes-2019-development"
GROUP = r"^(\d+)-"


def options(out, more="", size=SIZE):
    """Options of the program for a small corpus; the last of equal ones counts."""
    return "--out", out, *size.split(), *more.split()


def compose(out, more=""):
    return succeed(PROGRAM, *options(out, more))


def test_the_seed_determines_the_files_with_any_number_of_processes(tmp_path):
    for name, more in {"a": "--nj 1", "b": "--nj 2", "c": "--seed 7"}.items():
        compose(tmp_path / name, f"--scenes.train 2 {more}")
    first, second, other = (digests(tmp_path / name) for name in "abc")
    assert first == second
    clips = {name for name in first if name.endswith(".wav")}
    assert len(clips) == 30 + 51
    assert not [name for name in clips & other.keys() if first[name] == other[name]]
    assert "up to date" in compose(tmp_path / "a", "--scenes.train 2")
    outcome = run(PROGRAM, *options(tmp_path / "a", "--scenes.train 3"))
    assert "was composed with other options; --force composes it again" in outcome.error


def test_a_corpus_of_an_earlier_version_is_current(tmp_path):
    """Options that are newer than the corpus count as their defaults; the table of events gets its present name."""
    compose(tmp_path)
    for record in tmp_path.glob("*/soundscapes.json"):
        composed = json.loads(record.read_text())
        del composed["scenes"]["unique_clips"], composed["tagging"]["unique_clips"], composed["group"]
        del composed["checksum"]
        record.write_text(json.dumps(composed))
    labels = tmp_path / SCENE_CORPUS / "event_labels.csv"
    labels.rename(labels.with_name("soundscapes_events.csv"))
    assert compose(tmp_path).count("up to date") == 2
    assert labels.exists()
    outcome = run(PROGRAM, *options(tmp_path, "--scenes.unique_clips 1"))
    assert "was composed with other options" in outcome.error


@pytest.mark.parametrize("force", ["", "--force"])
def test_other_folders_are_never_replaced(tmp_path, force):
    (tmp_path / SCENE_CORPUS).mkdir()
    (tmp_path / SCENE_CORPUS / "meta.csv").write_text("36 GB")
    assert "was not composed by this program" in run(PROGRAM, *options(tmp_path, force)).error
    assert (tmp_path / SCENE_CORPUS / "meta.csv").read_text() == "36 GB"


def test_force_composes_a_corpus_again(tmp_path):
    compose(tmp_path)
    assert "up to date" not in compose(tmp_path, "--seed 1 --force")


def test_repeated_clips_are_links_with_the_same_labels(tmp_path):
    compose(
        tmp_path,
        "--scenes.train 5 --scenes.test 3 --scenes.unused 1 --scenes.unique_clips 2 --scenes.seconds 0.5"
        " --tagging.curated 40 --tagging.noisy 3 --tagging.test 4 --tagging.unique_clips 17",
    )
    scenes, tagging = tmp_path / SCENE_CORPUS, tmp_path / "FSDKaggle2019"
    rows = table(scenes / "evaluation_setup/fold1_train.csv")
    train = [row["filename"] for row in rows if row["scene_label"] == "park"]
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


@pytest.mark.parametrize("error", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_clips_are_copied_if_links_fail(tmp_path, monkeypatch, error):
    def refuse(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    files = [tmp_path / name for name in "abc"]
    files[0].write_bytes(b"sound")
    _link(files, [0, 0, 0])
    assert [file.read_bytes() for file in files] == [b"sound"] * 3


def test_the_full_size_has_the_published_counts():
    size = SceneSize(published=True)
    counts = Counter()
    for scene in SCENES:
        counts.update(
            {f"{part} {scene}": count for part, count in zip(("train", "test", "unused"), size.of(scene), strict=True)}
        )
    assert counts == by_split(TAU2019)


@pytest.mark.parametrize("factor", [0, 15])
def test_the_event_rate_multiplies_the_events(tmp_path, factor):
    size = SceneSize(1.0, 8000, train=4, test=2, unused=1, clips_per_location=1, event_rate=factor)
    _make_scenes(tmp_path, size, Sources(SynthesisedEvents(8000, 0)), 0, 1)
    habit = np.exp((0.3**2 + 0.4**2) / 2)  # mean of a log-normal variable: the factor of cities and locations
    expected = factor * habit * 7 / 60 * sum(sum(scene.rates.values()) for scene in SCENES.values())
    assert len(table(tmp_path / "event_labels.csv")) == pytest.approx(expected, rel=0.15)


def test_a_location_belongs_to_one_scene_and_part():
    plans = _plan(SceneSize(train=9, test=6, unused=3), Sources(SynthesisedEvents(8000, 0)), 0)
    owner = {}
    for plan in plans:
        assert owner.setdefault(plan.location.name, (plan.scene, plan.part)) == (plan.scene, plan.part)
    assert len({plan.name for plan in plans}) == len(plans)


@pytest.mark.parametrize("name", SYNTHESISERS)
def test_pools_have_different_recordings_of_every_class(name):
    events = SynthesisedEvents(16000, seed=3)
    waves = {pool: set() for pool in POOLS}
    for pool in POOLS:
        for draw in range(4):
            wave = events.draw(name, pool, np.random.default_rng(draw))
            assert np.isfinite(wave).all()
            assert np.abs(wave).max() == pytest.approx(1)
            waves[pool].add(hashlib.sha256(wave.tobytes()).hexdigest())
    for first, second in combinations(POOLS, 2):
        assert not waves[first] & waves[second]


@pytest.fixture
def recordings(tmp_path):
    """Two classes in five groups, one in three, and one that is also a background; two backgrounds."""
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


def test_groups_stay_in_one_pool_and_small_classes_are_dropped(recordings):
    backgrounds = RecordedBackgrounds(recordings / "backgrounds", 8000)
    events = RecordedEvents(recordings / "events", 8000, 0, GROUP, backgrounds.names)
    assert events.classes == ["bark", "bell"]
    assert events.dropped["rain"] == "is a background"
    assert "no recording for" in events.dropped["cough"]
    pool_of = {}
    for by_pool in events.files.values():
        for pool, files in by_pool.items():
            for file in files:
                assert pool_of.setdefault(file.stem.split("-")[0], pool) == pool
    assert set(pool_of.values()) == set(POOLS)
    assert len(events.draw("bark", "tagging_train", np.random.default_rng(0))) == 3000  # without the silence


def test_every_location_has_a_separate_stretch(recordings):
    backgrounds = RecordedBackgrounds(recordings / "backgrounds", 8000)
    recording, _ = soundfile.read(recordings / "backgrounds/rain.wav")
    stretch = backgrounds.draw(0, 3, 10, 6000, np.random.default_rng(0))
    source = recording[3 * 8000 : 4 * 8000]
    # Between crossfades, the samples are those of the stretch times a constant.
    middle = stretch[2000:2100]
    scores = [abs(np.corrcoef(middle[:, 0], source[n : n + 100, 0])[0, 1]) for n in range(len(source) - 100)]
    assert max(scores) > 0.999
    assert stretch.shape == (6000, 2)


def test_recorded_sounds_give_both_corpora(recordings):
    """With two classes, some noisy clips hold both, so that no wrong label is left."""
    size = SIZE.replace("17", "10")
    more = "--scenes.seconds 1 --tagging.second_event 1 --tagging.missing 0 --tagging.wrong 1"
    folders = ("--events", recordings / "events", "--backgrounds", recordings / "backgrounds", "--group", GROUP)
    message = succeed(PROGRAM, *options(recordings / "out", more, size), *folders)
    assert "rain is left out: is a background" in message
    events = table(recordings / "out" / SCENE_CORPUS / "event_labels.csv")
    assert {row["event"] for row in events} <= {"bark", "bell"}


def test_noisy_labels_are_wrong_at_the_given_rate():
    sources = Sources(SynthesisedEvents(8000, 0))

    def labels(wrong):
        size = TaggingSize(sampling_rate=8000, longest=0.3, second_event=0, wrong=wrong)
        draw = lambda clip: _tagging_clip("train_noisy", clip, size, sources, np.random.default_rng(clip))
        return [draw(clip)[1] for clip in range(102)]

    correct = [[sources.events.classes[clip % 17]] for clip in range(102)]
    assert labels(0.0) == correct
    assert 0.5 < np.mean([label != right for label, right in zip(labels(0.6), correct, strict=True)]) < 0.7
