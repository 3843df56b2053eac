import numpy as np
import pytest
from sklearn.svm import SVC

from tagasc.backend.codes import Codes
from tagasc.backend.svm import SvmConfig, fit_svm, predict, select_svm
from tagasc.utils.errors import UserError


def codes(random, count, spread):
    scenes = np.array(["a", "b", "c"])[np.arange(count) % 3]
    centres = np.eye(3)[np.arange(count) % 3]
    return Codes(
        np.arange(count).astype(str),
        (centres + spread * random.normal(size=(count, 3))).astype(np.float32),
        scenes,
        scenes,
        scenes,
    )


def test_kernel_and_cost_are_the_best_on_validation_and_fitted_on_training_alone():
    random = np.random.default_rng(0)
    train, validation = codes(random, 60, 0.6), codes(random, 60, 0.6)
    found = select_svm(SvmConfig(), train, validation)
    assert [(one["kernel"], one["C"]) for one in found.tried] == [
        (k, c) for c in (1.0, 0.1, 10.0) for k in ("rbf", "sigmoid")
    ]
    svm, best = found.classifier, max(found.tried, key=lambda one: one["validation_accuracy"])
    assert best == found.settings
    alone = SVC(kernel=best["kernel"], C=best["C"], gamma="scale").fit(train.codes, train.scenes)
    assert (svm.predict(validation.codes) == alone.predict(validation.codes)).all()
    assert (svm.predict(validation.codes) == validation.scenes).mean() == best["validation_accuracy"]


def test_jobs_change_nothing():
    random = np.random.default_rng(0)
    train, validation = codes(random, 60, 0.6), codes(random, 60, 0.6)
    one, two = (select_svm(SvmConfig(), train, validation, jobs=jobs) for jobs in (1, 2))
    assert one.tried == two.tried


@pytest.mark.parametrize("standardise", [False, True])
def test_threads_name_the_scenes_of_clips_in_their_order(standardise):
    random = np.random.default_rng(0)
    machine, clips = fit_svm(codes(random, 60, 0.6), "rbf", 1.0, standardise), codes(random, 601, 0.6)
    assert (predict(machine, clips, jobs=3) == machine.predict(clips.codes)).all()


def test_standardised_codes_do_not_depend_on_their_scales():
    random = np.random.default_rng(0)
    train, validation = codes(random, 60, 0.6), codes(random, 60, 0.6)
    scales = np.array([1, 1000, 0.001], np.float32)
    stretched = [
        Codes(c.ids, c.codes * scales, c.softmax_predictions, c.scenes, c.locations) for c in (train, validation)
    ]
    plain = select_svm(SvmConfig(), train, validation, standardise=True)
    assert select_svm(SvmConfig(), *stretched, standardise=True).tried == plain.tried
    assert select_svm(SvmConfig(), *stretched).tried != plain.tried
    by_hand = (train.codes - train.codes.mean(axis=0)) / train.codes.std(axis=0)
    alone = SVC(kernel=plain.settings["kernel"], C=plain.settings["C"], gamma="scale").fit(by_hand, train.scenes)
    assert (plain.classifier.predict(train.codes) == alone.predict(by_hand)).mean() > 0.98


def test_codes_survive_the_disk_and_refuse_what_is_not_finite(tmp_path):
    made = codes(np.random.default_rng(0), 6, 0.1)
    made.write(tmp_path / "c.npz", {})
    assert (Codes.read(tmp_path / "c.npz").codes == made.codes).all()
    made.codes[2, 1] = np.inf
    made.write(tmp_path / "c.npz", {})
    with pytest.raises(UserError, match="not finite"):
        Codes.read(tmp_path / "c.npz")


def test_codes_of_different_runs_do_not_mix():
    random = np.random.default_rng(0)
    other = codes(random, 6, 0.1)
    wider = Codes(other.ids, np.zeros((6, 5), np.float32), other.softmax_predictions, other.scenes, other.locations)
    with pytest.raises(UserError, match="differ in length"):
        select_svm(SvmConfig(), codes(random, 6, 0.1), wider)
