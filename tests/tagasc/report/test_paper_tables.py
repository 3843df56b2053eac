import pytest

from tagasc.report.markdown import markdown_table
from tagasc.report.paper_tables import PaperResults, filled_tables, heads_by_layers
from tagasc.scene.systems import read_systems
from tagasc.utils.errors import UserError
from tests.helpers import ROOT
from tests.tagasc.report.test_tables import CLIPS, run, system

PAPER = PaperResults.read(ROOT / "egs/paper_results.yaml")
TABLES = read_systems(ROOT / "egs/systems.yaml")


def test_the_paper_has_an_accuracy_for_each_of_the_56_systems():
    assert list(PAPER.accuracies) == [name for records in TABLES.values() for name in records]
    assert len(PAPER.accuracies) == 56


def test_accuracies_are_those_printed_in_the_paper():
    """Row by row."""
    printed = """
        73.63 74.15 74.36 74.84 74.22 75.66 75.22 74.07

        75.67 76.58 75.93 75.50
        75.45 75.22 76.24 76.17
        74.41 74.36 74.89 75.17
        73.61 74.47 74.43 75.96
        75.14 75.57 75.24 75.31

        74.76 75.74 75.17 75.14
        75.31 75.84 76.24 75.34

        76.12 75.62 75.34 75.69
        75.43 76.00 76.24 76.75
        75.84 74.71 75.96 75.69
        76.00 75.81 75.91 75.72
        75.26 75.45 76.24 76.27"""
    assert list(PAPER.accuracies.values()) == [float(figure) for figure in printed.split()]


def test_table_6_is_that_of_the_paper():
    assert [row[:3] for row in PAPER.table6] == [
        ("Huang et al. [2]", 53452, 76.08),
        ("Jung et al. [21]", 636, 75.81),
        ("Zheng et al. [7]", None, 69.23),
        ("Ours", 676, 76.75),
    ]


def test_tables_have_the_papers_layout_and_mark_cells_not_run():
    ours = system("att_h4_l2", run(1, CLIPS.scenes, 0.5), run(2, ["bus"] * 7, 0.5))
    shown = filled_tables(TABLES, PAPER, [ours])
    assert list(shown) == ["table2", "table3", "table4", "table5", "table6"]
    header, rows = shown["table3"]
    assert header[1:] == ("0", "1", "2", "3")
    assert [row[0] for row in rows] == ["2", "4", "8", "16", "32"]
    assert rows[1][3] == "*76.24*<br>**66.67 ± 47.14**"
    assert rows[1][2] == "*75.22*<br>not run"
    assert [row[:3] for row in shown["table2"][1]] == [
        ("Baseline", "-", "-"), ("Codecat", "×", "-"), ("Codecat", "○", "×"),
        *[("Before code", "○", str(n)) for n in (1, 2, 3, 4, 5)],
    ]  # fmt: skip
    assert shown["table4"][0][1:] == ("3/3", "3/4", "4/3", "4/4")
    assert shown["table4"][1][1][3] == "*76.24*<br>not run"
    assert shown["table5"][1][4][4] == "*76.27*<br>not run"
    assert sum(markdown_table(table).count("not run") for table in shown.values()) == 55 + 2 + 4
    assert shown["table6"][1][-1][:3] == ("shared_h4_l3 (ours)", "not run", "not run")


def test_table_6_shows_our_parameters():
    shown = filled_tables(TABLES, PAPER, [system("shared_h4_l3", run(1, CLIPS.scenes, 0.5))])
    assert shown["table6"][1][-1][:3] == ("shared_h4_l3 (ours)", "1235k", "**100.00**")


def test_table_6_says_what_each_row_is_and_that_it_is_quoted():
    _, rows = filled_tables(TABLES, PAPER, [])["table6"]
    quoted, ours = rows[:-1], rows[-1]
    assert all("; quoted from the paper, not run" in what for *_, what in quoted)
    assert "AclNet" in quoted[0][3]
    assert "taught by specialist" in quoted[1][3]
    commands = [row[3].partition("`")[2].rstrip("`") for row in rows if "`" in row[3]]
    assert commands == ["./run.sh --recipe dcase2019 --trunk released --training released --systems baseline"]
    assert quoted[1][0] == "*Jung et al. [21]*"
    assert "quoted" not in ours[3]


def test_the_digits_fit_the_test_sets_only_if_truncated():
    """A figure fits a test set of n clips if it is k/n in % to two decimals: truncated, or rounded."""
    truncated, rounded = {}, {}
    for table, records in TABLES.items():
        hundredths = [round(100 * PAPER.accuracies[name]) for name in records]
        for n in (5215, 4185):
            by_truncation = {10_000 * k // n for k in range(n)}
            by_rounding = {(20_000 * k + n) // (2 * n) for k in range(n)}
            truncated[table, n] = sum(figure in by_truncation for figure in hundredths)
            rounded[table, n] = sum(figure in by_rounding for figure in hundredths)
    assert [truncated[f"table{t}", n] for t in (2, 3, 4, 5) for n in (5215, 4185)] == [8, 3, 14, 16, 5, 8, 13, 20]
    assert [rounded[f"table{t}", n] for t in (2, 4, 5) for n in (5215, 4185)] == [5, 6, 5, 3, 9, 7]


def test_a_grid_has_none_for_missing_systems():
    grid = heads_by_layers({name: TABLES["table3"][name] for name in ("att_h2_l0", "att_h4_l3")})
    assert grid.names == [["att_h2_l0", None], [None, "att_h4_l3"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (text, "must list the paper's accuracies by table")
            for text in ("", "corpus: x", "corpus: x\ntable6: {a: 3}")
        ),
        ("table2: {baseline: much}", "must list the paper's accuracies by table"),
        ("a: [", "is not valid YAML"),
        ("corpus: x\ntable2: {baseline: 1, baseline: 2}\ntable6: {}", "is not valid YAML: duplicate key 'baseline'"),
    ],
)
def test_a_malformed_file_is_an_error(tmp_path, text, message):
    (tmp_path / "paper.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"paper\.yaml {message}"):
        PaperResults.read(tmp_path / "paper.yaml")
