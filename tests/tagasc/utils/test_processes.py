import errno
import logging
import mmap
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from tagasc.utils import processes


def gigabytes(text, unit):
    return float(text.partition(unit)[0].split()[-1])


def test_anonymous_memory_is_reported_without_mapped_files(tmp_path):
    before = gigabytes(processes.peak_memory(), " GB without")
    own = np.ones(300_000_000, np.uint8)
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(300_000_000)
        mapped = mmap.mmap(file.fileno(), 0)
        assert not np.frombuffer(mapped, np.uint8).any()
        text = processes.peak_memory()
    assert 0.15 < gigabytes(text, " GB without") - before < 0.45  # both rounded to 0.1
    assert gigabytes(text, " GB of memory") >= before + 0.5
    assert own.all()


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_without_shared_memory_one_process_works(code, monkeypatch, caplog):
    def refuse(*_, **__):
        raise OSError(code, "as /dev/shm is")

    monkeypatch.setattr(ProcessPoolExecutor, "__init__", refuse)
    monkeypatch.setattr(logging.getLogger("tagasc"), "propagate", True)
    with processes.mapping(3) as run:
        assert list(run(divmod, [7, 8], [2, 3])) == [(3, 1), (2, 2)]
    assert "/dev/shm, so only one works: as /dev/shm is; make" in caplog.text
    with processes.workers(2) as pool:
        assert pool.submit(int, "3").result() == 3
        with pytest.raises(ValueError, match="invalid"):
            pool.submit(int, "x").result()
