import numpy as np
import pytest

from tagasc.utils.files import digest, write_npz
from tagasc.utils.provenance import difference, read, record, write


def test_the_difference_names_a_changed_setting_or_input(tmp_path):
    path = tmp_path / "input"
    path.write_text("one")
    first = record("step", {"training": {"lr": 0.1}}, {"tags": path})
    assert difference(first, record("step", {"training": {"lr": 0.1}}, {"tags": path})) is None
    assert "training.lr was 0.1 and is 0.2" in difference(
        first, record("step", {"training": {"lr": 0.2}}, {"tags": path})
    )
    path.write_text("two")
    assert (
        difference(first, record("step", {"training": {"lr": 0.1}}, {"tags": path}))
        == "its input tags has changed since"
    )
    write(tmp_path, first)
    assert read(tmp_path) == first


@pytest.mark.parametrize("content", [b"{", b'["step"]', '{"step": "forêt"}'.encode("latin-1")])
def test_an_invalid_record_is_read_as_none(tmp_path, content):
    (tmp_path / "provenance.json").write_bytes(content)
    assert read(tmp_path) is None


def test_the_digest_of_tag_vectors_ignores_their_record(tmp_path):
    """The date in the record must not make trainings on the tag vectors outdated."""
    for name, date in (("one.npz", "Monday"), ("two.npz", "Tuesday")):
        write_npz(tmp_path / name, {"date": date}, ids=np.array(["a"]), values=np.array([[0.25]]))
    assert digest(tmp_path / "one.npz") == digest(tmp_path / "two.npz")
    write_npz(tmp_path / "two.npz", {}, ids=np.array(["a"]), values=np.array([[0.26]]))
    assert digest(tmp_path / "one.npz") != digest(tmp_path / "two.npz")


def test_a_record_holds_versions_command_and_machine():
    new = record("step", {}, {})
    assert new["versions"]["torch"] != "absent"
    assert {"command", "date", "commit", "machine"} <= new.keys()
