"""Corpora whose folders and file names say all: scene, split, location and further fields are found by a pattern."""

import os
import re
from pathlib import Path

from tagasc.utils.errors import UserError
from tagasc.utils.tables import Row, clean

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
A_FOLDER_A_SCENE = "(?P<scene>[^/]+)/.*"
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
    "unused": "unused",
}  # names of folders, and of splits


def rows_of(
    folder: Path, pattern: str = A_FOLDER_A_SCENE, remedy: str = "move it away, or change --pattern"
) -> list[Row]:
    """List the sound files in a folder as rows of a table, with the columns file and those that the pattern names.

    Args:
        folder: folder of the corpus.
        pattern: regular expression for a whole path from the folder on, separated by /; its named groups are the
            columns. It must have the group scene.
        remedy: what to do with a file that does not match, for the error.

    Raises:
        UserError: the pattern is wrong, a file does not match it, or there is no sound file.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that holds a folder per scene")
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--pattern {pattern!r} is not a regular expression ({error}); fix it") from None
    if "scene" not in expression.groupindex:
        raise UserError(f"--pattern {pattern!r} has no group scene; add (?P<scene>…)")
    rows = []
    for name in _sound_files(folder):
        match = expression.fullmatch(name)
        if match is None:
            raise UserError(f"{folder / name} does not match the pattern {pattern!r}; {remedy}")
        cells = {column: clean(value) for column, value in match.groupdict().items() if value is not None}
        rows.append(Row({"file": name, **cells, **_split(cells, folder / name)}, str(folder / name)))
    if not rows:
        raise UserError(f"{folder} holds no sound file ({' '.join(SUFFIXES)}); check the path")
    for column in ("location", "split"):
        lacking = [row for row in rows if column not in row]
        if 0 < len(lacking) < len(rows):
            raise UserError(f"{lacking[0].where} has no {column}, but other files have; change --pattern")
    return rows


def _sound_files(folder: Path) -> list[str]:
    """Return the paths of the sound files, from the folder on, in alphabetical order; hidden ones are no clips."""
    found = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        sounds = (name for name in files if name.lower().endswith(SUFFIXES) and not name.startswith("."))
        found += [Path(place, name).relative_to(folder).as_posix() for name in sounds]
    return sorted(map(clean, found))


def _split(cells: dict[str, str], path: Path) -> dict[str, str]:
    if "split" not in cells:
        return {}
    split = SPLITS.get(cells["split"].lower())
    if split is None:
        raise UserError(f"{path}: the split is {cells['split']!r}; it must be one of {', '.join(SPLITS)}")
    return {"split": split}
