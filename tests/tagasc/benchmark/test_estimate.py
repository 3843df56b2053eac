from dataclasses import replace

import numpy as np
import pytest

from tagasc.audio.packed import PackedAudio
from tagasc.benchmark.estimate import (
    CHOSEN,
    CODES,
    PACKED,
    SCORED,
    STEP,
    TAGS,
    WHOLE,
    TaggerCost,
    Throughput,
    Workload,
    count,
    epoch_scores,
    stages,
)
from tagasc.benchmark.measure import Speed
from tagasc.scene.config import SceneTraining
from tagasc.tagger.config import SemiTraining, TaggerTraining
from tagasc.utils.log import log
from tests.helpers import RATE, SECONDS

THROUGHPUT = Throughput(packed=100, step=50, tags=20, whole=10, codes=40, chosen=5, scored=8)
WORK = Workload(
    train=120, validation=20, test=50, unused=30, seconds=5, sampling_rate=48000,
    curated=100, noisy=200, tagging_test=40, tagging_rate=48000, tagging_seconds=20,
)  # fmt: skip
SCENE = SceneTraining(epochs=3, batch=24)
TAGGER = TaggerCost(TaggerTraining(epochs=6, cycle=2, batch=16), SemiTraining(epochs=4), folds=2, stages=2, pads=2)
CORPORA = ("tau2019", "fsdkaggle2019")


def test_stages_take_the_expected_seconds():
    estimate = stages(WORK, 7, THROUGHPUT, SCENE, TAGGER)
    assert list(estimate) == ["download", "manifests", "pack", "tagger", "tags", "scenes", "codes", "svm", "report"]
    assert [name for name, seconds in estimate.items() if seconds is None] == ["download", "manifests", "report"]
    assert estimate["pack"] == pytest.approx((200 * 0.5 + 340 * 2 / 2) / 100)
    # 80 curated clips a fold are five steps of 16; 6 epochs have two streams, 4 three. Then, in clips of 10 s,
    # 3 snapshots make pseudo-labels, and 2, with 2 pads, score 40 test and 20 held-out clips.
    training, tagging = (6 * 80 * 2 + 4 * 80 * 3) / 50, (200 * 3 + 60 * 2 * 2) * 2 / 20
    assert estimate["tagger"] == pytest.approx(2 * (training + tagging))
    # With batches of 24 the fourth holds 8 curated clips, and 24 of every other stream.
    incomplete = stages(WORK, 7, THROUGHPUT, SCENE, replace(TAGGER, training=replace(TAGGER.training, batch=24)))
    training = (6 * (80 + 96) + 4 * (80 + 2 * 96)) / 50
    assert incomplete["tagger"] == pytest.approx(2 * (training + tagging))
    assert estimate["tags"] == pytest.approx(200 * 0.5 * 2 * 2 * 2 / 20)
    # 100 clips are four steps of 24; all 200 clips are coded after each epoch.
    assert estimate["scenes"] == pytest.approx(7 * 3 * (96 / 10 + 200 / 40))
    assert estimate["codes"] == pytest.approx(7 * 200 / 40)
    assert estimate["svm"] == pytest.approx(2 * 7 * 100 / 5)
    assert epoch_scores(WORK, 7, THROUGHPUT, SCENE) == pytest.approx(7 * 3 * 100 / 8)


def test_gpus_share_the_taggers_folds():
    one, four = (stages(replace(WORK, gpus=gpus), 7, THROUGHPUT, SCENE, TAGGER) for gpus in (1, 4))
    assert four["tagger"] == pytest.approx(one["tagger"] / 2)  # there are two folds
    assert four["pack"] == one["pack"]


def test_parallel_networks_share_training_and_codes():
    one, four = (stages(replace(WORK, at_once=networks), 7, THROUGHPUT, SCENE, TAGGER) for networks in (1, 4))
    assert {name for name in one if one[name] != four[name]} == {"scenes", "codes"}
    assert (four["scenes"], four["codes"]) == pytest.approx((one["scenes"] / 4, one["codes"] / 4))
    many = stages(replace(WORK, at_once=9), 7, THROUGHPUT, SCENE, TAGGER)
    assert many["codes"] == pytest.approx(one["codes"] / 7)  # there are seven networks


def test_without_the_papers_protocol_only_validation_clips_are_coded():
    work = replace(WORK, protocol="ours")
    assert stages(work, 7, THROUGHPUT, SCENE, TAGGER)["scenes"] == pytest.approx(7 * 3 * (96 / 10 + 20 / 40))
    assert epoch_scores(work, 7, THROUGHPUT, SCENE) == 0


def test_second_trainings_see_all_training_clips():
    ours = stages(replace(WORK, protocol="ours"), 7, THROUGHPUT, SCENE, TAGGER)
    work = replace(WORK, protocol="paper")
    paper = stages(work, 7, THROUGHPUT, SCENE, TAGGER)
    # 120 clips are five steps of 24; all 200 clips are coded after each epoch.
    assert paper["scenes"] - ours["scenes"] == pytest.approx(7 * 3 * (120 / 10 + 200 / 40))
    assert paper["codes"] == ours["codes"]
    assert epoch_scores(work, 7, THROUGHPUT, SCENE) == pytest.approx(7 * 3 * 120 / 8)
    final = stages(replace(WORK, protocol="ours", final_fit="all"), 7, THROUGHPUT, SCENE, TAGGER)
    assert final["scenes"] - ours["scenes"] == pytest.approx(7 * 3 * 120 / 10)
    assert final["codes"] == 2 * ours["codes"]


def test_an_external_tagger_is_not_estimated():
    estimate = stages(replace(WORK, own_tagger=False), 7, THROUGHPUT, SCENE, TAGGER)
    assert estimate["tagger"] is estimate["tags"] is None


def test_clips_are_counted_in_packed_audio(audio):
    work = count(Workload(at_once=3), *CORPORA, None, audio)
    clips = {split: PackedAudio(audio / f"fsdkaggle2019_{split}") for split in ("curated", "noisy", "test")}
    assert (work.train, work.test, work.unused, work.at_once) == (60, 30, 10, 3)
    assert 0 < work.validation < work.train / 2
    assert (work.seconds, work.sampling_rate, work.tagging_rate) == (SECONDS, RATE, RATE)
    assert [work.curated, work.noisy, work.tagging_test] == [len(packed) for packed in clips.values()]
    frames = [clip.frames for packed in clips.values() for clip in packed.clips]
    assert work.tagging_seconds == pytest.approx(np.mean(frames) / RATE)
    assert count(Workload(noisy=0), *CORPORA, None, audio).noisy == 0
    assert count(Workload(own_tagger=False), "tau2019", "none", None, audio).curated == 0


def test_manifests_give_the_same_counts_as_packed_audio(manifests, audio, tmp_path):
    listed = count(Workload(), *CORPORA, manifests, tmp_path)
    packed = count(Workload(), *CORPORA, tmp_path, audio)
    assert listed.tagging_seconds == pytest.approx(packed.tagging_seconds)
    assert replace(listed, tagging_seconds=1) == replace(packed, tagging_seconds=1)


def test_without_clips_the_published_counts_are_used_and_logged(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(log, "propagate", True)
    with caplog.at_level("INFO", "tagasc"):
        assert count(Workload(), *CORPORA, tmp_path / "data", tmp_path / "audio") == Workload()
    assert "no manifests or packed audio of tau2019 and fsdkaggle2019" in caplog.text


def test_throughput_picks_speeds_by_name():
    names = [PACKED, STEP, TAGS, WHOLE, CODES, CHOSEN, SCORED]
    measured = [Speed(f"{name}, and so on", 10.0 + n, 2) for n, name in enumerate(names)]
    assert Throughput.of(reversed(measured)) == Throughput(*(10.0 + n for n in range(7)))
