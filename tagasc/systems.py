"""The list of systems and of their runs: reads ``egs/systems.yaml`` and picks from it by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagasc.command import from_values
from tagasc.controls import CONTROLS
from tagasc.errors import UserError
from tagasc.files import read_json, read_yaml
from tagasc.models.fusion import System
from tagasc.training import HISTORY

TAGS_ALONE = "tags_alone"


@dataclass(frozen=True)
class Variant:
    """A system, with the clips' own tags or with those of a control (see ``tagasc.controls``)."""

    system: System
    control: str = ""


def read_systems(path: Path) -> dict[str, dict[str, System]]:
    """Read systems grouped by table.

    Raises:
        UserError: the file is absent or not YAML, a record is impossible, or a name stands twice.
    """
    tables = read_yaml(path, "give a file of systems")
    if not isinstance(tables, dict) or not all(isinstance(records, dict) for records in tables.values()):
        raise UserError(f"{path} must hold tables of named records; see egs/systems.yaml")
    names = [name for records in tables.values() for name in records]
    doubled = [name for name in names if names.count(name) > 1 or name in tables or name in ("all", TAGS_ALONE)]
    if doubled:
        raise UserError(f"{path}: {doubled[0]} names two things; rename one")
    return {
        table: {name: from_values(System, record or {}, f"{path}, {name}") for name, record in records.items()}
        for table, records in tables.items()
    }


def select(
    tables: dict[str, dict[str, System]], wanted: Sequence[str], path: Path, experiment: Path | None = None
) -> dict[str, Variant]:
    """Pick systems by name, by table, or ``all``, each once, in the order asked for.

    ``NAME@CONTROL`` is that system with altered tags; ``@CONTROL`` alone is the control of the tag system that was
    best on validation in ``experiment``.

    Raises:
        UserError: a name that is none of these, or ``@CONTROL`` before any tag system has been trained.
    """
    every = {name: Variant(system) for records in tables.values() for name, system in records.items()}
    chosen: dict[str, Variant] = {}
    for name in wanted:
        if name == "all":
            chosen |= every
        elif name in tables:
            chosen |= {one: every[one] for one in tables[name]}
        elif name in every:
            chosen[name] = every[name]
        elif "@" in name:
            name = _of_the_best(name, every, experiment) if name.startswith("@") else name
            chosen[name] = _controlled(name, every, path)
        else:
            known = ", ".join([*tables, *list(every)[:4]])
            raise UserError(f"there is no system {name!r} in {path}; take all, {known}, …")
    if not chosen:
        raise UserError(f"no system is named; take all, {', '.join(tables)}, or names out of {path}")
    return chosen


def best_on_validation(experiment: Path, names: Sequence[str]) -> str | None:
    """The trained system with the highest validation accuracy of its networks, mean over seeds; test plays no part.

    Among equals the earlier one in ``names`` wins; None if none of them has been trained.
    """
    found = {}
    for name in names:
        histories = sorted((experiment / "scene" / name).glob(f"seed*/{HISTORY}"))
        kept = [read_json(path, "stage 5 (scenes)") for path in histories]
        if kept:
            found[name] = np.mean([one["epochs"][one["best_epoch"] - 1]["validation_accuracy"] for one in kept])
    return max(found, key=found.__getitem__) if found else None


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


def _of_the_best(name: str, every: dict[str, Variant], experiment: Path | None) -> str:
    with_tags = [one for one, variant in every.items() if variant.system.uses_tags]
    best = best_on_validation(experiment, with_tags) if experiment is not None else None
    if best is None:
        raise UserError(f"{name} is the control of the best trained tag system, and none is trained; name a system")
    return best + name


def _controlled(name: str, every: dict[str, Variant], path: Path) -> Variant:
    base, _, control = name.partition("@")
    if base not in every:
        raise UserError(f"there is no system {base!r} in {path}, so no {name}")
    if control not in CONTROLS:
        raise UserError(f"{name}: there is no control {control!r}; take one of {', '.join(CONTROLS)}")
    if not every[base].system.uses_tags:
        raise UserError(f"{name}: {base} uses no tags, so there are none to alter")
    return Variant(every[base].system, control)
