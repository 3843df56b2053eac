"""Tables 2 to 6 of the paper, in its layout, with the paper's accuracy and ours in each cell."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagasc.report.markdown import NOT_RUN, Table, format_mean
from tagasc.report.results import SystemResult
from tagasc.scene.systems import System
from tagasc.utils.errors import UserError
from tagasc.utils.yaml_files import read_yaml

OURS = "shared_h4_l3"  # the paper's system in Table 6
EARLIER = "Jung et al. [21]"
STUDENT = (
    "To train its network without a teacher, the paper's starting point:"
    " `./run.sh --recipe dcase2019 --trunk released --training released --systems baseline`"
)
TITLES = {
    "table2": "Table 2: concatenation",
    "table3": "Table 3: multi-head attention",
    "table4": "Table 4: both, with separate transforms of the tags",
    "table5": "Table 5: both, with a shared transform of the tags",
    "table6": "Table 6: networks on raw waveforms",
}


@dataclass(frozen=True)
class PaperResults:
    """Accuracies printed in the paper.

    Attributes:
        corpus: name of the scene corpus.
        accuracies: accuracy by system, in %.
        table6: rows of Table 6: name, parameters in thousands or None, accuracy in %, and what the system is.
    """

    corpus: str
    accuracies: dict[str, float]
    table6: list[tuple[str, int | None, float, str]]

    @classmethod
    def read(cls, path: Path) -> "PaperResults":
        """Read ``egs/paper_results.yaml``.

        Raises:
            UserError: the file is missing or has another format.
        """
        tables = read_yaml(path, "give the file of the paper's results")
        try:
            corpus, table6 = str(tables.pop("corpus")), tables.pop("table6")
            accuracies = {name: float(value) for table in tables.values() for name, value in table.items()}
            rows = [(name, size, float(accuracy), str(what)) for name, (size, accuracy, what) in table6.items()]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(f"{path} must list the paper's accuracies by table; see egs/paper_results.yaml") from None
        return cls(corpus, accuracies, rows)


@dataclass(frozen=True)
class Grid:
    """Systems of a table by row and column; None where the table has no such system."""

    rows: list[str]
    columns: list[str]
    names: list[list[str | None]]


def arrange(systems: Mapping[str, System], row: Callable[[System], object], column: Callable[[System], object]) -> Grid:
    """Arrange systems by two of their properties, in order of first occurrence."""
    rows, columns = ([*dict.fromkeys(map(key, systems.values()))] for key in (row, column))
    name_at = {(row(system), column(system)): name for name, system in systems.items()}
    names = [[name_at.get((r, c)) for c in columns] for r in rows]
    return Grid([str(r) for r in rows], [str(c) for c in columns], names)


def heads_by_layers(systems: Mapping[str, System]) -> Grid:
    """Arrange Table 3 or 5: heads in rows, layers that transform the tags in columns."""
    return arrange(systems, lambda system: system.heads, lambda system: system.attention_layers)


def filled_tables(
    systems: Mapping[str, Mapping[str, System]], paper: PaperResults, results: Sequence[SystemResult]
) -> dict[str, Table]:
    """Fill Table 6 and those of Tables 2 to 5 that ``systems`` holds."""
    ours = {result.name: result for result in results}

    def cell(name: str | None) -> str:
        return "" if name is None else f"{_printed(paper.accuracies.get(name))}<br>{_measured(ours.get(name))}"

    tables: dict[str, Table] = {}
    if "table2" in systems:
        tables["table2"] = _table2(systems["table2"], cell)
    if "table3" in systems:
        corner = "heads \\ transform layers for attention map"
        tables["table3"] = _grid_table(heads_by_layers(systems["table3"]), corner, cell)
    if "table4" in systems:
        layers = lambda system: f"{system.concat_layers}/{system.attention_layers}"
        grid = arrange(systems["table4"], lambda system: system.heads, layers)
        tables["table4"] = _grid_table(grid, "heads \\ transform layers for concat/att", cell)
    if "table5" in systems:
        tables["table5"] = _grid_table(heads_by_layers(systems["table5"]), "heads \\ transform layers", cell)
    tables["table6"] = _table6(paper, ours.get(OURS))
    return tables


def _table2(systems: Mapping[str, System], cell: Callable[[str], str]) -> Table:
    titles = {"none": "Baseline", "code": "Codecat", "code_fc": "Codecat", "before_code": "Before code"}
    transformed = {"none": "-", "code": "×", "code_fc": "○", "before_code": "○"}
    rows = []
    for name, system in systems.items():
        layers = {"none": "-", "code": "-", "before_code": str(system.concat_layers)}.get(system.concat, "×")
        rows.append((titles[system.concat], transformed[system.concat], layers, cell(name)))
    return ("system", "transform after concat", "layers before transform", "accuracy %"), rows


def _grid_table(grid: Grid, corner: str, cell: Callable[[str | None], str]) -> Table:
    rows = [(row, *map(cell, names)) for row, names in zip(grid.rows, grid.names, strict=True)]
    return (corner, *grid.columns), rows


def _table6(paper: PaperResults, ours: SystemResult | None) -> Table:
    rows = [
        (
            f"*{name if name != 'Ours' else OURS + ' (paper)'}*",
            f"*{size}k*" if size else "-",
            _printed(accuracy),
            f"{what}; quoted from the paper, not run" + (f". {STUDENT}" if name == EARLIER else ""),
        )
        for name, size, accuracy, what in paper.table6
    ]
    size = f"{ours.parameters / 1000:.0f}k" if ours else NOT_RUN
    last = (f"{OURS} (ours)", size, _measured(ours), "the paper's best system, trained here; our protocol, SVM, test")
    return ("system", "parameters", "accuracy %", "what it is"), [*rows, last]


def _printed(value: float | None) -> str:
    return "-" if value is None else f"*{value:.2f}*"


def _measured(result: SystemResult | None) -> str:
    return NOT_RUN if result is None else f"**{format_mean(result.accuracy_by_seed('test'), 2)}**"


def by_table(systems: Mapping[str, Mapping[str, System]], names: Iterable[str]) -> dict[str, list[str]]:
    """Group the given system names by table."""
    known = set(names)
    return {table: [name for name in members if name in known] for table, members in systems.items()}
