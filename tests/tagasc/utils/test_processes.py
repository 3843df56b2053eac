import mmap

import numpy as np

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
