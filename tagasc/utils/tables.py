"""Tables that people and publishers write (CSV, TSV): read strictly, and the same way everywhere.

All text is stripped of blanks at its ends and brought to one Unicode form (NFC) here, so two cells that look alike are
alike. Headers must match exactly; a column that nothing reads is named in a warning. Empty rows, which spreadsheets
add, are skipped.
"""

import csv
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from tagasc.utils.errors import UserError
from tagasc.utils.log import log

_DELIMITERS = {"\t": "tabs", ",": "commas"}
_DOWNLOAD = "check the path, or download the table again"


class Row(dict[str, str]):
    """The cells of a line by column; ``where`` names file and line, for errors."""

    def __init__(self, cells: Mapping[str, str], where: str) -> None:
        super().__init__(cells)
        self.where = where


def clean(text: str) -> str:
    """Return text without blanks at its ends, in Unicode's form NFC."""
    return unicodedata.normalize("NFC", text).strip()


def names_in(cell: str) -> tuple[str, ...]:
    """Return the names that a cell lists, separated by commas."""
    return tuple(name.strip() for name in cell.split(","))


def read_table(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    ignored: Collection[str] | None = (),
    delimiter: str = ",",
    remedy: str = _DOWNLOAD,
) -> list[Row]:
    """Read a table with a header line.

    Args:
        path: the table, UTF-8.
        required: columns that it must have.
        optional: columns that it may have; where they are, no cell may be empty, as in the required ones.
        ignored: columns that are known and not read; any other one is named in a warning. None: there may be others.
        delimiter: tab or comma.
        remedy: what to do if the table is missing or has no rows, for the error.

    Raises:
        UserError: the table is missing, not text or empty; a column is missing, duplicate or nearly one of the known
            ones; or a line has an empty cell, or too few or too many.
    """
    (_, header), *lines = read_lines(path, delimiter, remedy)
    known = [*required, *optional]
    _check_header(path, header, required, known, delimiter, remedy)
    others = [column for column in dict.fromkeys(header) if column not in (*known, *(ignored or ()), "")]
    if others and ignored is not None:
        log.warning("%s: not read: column %s; known are %s", path, ", ".join(others), ", ".join(known))
    rows = []
    for number, cells in lines:
        row = Row(dict(zip(header, cells, strict=False)), f"{path}, line {number}")
        if len(cells) < len(header) or any(cells[len(header) :]):
            raise UserError(f"{row.where}: not as many fields as columns; fix the line")
        empty = [column for column in known if column in row and not row[column]]
        if empty:
            hint = "" if empty[0] in required else f", or remove the column {empty[0]}"
            raise UserError(f"{row.where} has no {empty[0]}; fix the line{hint}")
        rows.append(row)
    if not rows:
        raise UserError(f"{path} has no line but its header; add lines, or {remedy}")
    return rows


def read_lines(path: Path, delimiter: str = ",", remedy: str = _DOWNLOAD) -> list[tuple[int, list[str]]]:
    """Return the lines of a table that are not empty, each with its number.

    Raises:
        UserError: the table is missing, empty or not text.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            lines = [(reader.line_num, [clean(cell) for cell in cells]) for cells in reader]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {remedy}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a text table ({error}); save it as UTF-8 text, or {remedy}") from None
    lines = [(number, cells) for number, cells in lines if any(cells)]
    for number, cells in lines:
        if any("\0" in cell for cell in cells):
            raise UserError(f"{path}, line {number} holds a NUL character; save it as UTF-8 text, or {remedy}")
    if not lines:
        raise UserError(f"{path} is empty; add lines, or {remedy}")
    return lines


def warn_of_alike(path: Path, kind: str, names: Iterable[str]) -> None:
    """Warn of names of a table that differ in case, blanks or compatible characters only."""
    groups: dict[str, set[str]] = defaultdict(set)
    for name in names:
        groups[_folded(name)].add(name)
    for group in groups.values():
        if len(group) > 1:
            first, second = sorted(group)[:2]
            log.warning(
                "%s: the %s %r and %r are taken for two; if they are one, write them alike", path, kind, first, second
            )


def _check_header(
    path: Path, header: list[str], required: Sequence[str], known: list[str], delimiter: str, remedy: str
) -> None:
    duplicate = sorted({column for column in header if column and header.count(column) > 1})
    if duplicate:
        raise UserError(f"{path} has the column {duplicate[0]} twice; remove one")
    folded = {_folded(column): column for column in known}
    for column in header:
        near = folded.get(_folded(column), column)
        if column not in known and near != column:
            raise UserError(f"{path} has the column {column!r}; write it as {near}")
    if not set(required) <= set(header):
        separated = f"separated by {_DELIMITERS[delimiter]}"
        raise UserError(f"{path} has the columns {header}, not {list(required)} {separated}; fix it, or {remedy}")


def _folded(name: str) -> str:
    """Return a name without case, blanks, underscores and invisible characters."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(c for c in text if c != "_" and unicodedata.category(c) not in ("Zs", "Cf", "Cc"))
