import numpy as np

from tagasc.benchmark import backend as svm_speed


def test_every_part_is_measured_with_one_thread_and_with_several():
    found = list(svm_speed.measure_backend(train=60, test=30, values=4, jobs=2, seconds=0))
    assert [speed.what for speed in found] == [
        "SVM chosen, plain SVC for each kernel and C in turn",
        "SVM chosen, ours, 1 thread",
        "SVM chosen, ours, 2 threads",
        "test clips predicted, rbf, 1 thread",
        "test clips predicted, rbf, 2 threads",
        "an epoch scored as the paper does, one process",
    ]
    assert all(speed.calls == 2 for speed in found)
    assert len(list(svm_speed.measure_backend(train=60, test=30, values=4, jobs=1, seconds=0))) == 4


def test_clips_are_counted_that_are_fitted_or_predicted(monkeypatch):
    counted = {}
    monkeypatch.setattr(svm_speed, "measure", lambda what, work, clips, *_: counted.update({what: clips}))
    list(svm_speed.measure_backend(train=60, test=30, values=4, jobs=1, seconds=0))
    assert {what: clips for what, clips in counted.items() if clips != 60} == {
        "test clips predicted, rbf, 1 thread": 30
    }


def test_both_ways_of_choosing_find_the_same(monkeypatch):
    found = {}
    monkeypatch.setattr(svm_speed, "measure", lambda what, work, *_: found.update({what: work()}))
    list(svm_speed.measure_backend(train=300, test=30, values=4, jobs=1, seconds=0))
    plain, ours = (found[what] for what in list(found)[:2])
    assert plain == [one["validation_accuracy"] for one in sorted(ours.tried, key=lambda one: one["kernel"])]
    assert np.ptp(plain) > 0
