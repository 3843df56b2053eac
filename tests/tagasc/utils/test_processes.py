import mmap

import numpy as np

from tagasc.utils import processes


def gigabytes(said, before):
    return float(said.partition(before)[0].split()[-1])


def test_memory_of_its_own_counts_and_mapped_files_apart(tmp_path):
    before = gigabytes(processes.peak_memory(), " GB without")
    own = np.ones(300_000_000, np.uint8)
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(300_000_000)
        mapped = mmap.mmap(file.fileno(), 0)
        assert not np.frombuffer(mapped, np.uint8).any()
        said = processes.peak_memory()
    assert 0.15 < gigabytes(said, " GB without") - before < 0.45  # both rounded to 0.1
    assert gigabytes(said, " GB of memory") >= before + 0.5
    assert own.all()
