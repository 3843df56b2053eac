import numpy as np
import pytest
from sklearn.svm import SVC

from tagasc.backend import Codes, SvmConfig, choose_svm
from tagasc.errors import UserError


def codes(random, count, spread):
    scenes = np.array(["a", "b", "c"])[np.arange(count) % 3]
    centres = np.eye(3)[np.arange(count) % 3]
    return Codes(
        np.arange(count).astype(str),
        (centres + spread * random.normal(size=(count, 3))).astype(np.float32),
        centres.astype(np.float32),
        scenes,
        scenes,
    )


def test_kernel_and_cost_are_the_best_on_validation_and_fitted_on_training_alone():
    random = np.random.default_rng(0)
    train, validation = codes(random, 60, 0.6), codes(random, 60, 0.6)
    svm, tried = choose_svm(SvmConfig(), train, validation)
    assert [(one["kernel"], one["C"]) for one in tried] == [
        (k, c) for c in (1.0, 0.1, 10.0) for k in ("rbf", "sigmoid")
    ]
    best = max(tried, key=lambda one: one["validation_accuracy"])
    alone = SVC(kernel=best["kernel"], C=best["C"], gamma="scale").fit(train.codes, train.scenes)
    assert (svm.predict(validation.codes) == alone.predict(validation.codes)).all()
    assert (svm.predict(validation.codes) == validation.scenes).mean() == best["validation_accuracy"]


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
    wider = Codes(other.ids, np.zeros((6, 5), np.float32), other.logits, other.scenes, other.locations)
    with pytest.raises(UserError, match="differ in length"):
        choose_svm(SvmConfig(), codes(random, 6, 0.1), wider)
