import numpy as np
import pytest

from tagasc.tagger.lwlrap import lwlrap
from tagasc.utils.files import write_npz
from tests.helpers import run, succeed

CLASSES = ["bell", "dog", "rain", "tram"]


def write_predictions(folder, name, stage, clips, quality, seed):
    """Write test predictions of a tagger, two takes per recording, as noise plus the truth; return their lwlrap."""
    random = np.random.default_rng(seed)
    ids = [f"{clip}-{take}" for clip in clips for take in "AB"]
    truth = np.eye(4, dtype=bool)[np.arange(len(ids)) // 2 % 4]
    values = np.clip(0.5 * random.random(truth.shape) + quality * truth, 0, 1).astype(np.float32)
    path = folder / name / f"predictions/{stage}_test.npz"
    write_npz(path, {}, ids=np.array(ids), classes=np.array(CLASSES), values=values, truth=truth)
    return lwlrap(truth, values)


def test_groups_are_pooled_over_test_sets_and_compared_with_the_first(tmp_path):
    scores = []
    for seed in (1, 2):
        for test, clips in ((1, range(20)), (2, range(20, 40))):
            name = f"test{test}_seed{seed}"
            scores.append(write_predictions(tmp_path, f"plain_{name}", "stage1", clips, 0.05, 10 * seed + test))
            write_predictions(tmp_path, f"both_{name}", "stage1", clips, 0.06, 10 * seed + test)
            write_predictions(tmp_path, f"both_{name}", "stage2", clips, 0.4, 10 * seed + test)
    groups = "plain: plain_/stage1; same: plain_/stage1; better: both_/stage2"
    output = succeed("steps/compare_taggers.py", "--taggers", tmp_path, "--groups", groups, "--out", tmp_path / "x.md")
    rows = [line.split("|")[1:-1] for line in (tmp_path / "x.md").read_text().splitlines()[2:]]
    plain, same, better = ([cell.strip() for cell in row] for row in rows)
    assert plain[1:4] == [
        "2",
        "80",
        f"{np.mean(scores):.3f} ± {np.std([np.mean(scores[:2]), np.mean(scores[2:])], ddof=1):.3f}",
    ]
    assert same[5:] == ["+0.000", "+0.000 to +0.000", "not significant"]
    assert better[7] == ""
    assert float(better[5]) > 0.1
    assert "not significant" in output


@pytest.mark.parametrize(("recordings", "known"), [(9, False), (10, True)])
def test_a_few_recordings_show_no_difference(tmp_path, recordings, known):
    write_predictions(tmp_path, "poor_seed1", "stage1", range(recordings), -0.5, 1)
    write_predictions(tmp_path, "good_seed1", "stage1", range(recordings), 0.6, 1)
    groups = "poor: poor/stage1; good: good/stage1"
    output = succeed("steps/compare_taggers.py", "--taggers", tmp_path, "--groups", groups)
    assert ("not significant" not in output, " to +" in output) == (known, known)


def test_groups_scored_on_other_clips_are_refused(tmp_path):
    write_predictions(tmp_path, "a_seed1", "stage1", range(4), 0.1, 1)
    write_predictions(tmp_path, "b_seed1", "stage1", range(5), 0.1, 1)
    options = ("--taggers", tmp_path, "--groups", "a: a/stage1; b: b/stage1")
    assert "b was not scored on the same clips as a" in run("steps/compare_taggers.py", *options).error
    for wrong in ("a", "a: a", "a: b/stage2"):
        assert run("steps/compare_taggers.py", "--taggers", tmp_path, "--groups", wrong).error


@pytest.mark.parametrize("pattern", ["(", "^x"])
def test_a_pattern_that_does_not_match_is_an_error(tmp_path, pattern):
    write_predictions(tmp_path, "a_seed1", "stage1", range(4), 0.1, 1)
    outcome = run("steps/compare_taggers.py", "--taggers", tmp_path, "--groups", "a: a/stage1", "--recording", pattern)
    assert "--recording" in outcome.error
