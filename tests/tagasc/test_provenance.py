from tagasc.provenance import difference, made_from, read, write


def test_a_changed_setting_or_input_is_named(tmp_path):
    path = tmp_path / "input"
    path.write_text("one")
    first = made_from("step", {"training": {"lr": 0.1}}, {"tags": path})
    assert difference(first, made_from("step", {"training": {"lr": 0.1}}, {"tags": path})) is None
    assert "training.lr was 0.1 and is 0.2" in difference(
        first, made_from("step", {"training": {"lr": 0.2}}, {"tags": path})
    )
    path.write_text("two")
    assert (
        difference(first, made_from("step", {"training": {"lr": 0.1}}, {"tags": path}))
        == "its input tags has changed since"
    )
    write(tmp_path, first)
    assert read(tmp_path) == first


def test_versions_and_command_are_kept():
    record = made_from("step", {}, {})
    assert record["versions"]["torch"] != "absent"
    assert {"command", "date", "commit", "machine"} <= record.keys()
