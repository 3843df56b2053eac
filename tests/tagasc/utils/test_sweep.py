import fcntl

import pytest

from tagasc.utils.errors import PartialFailure, UserError
from tagasc.utils.sweep import clear_once, sweep

NAMES = ["a", "b", "c"]


def test_every_run_is_done_once_in_order(tmp_path):
    done = []
    sweep(NAMES, lambda number: bool(done.append(number)), tmp_path)
    assert done == [0, 1, 2]
    assert sorted(path.name for path in tmp_path.glob("*.log")) == ["a.log", "b.log", "c.log"]


def test_a_sweep_continues_after_a_failure_and_reports_it_with_its_log(tmp_path):
    done = []

    def work(number):
        if number == 1:
            raise ValueError("no good")
        done.append(number)
        return True

    with pytest.raises(PartialFailure) as error:
        sweep(NAMES, work, tmp_path)
    assert done == [0, 2]
    assert f"1 of 3 runs failed: b: no good; its log: {tmp_path}/b.log" in str(error.value)
    assert "Traceback" in (tmp_path / "b.log").read_text()  # a bug, not bad input
    assert "failed" not in (tmp_path / "a.log").read_text()


def test_a_sweep_without_success_is_an_error(tmp_path):
    def work(number):
        raise UserError("bad input")

    with pytest.raises(UserError, match="3 of 3 runs failed") as error:
        sweep(NAMES, work, tmp_path)
    assert not isinstance(error.value, PartialFailure)
    with pytest.raises(UserError, match=r"^bad input$"):
        sweep(["a"], work, tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left")])
def test_an_interruption_or_a_full_disk_ends_the_sweep(tmp_path, error):
    done = []

    def work(number):
        done.append(number)
        raise error

    with pytest.raises(type(error)):
        sweep(NAMES, work, tmp_path)
    assert done == [0]


def test_a_run_locked_by_another_process_is_skipped(tmp_path):
    done = []
    with (tmp_path / "b.log").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        sweep(NAMES, lambda number: bool(done.append(number)), tmp_path)
    assert done == [0, 2]


def test_force_clears_each_result_once_per_start_of_run_sh(tmp_path, monkeypatch):
    """Results of systems are cleared first, those of controls later, with the same folder of logs."""
    system, control = tmp_path / "system", tmp_path / "control"
    for started, cleared, left in (
        ("1 10", [system], [False, True]),
        ("1 10", [system], [True, True]),
        ("1 10", [control], [True, False]),
        ("1 10", [control], [True, True]),
        ("2 20", [system, control], [False, False]),
    ):
        monkeypatch.setenv("TAGASC_RUN", started)
        for folder in (system, control):
            folder.mkdir(exist_ok=True)
        clear_once(cleared, tmp_path / "log", ["*"])
        assert [system.exists(), control.exists()] == left
