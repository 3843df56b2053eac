import zipfile

import numpy as np
import pytest

from tagasc.utils.errors import UserError
from tagasc.utils.files import atomic_folder, delete_own, digest, read_npz


def test_a_folder_is_replaced_if_it_holds_only_what_its_program_writes(tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("old.npz", ".123.temporary.npz", "provenance.json"):
        (tmp_path / "out" / name).touch()
    with atomic_folder(tmp_path / "out", "*.npz", "provenance.json") as folder:
        (folder / "new.npz").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new.npz"]


def test_a_folder_with_other_files_is_neither_replaced_nor_deleted(tmp_path):
    (tmp_path / "thesis.tex").write_text("text")
    with pytest.raises(UserError, match=r"holds thesis\.tex, which this program did not write"):
        delete_own(tmp_path, "*.npz")
    with (
        pytest.raises(UserError, match="move it away, or choose another folder"),
        atomic_folder(tmp_path, "*.npz") as folder,
    ):
        (folder / "new.npz").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "out").write_text("text")
    with pytest.raises(UserError, match="is a file, and a folder is needed"), atomic_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out").read_text() == "text"


@pytest.mark.parametrize("shape", ["(100000000000,)", "(9, 99999999999)", "(0,)"])
def test_an_npz_whose_header_does_not_fit_its_size_is_damaged(tmp_path, shape):
    """A header of 10^11 rows must not be believed, since memory is reserved for them."""
    path = tmp_path / "tags.npz"
    np.savez(path, values=np.zeros(3, np.float32))
    with zipfile.ZipFile(path) as archive:
        content = archive.read("values.npy")
    header = content[:128].replace(b"(3,)", shape.encode(), 1).rstrip()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("values.npy", header.ljust(127) + b"\n" + content[128:])
    with pytest.raises(
        UserError, match=r"tags\.npz is not a readable \.npz file .*does not fit its size.*; run stage 4"
    ):
        read_npz(path, ("values",), "stage 4 (tags)")
    assert digest(path) == "not readable"
