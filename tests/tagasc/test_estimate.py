from dataclasses import replace

import pytest

from tagasc.estimate import CHOSEN, CODES, PACKED, SCORED, STEP, TAGS, WHOLE, Speeds, Tagger, Work, epoch_scores, stages
from tagasc.scene.settings import SceneTraining
from tagasc.speed import Speed
from tagasc.tagger.settings import SemiTraining, TaggerTraining

SPEEDS = Speeds(packed=100, step=50, tags=20, whole=10, codes=40, chosen=5, scored=8)
WORK = Work(
    train=120, validation=20, test=50, unused=30, seconds=5, sampling_rate=48000,
    curated=100, noisy=200, tagging_test=40, tagging_rate=48000, tagging_seconds=20,
)  # fmt: skip
SCENE = SceneTraining(epochs=3, batch=24)
TAGGER = Tagger(TaggerTraining(epochs=6, cycle=2, batch=16), SemiTraining(epochs=4), folds=2, stages=2, pads=2)


def test_each_stage_by_hand():
    found = stages(WORK, 7, SPEEDS, SCENE, TAGGER)
    assert list(found) == ["download", "manifests", "pack", "tagger", "tags", "scenes", "codes", "svm", "report"]
    assert [name for name, seconds in found.items() if seconds is None] == ["download", "manifests", "report"]
    assert found["pack"] == pytest.approx((200 * 0.5 + 340 * 2 / 2) / 100)
    # 80 curated clips a fold are five steps of 16; 6 epochs of two streams, 4 of three; then, in clips of 10 s, soft
    # labels by 3 snapshots, and scores of 40 test and 20 held-out clips by 2.
    training, tagging = (6 * 80 * 2 + 4 * 80 * 3) / 50, (200 * 3 + 60 * 2) * 2 * 2 / 20
    assert found["tagger"] == pytest.approx(2 * (training + tagging))
    assert found["tags"] == pytest.approx(200 * 0.5 * 2 * 2 * 2 / 20)
    # 100 clips are four steps of 24; all 200 clips are coded after each epoch.
    assert found["scenes"] == pytest.approx(7 * 3 * (96 / 10 + 200 / 40))
    assert found["codes"] == pytest.approx(7 * 200 / 40)
    assert found["svm"] == pytest.approx(2 * 7 * 100 / 5)
    assert epoch_scores(WORK, 7, SPEEDS, SCENE) == pytest.approx(7 * 3 * 100 / 8)


def test_gpus_share_folds_and_networks():
    one, four = (stages(replace(WORK, gpus=gpus), 7, SPEEDS, SCENE, TAGGER) for gpus in (1, 4))
    assert four["scenes"] == pytest.approx(one["scenes"] / 4)
    assert four["tagger"] == pytest.approx(one["tagger"] / 2)  # there are two folds
    assert four["pack"] == one["pack"]


def test_without_the_papers_protocol_only_validation_is_coded():
    work = replace(WORK, epoch_scores=False)
    assert stages(work, 7, SPEEDS, SCENE, TAGGER)["scenes"] == pytest.approx(7 * 3 * (96 / 10 + 20 / 40))
    assert epoch_scores(work, 7, SPEEDS, SCENE) == 0


def test_speeds_are_taken_from_the_benchmark_by_name():
    names = [PACKED, STEP, TAGS, WHOLE, CODES, CHOSEN, SCORED]
    measured = [Speed(f"{name}, and so on", 10.0 + n, 2) for n, name in enumerate(names)]
    assert Speeds.of(reversed(measured)) == Speeds(*(10.0 + n for n in range(7)))
