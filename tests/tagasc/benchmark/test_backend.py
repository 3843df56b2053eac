from tagasc.benchmark.backend import measure_backend


def test_choice_of_an_svm_and_scoring_of_an_epoch_are_measured():
    speeds = list(measure_backend(train=60, test=30, values=4, jobs=2, seconds=0))
    assert [speed.what for speed in speeds] == [
        "SVM chosen, ours, 2 thread(s)",
        "an epoch scored as the paper does, one process",
    ]
    assert all(speed.calls == 2 for speed in speeds)
