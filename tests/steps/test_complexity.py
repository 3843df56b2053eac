import json

import pytest

from tests.helpers import ROOT, run, succeed

# Parameters of the two trunks: Table 1's text, and the released code, which matches Table 6.
PUBLISHED = {
    ("table1", "baseline"): 714_058,
    ("released", "baseline"): 636_736,
    ("released", "shared_h4_l3"): 676_784,
    ("table1", "shared_h4_l3"): 748_986,
}


@pytest.mark.parametrize("trunk", ["table1", "released"])
def test_every_system_has_a_row_with_exact_counts(trunk):
    output = succeed("steps/complexity.py", "--recipe", ROOT / "egs/dcase2019", "--trunk", trunk, "--json")
    rows = {row["system"]: row for row in json.loads(output)}
    assert len(rows) == 56
    for (name, system), count in PUBLISHED.items():
        if name == trunk:
            assert rows[system]["parameters"] == count
    code = {"table1": 64, "released": 128}[trunk]
    assert {name: row["code"] for name, row in rows.items() if row["code"] != code} == {"codecat": code + 80}
    assert {row["feature map"] for row in rows.values()} == {{"table1": "128×18", "released": "128×24"}[trunk]}


def test_multiply_accumulates_of_table_1():
    output = succeed("steps/complexity.py", "--recipe", ROOT / "egs/dcase2019", "--systems", "baseline", "--json")
    frames, total = 479_999 // 12, 479_999 // 12 * 24 * 128
    for _ in range(7):
        total += 2 * frames * 3 * 128 * 128
        frames //= 3
    assert json.loads(output)[0]["multiply-accumulates"] == total + 256 * 64 + 64 * 10


def test_a_missing_trunk_is_refused(tmp_path):
    outcome = run("steps/complexity.py", "--recipe", tmp_path, "--trunk", "table2")
    assert "trunk_table2.yaml does not exist" in outcome.error


@pytest.mark.parametrize(
    "content",
    [b"", b"stem_filters: [", b"stem_filters: few", b"stem_filter: 8", "code_size: 8 # forêt".encode("latin-1")],
)
def test_an_invalid_trunk_is_refused(tmp_path, content):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/trunk_mine.yaml").write_bytes(content)
    outcome = run("steps/complexity.py", "--recipe", tmp_path, "--trunk", "mine")
    assert outcome.status == 1
    assert "trunk_mine.yaml" in outcome.error


@pytest.mark.parametrize(
    ("option", "value"), [("tags", -3), ("scenes", -1), ("channels", 0), ("sampling-rate", 0), ("seconds", ".nan")]
)
def test_numbers_out_of_range_are_refused(option, value):
    outcome = run("steps/complexity.py", "--recipe", ROOT / "egs/dcase2019", f"--{option}", value)
    assert outcome.status == 1
    assert "must be positive" in outcome.error
