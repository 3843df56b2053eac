import pytest

from tagasc.utils import tables
from tagasc.utils.errors import UserError
from tagasc.utils.tables import read_lines, read_table, warn_of_alike


@pytest.fixture
def table(tmp_path):
    def write(*lines, encoding="utf-8"):
        path = tmp_path / "t.csv"
        path.write_text("\n".join(lines) + "\n", encoding=encoding)
        return path

    return write


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(tables.log, "propagate", True)
    return lambda: [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def cells(path, *optional):
    return [dict(row) for row in read_table(path, ("clip", "room"), optional)]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_text_is_stripped_and_has_one_unicode_form(table, mark, warnings):
    path = table(
        f"{mark}clip , room\t,é\u0301tat",
        "a.wav,  cafe\u0301 ,x",
        "b.wav,\u00a0café,y",
        ",,",
        ", ,",
        "",
        '"c.wav", café ,z,,',
    )
    assert [row["room"] for row in cells(path)] == ["café"] * 3
    assert [row["clip"] for row in cells(path)] == ["a.wav", "b.wav", "c.wav"]


@pytest.mark.parametrize("column", ["Date", "DATE", "da te", "da_te", "d\u00adate", "ｄate", "da\u00a0te", "daTE"])
def test_a_near_miss_of_a_column_is_an_error_of_which_it_says_how_to_write_it(table, column):
    with pytest.raises(UserError, match=r"t\.csv has the column '.*'; write it as date"):
        cells(table(f"clip,room,{column}", "a.wav,bath,monday"), "date")


@pytest.mark.parametrize("column", ["Clip", "ROOM", "cl ip"])
def test_a_near_miss_beside_the_column_itself_is_an_error_too(table, column):
    with pytest.raises(UserError, match="write it as"):
        cells(table(f"clip,room,{column}", "a.wav,bath,x"))


def test_a_column_that_nothing_reads_is_named_in_a_warning(table, warnings):
    cells(table("clip,room,datum,weather,,", "a.wav,bath,monday,,,"), "date")
    (warning,) = warnings()
    assert "not read: column datum, weather; known are clip, room, date" in warning


def test_known_columns_that_are_not_read_are_not_named(table, warnings):
    read_table(table("clip,room,licence", "a.wav,bath,"), ("clip", "room"), ignored=["licence"])
    assert not warnings()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["clip,room", "a.wav,bath", "", "b.wav, "], "line 4 has no room; fix the line$"),
        (["clip,room,date", "a.wav,bath,1", "b.wav,bath,\u00a0"], "line 3 has no date; fix the line, or remove the column date"),
        (["clip,room,date", "a.wav,bath"], "line 2: not as many fields as columns"),
        (["clip,room", "a.wav,bath,loud"], "line 2: not as many fields as columns"),
        (["clip,room,clip", "a.wav,bath,b.wav"], "has the column clip twice; remove one"),
        (["clip;room", "a.wav;bath"], r"not \['clip', 'room'\] separated by commas; fix it"),
        (["clip,room", 'a.wav,"bath', "b.wav,bath"], "is not a text table .unexpected end of data"),
        (["clip,room", "a.wav,ba\0th"], "line 2 holds a NUL character"),
        (["clip,room", ",", " , "], "has no line but its header; add lines"),
        ([",", ""], "is empty; add lines"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_read_as_meant_is_an_error(table, lines, message):
    with pytest.raises(UserError, match=message):
        cells(table(*lines), "date")


def test_text_of_another_encoding_is_an_error(table):
    with pytest.raises(UserError, match="save it as UTF-8 text"):
        read_lines(table("clip,room", "a.wav,café", encoding="utf-16"))


def test_names_that_look_alike_are_named(tmp_path, warnings):
    warn_of_alike(
        tmp_path / "t.csv", "rooms", ["bath", "Bath", "living room", "living_room", "hall", "hall-1", "hall-2"]
    )
    assert len(warnings()) == 2
    assert "the rooms 'Bath' and 'bath' are taken for two; if they are one, write them alike" in warnings()[0]
