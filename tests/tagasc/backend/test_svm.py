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


def test_kernel_and_cost_are_the_best_on_validation_and_fitted_on_training_codes_only():
    random = np.random.default_rng(0)
    train, validation = codes(random, 60, 0.6), codes(random, 60, 0.6)
    selected = select_svm(SvmConfig(), train, validation)
    assert [(tried["kernel"], tried["C"]) for tried in selected.tried] == [
        (k, c) for c in (1.0, 0.1, 10.0) for k in ("rbf", "sigmoid")
    ]
    svm, best = selected.classifier, max(selected.tried, key=lambda tried: tried["validation_accuracy"])
    assert best == selected.settings
    alone = SVC(kernel=best["kernel"], C=best["C"], gamma="scale").fit(train.codes, train.scenes)
    assert (svm.predict(validation.codes) == alone.predict(validation.codes)).all()
    assert (svm.predict(validation.codes) == validation.scenes).mean() == best["validation_accuracy"]


def test_the_number_of_threads_does_not_change_the_selection():
    random = np.random.default_rng(0)
    train, validation = codes(random, 60, 0.6), codes(random, 60, 0.6)
    one, two = (select_svm(SvmConfig(), train, validation, jobs=jobs) for jobs in (1, 2))
    assert one.tried == two.tried


@pytest.mark.parametrize("standardise", [False, True])
def test_threads_keep_the_order_of_clips(standardise):
    random = np.random.default_rng(0)
    classifier, clips = fit_svm(codes(random, 60, 0.6), "rbf", 1.0, standardise), codes(random, 601, 0.6)
    assert (predict(classifier, clips, jobs=3) == classifier.predict(clips.codes)).all()


def test_standardised_codes_do_not_depend_on_their_scales():
    random = np.random.default_rng(0)
    train, validation = codes(random, 60, 0.6), codes(random, 60, 0.6)
    scales = np.array([1, 1000, 0.001], np.float32)
    stretched = [
        Codes(c.ids, c.codes * scales, c.softmax_predictions, c.scenes, c.locations) for c in (train, validation)
    ]
    unstretched = select_svm(SvmConfig(), train, validation, standardise=True)
    assert select_svm(SvmConfig(), *stretched, standardise=True).tried == unstretched.tried
    assert select_svm(SvmConfig(), *stretched).tried != unstretched.tried
    standardised = (train.codes - train.codes.mean(axis=0)) / train.codes.std(axis=0)
    alone = SVC(kernel=unstretched.settings["kernel"], C=unstretched.settings["C"], gamma="scale").fit(
        standardised, train.scenes
    )
    assert (unstretched.classifier.predict(train.codes) == alone.predict(standardised)).mean() > 0.98


def test_codes_are_read_as_written_and_must_be_finite(tmp_path):
    written = codes(np.random.default_rng(0), 6, 0.1)
    written.write(tmp_path / "c.npz", {})
    assert (Codes.read(tmp_path / "c.npz").codes == written.codes).all()
    written.codes[2, 1] = np.inf
    written.write(tmp_path / "c.npz", {})
    with pytest.raises(UserError, match="not finite"):
        Codes.read(tmp_path / "c.npz")


def test_codes_of_different_lengths_are_refused():
    random = np.random.default_rng(0)
    other = codes(random, 6, 0.1)
    wider = Codes(other.ids, np.zeros((6, 5), np.float32), other.softmax_predictions, other.scenes, other.locations)
    with pytest.raises(UserError, match="differ in length"):
        select_svm(SvmConfig(), codes(random, 6, 0.1), wider)
