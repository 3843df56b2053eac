"""The paper's Tables 2 to 6 in the paper's own shape, its figure and ours in each cell."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagasc.report.markdown import NOT_RUN, Table, format_mean
from tagasc.report.results import SystemResult
from tagasc.scene.systems import System
from tagasc.utils.errors import UserError
from tagasc.utils.files import read_yaml

OURS = "shared_h4_l3"  # the system of Table 6
TITLES = {
    "table2": "Table 2: concatenation",
    "table3": "Table 3: multi-head attention",
    "table4": "Table 4: both, each with its own transform of the tags",
    "table5": "Table 5: both, with one transform for the two",
    "table6": "Table 6: networks on raw waveforms",
}


@dataclass(frozen=True)
class PaperResults:
    """What the paper printed.

    Attributes:
        corpus: the data set that it is of.
        accuracies: in %, by system.
        table6: Table 6: name, thousands of parameters or None, accuracy in %.
    """

    corpus: str
    accuracies: dict[str, float]
    table6: list[tuple[str, int | None, float]]

    @classmethod
    def read(cls, path: Path) -> "PaperResults":
        """Read ``egs/paper_results.yaml``.

        Raises:
            UserError: it is absent or not such a file.
        """
        tables = read_yaml(path, "give the file of the paper's figures")
        try:
            corpus, table6 = str(tables.pop("corpus")), tables.pop("table6")
            accuracies = {name: float(value) for records in tables.values() for name, value in records.items()}
            rows = [(name, size, float(accuracy)) for name, (size, accuracy) in table6.items()]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(f"{path} does not hold the paper's figures by table; see egs/paper_results.yaml") from None
        return cls(corpus, accuracies, rows)


@dataclass(frozen=True)
class Grid:
    """The systems of a table by row and column; None where the table has no such system."""

    rows: list[str]
    columns: list[str]
    names: list[list[str | None]]


def arrange(records: Mapping[str, System], row: Callable[[System], object], column: Callable[[System], object]) -> Grid:
    """Lay systems out by two of their properties, in the order in which these first occur."""
    rows, columns = ([*dict.fromkeys(map(key, records.values()))] for key in (row, column))
    place = {(row(record), column(record)): name for name, record in records.items()}
    names = [[place.get((r, c)) for c in columns] for r in rows]
    return Grid([str(r) for r in rows], [str(c) for c in columns], names)


def heads_by_layers(records: Mapping[str, System]) -> Grid:
    """Tables 3 and 5: heads down, layers that transform the tags across."""
    return arrange(records, lambda record: record.heads, lambda record: record.attention_layers)


def filled_tables(
    systems: Mapping[str, Mapping[str, System]], paper: PaperResults, results: Sequence[SystemResult]
) -> dict[str, Table]:
    """Tables 2 to 6, by name; of Tables 2 to 5 those that the file of systems holds."""
    ours = {result.name: result for result in results}

    def cell(name: str | None) -> str:
        return "" if name is None else f"{_printed(paper.accuracies.get(name))}<br>{_measured(ours.get(name))}"

    shown: dict[str, Table] = {}
    if "table2" in systems:
        shown["table2"] = _table2(systems["table2"], cell)
    if "table3" in systems:
        shown["table3"] = _grid_table(
            heads_by_layers(systems["table3"]), "heads \\ transform layers for attention map", cell
        )
    if "table4" in systems:
        layers = lambda record: f"{record.concat_layers}/{record.attention_layers}"
        found = arrange(systems["table4"], lambda record: record.heads, layers)
        shown["table4"] = _grid_table(found, "heads \\ transform layers for concat/att", cell)
    if "table5" in systems:
        shown["table5"] = _grid_table(heads_by_layers(systems["table5"]), "heads \\ transform layers", cell)
    shown["table6"] = _table6(paper, ours.get(OURS))
    return shown


def _table2(records: Mapping[str, System], cell: Callable[[str], str]) -> Table:
    titles = {"none": "Baseline", "code": "Codecat", "code_fc": "Codecat", "before_code": "Before code"}
    transformed = {"none": "-", "code": "×", "code_fc": "○", "before_code": "○"}
    rows = []
    for name, record in records.items():
        layers = {"none": "-", "before_code": str(record.concat_layers)}.get(record.concat, "×")
        rows.append((titles[record.concat], transformed[record.concat], layers, cell(name)))
    return ("system", "transform after concat", "layers before transform", "accuracy %"), rows


def _grid_table(layout: Grid, corner: str, cell: Callable[[str | None], str]) -> Table:
    rows = [(row, *map(cell, names)) for row, names in zip(layout.rows, layout.names, strict=True)]
    return (corner, *layout.columns), rows


def _table6(paper: PaperResults, ours: SystemResult | None) -> Table:
    rows = [
        (f"*{name if name != 'Ours' else 'the paper, Ours'}*", f"*{size}k*" if size else "-", _printed(accuracy))
        for name, size, accuracy in paper.table6
    ]
    size = f"{ours.parameters / 1000:.0f}k" if ours else NOT_RUN
    return ("system", "parameters", "accuracy %"), [*rows, (f"{OURS}, here", size, _measured(ours))]


def _printed(value: float | None) -> str:
    return "-" if value is None else f"*{value:.2f}*"


def _measured(result: SystemResult | None) -> str:
    return NOT_RUN if result is None else f"**{format_mean(result.accuracy_by_seed('test'), 2)}**"


def by_table(systems: Mapping[str, Mapping[str, System]], names: Iterable[str]) -> dict[str, list[str]]:
    """Which of the named systems each table holds."""
    known = set(names)
    return {table: [name for name in records if name in known] for table, records in systems.items()}
