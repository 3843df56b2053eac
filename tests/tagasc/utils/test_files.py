import pytest

from tagasc.utils.errors import UserError
from tagasc.utils.files import atomic_folder, delete_own


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
