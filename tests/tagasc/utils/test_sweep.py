import errno
import fcntl
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tagasc.utils.errors import PartialFailure, UserError
from tagasc.utils.limits import describe_limit
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


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        OSError(errno.ENOSPC, "No space left"),
        OSError(errno.EMFILE, "Too many open files"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_an_interruption_or_a_limit_of_the_machine_ends_the_sweep(tmp_path, error):
    done = []

    def work(number):
        done.append(number)
        raise error

    with pytest.raises(type(error)):
        sweep(NAMES, work, tmp_path)
    assert done == [0]


def test_a_run_that_another_process_leaves_undone_is_done_at_the_end(tmp_path):
    """The other process may belong to a run.sh that was killed, or die itself."""
    done = []
    with (tmp_path / "b.log").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        def work(number):
            done.append(number)
            if number == 2:
                fcntl.flock(held, fcntl.LOCK_UN)
            return True

        sweep(NAMES, work, tmp_path)
    assert done == [0, 2, 1]


def shared(names, work, logs, processes=2):
    """Let some processes, here threads, share the runs; their first runs begin at once. Return what each raised."""
    together, local = threading.Barrier(processes), threading.local()

    def first_together(number):
        if not hasattr(local, "begun"):
            local.begun = together.wait(timeout=20)
        return work(number)

    def one(_):
        try:
            sweep(names, first_together, logs)
        except UserError as error:
            return error

    with ThreadPoolExecutor(processes) as pool:
        return list(pool.map(one, range(processes)))


def test_failures_are_counted_over_all_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("TAGASC_RUN", "1 10")
    tried = []

    def work(number):
        tried.append(number)
        raise UserError(f"loss {number}")

    for error in shared(["a", "b"], work, tmp_path):  # each sees one failure of its own
        assert "2 of 2 runs failed" in str(error)
        assert not isinstance(error, PartialFailure)
    assert sorted(tried) == [0, 1]  # no process tries what has failed in the other
    monkeypatch.setenv("TAGASC_RUN", "2 20")
    assert shared(["a", "b"], lambda number: True, tmp_path) == [None, None]  # the next start of run.sh tries again


def test_a_failure_is_reported_by_its_process_only(tmp_path, monkeypatch):
    monkeypatch.setenv("TAGASC_RUN", "1 10")

    def work(number):
        if number == 1:
            raise UserError("no good")
        return True

    errors = shared(NAMES, work, tmp_path)
    assert errors.count(None) == 1
    assert [str(error) for error in errors if error] == [f"1 of 3 runs failed: b: no good; its log: {tmp_path}/b.log"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, number):
    def without_locks(file, operation):
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", without_locks)
    with pytest.raises(OSError, match="no locks") as error:
        sweep(NAMES, lambda number: True, tmp_path)
    message = describe_limit(error.value)
    assert message.startswith(f"{tmp_path}/a.log: the file system does not support locks (flock)")


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
