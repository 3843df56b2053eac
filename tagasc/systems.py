"""The list of systems and of their runs: reads ``egs/systems.yaml`` and picks from it by name."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from tagasc.command import from_values
from tagasc.errors import UserError
from tagasc.models.fusion import System


def read_systems(path: Path) -> dict[str, dict[str, System]]:
    """Read systems grouped by table.

    Raises:
        UserError: the file is absent or not YAML, a record is impossible, or a name stands twice.
    """
    try:
        tables = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give a file of systems") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tables, dict) or not all(isinstance(records, dict) for records in tables.values()):
        raise UserError(f"{path} must hold tables of named records; see egs/systems.yaml")
    names = [name for records in tables.values() for name in records]
    doubled = [name for name in names if names.count(name) > 1 or name in tables or name == "all"]
    if doubled:
        raise UserError(f"{path}: {doubled[0]} names two things; rename one")
    return {
        table: {name: from_values(System, record or {}, f"{path}, {name}") for name, record in records.items()}
        for table, records in tables.items()
    }


def select(tables: dict[str, dict[str, System]], wanted: Sequence[str], path: Path) -> dict[str, System]:
    """Pick systems by name, by table, or ``all``, each once, in the order asked for.

    Raises:
        UserError: a name that is neither.
    """
    every = {name: system for records in tables.values() for name, system in records.items()}
    chosen: dict[str, System] = {}
    for name in wanted:
        if name == "all":
            chosen |= every
        elif name in tables:
            chosen |= tables[name]
        elif name in every:
            chosen[name] = every[name]
        else:
            known = ", ".join([*tables, *list(every)[:4]])
            raise UserError(f"there is no system {name!r} in {path}; take all, {known}, …")
    return chosen


def runs(experiment: Path, kind: str, systems: Sequence[str], seeds: str) -> list[tuple[str, int, Path]]:
    """Every system with every seed, and the folder ``<experiment>/<kind>/<system>/seed<k>`` of its result.

    Raises:
        UserError: ``seeds`` are not whole numbers separated by spaces.
    """
    try:
        numbers = list(dict.fromkeys(int(seed) for seed in seeds.split()))
    except ValueError:
        raise UserError(f'--seeds {seeds!r} must be whole numbers, as in "1 2 3"') from None
    if not numbers or min(numbers) < 0:
        raise UserError(f'--seeds {seeds!r} must be one or more numbers from 0 on, as in "1 2 3"')
    return [(name, seed, experiment / kind / name / f"seed{seed}") for name in systems for seed in numbers]
