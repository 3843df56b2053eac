"""The systems of the paper's tables: reads ``egs/systems.yaml`` and selects by name. It does not import torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tagasc.scene.controls import CONTROLS
from tagasc.scene.experiment import best_on_validation
from tagasc.utils.cli import from_values
from tagasc.utils.errors import SettingError, UserError
from tagasc.utils.yaml_files import read_yaml

TAGS_ONLY = "tags_only"


@dataclass(frozen=True)
class System:
    """One row or cell of Tables 2 to 5: a record of ``egs/systems.yaml``.

    Args:
        concat: where tags are concatenated (section 3.1): ``code`` appends them to the code, ``code_fc`` transforms
            that concatenation into a new code, ``before_code`` appends them to the pooled features.
        concat_layers: layers that transform the tags before concatenation (section 3.1).
        heads: number h of attention heads (section 3.2); 0 turns attention off.
        attention_layers: layers that transform the tags before the projection to the attention map (section 3.2).
        shared: use the same transform for both methods (Table 5), not one for each (Table 4; section 3.3).
    """

    concat: Literal["none", "code", "code_fc", "before_code"] = "none"
    concat_layers: int = 0
    heads: int = 0
    attention_layers: int = 0
    shared: bool = False

    def __post_init__(self) -> None:
        if min(self.concat_layers, self.heads, self.attention_layers) < 0:
            raise SettingError("concat_layers, heads and attention_layers must not be negative")
        if self.concat_layers and self.concat != "before_code":
            raise SettingError("concat_layers needs concat: before_code")
        if self.attention_layers and not self.heads:
            raise SettingError("attention_layers needs heads")
        both = self.concat == "before_code" and self.heads > 0
        if self.shared and not (both and self.concat_layers == self.attention_layers):
            raise SettingError("shared needs concat: before_code, heads, and concat_layers equal to attention_layers")

    @property
    def uses_tags(self) -> bool:
        """Whether the system uses tags."""
        return self.concat != "none" or self.heads > 0


@dataclass(frozen=True)
class SystemVariant:
    """A system and its control (``tagasc.scene.controls``); an empty control uses the tags unaltered."""

    system: System
    control: str = ""


def read_systems(path: Path) -> dict[str, dict[str, System]]:
    """Read the systems, by table and name.

    Raises:
        UserError: the file is missing or not YAML, a record is impossible, or a name is a duplicate.
    """
    tables = read_yaml(path, "give a file of systems")
    if not isinstance(tables, dict) or not all(isinstance(records, dict) for records in tables.values()):
        raise UserError(f"{path} must hold tables of named records; see egs/systems.yaml")
    names = [name for records in tables.values() for name in records]
    duplicates = [name for name in names if names.count(name) > 1 or name in tables or name in ("all", TAGS_ONLY)]
    if duplicates:
        raise UserError(f"{path}: {duplicates[0]} names two things; rename one")
    return {
        table: {name: from_values(System, record or {}, f"{path}, {name}") for name, record in records.items()}
        for table, records in tables.items()
    }


def select(
    tables: dict[str, dict[str, System]], wanted: Sequence[str], path: Path, experiment: Path | None = None
) -> dict[str, SystemVariant]:
    """Select systems by name, by table, or ``all``; duplicates are dropped, the order is kept.

    ``NAME@CONTROL`` is that system with altered tags. ``@CONTROL`` alone alters the tags of the tag system that was
    best on validation in ``experiment``.

    Raises:
        UserError: a name is unknown, or ``@CONTROL`` is given before any tag system is trained.
    """
    every = {name: SystemVariant(system) for records in tables.values() for name, system in records.items()}
    chosen: dict[str, SystemVariant] = {}
    for name in wanted:
        if name == "all":
            chosen |= every
        elif name in tables:
            chosen |= {system: every[system] for system in tables[name]}
        elif name in every:
            chosen[name] = every[name]
        elif "@" in name:
            name = _best_controlled(name, every, experiment) if name.startswith("@") else name
            chosen[name] = _controlled(name, every, path)
        else:
            known = ", ".join([*tables, *list(every)[:4]])
            raise UserError(f"there is no system {name!r} in {path}; use all, {known}, …")
    if not chosen:
        raise UserError(f"--systems is empty; use all, {', '.join(tables)}, or names from {path}")
    return chosen


def _best_controlled(name: str, every: dict[str, SystemVariant], experiment: Path | None) -> str:
    with_tags = [system for system, variant in every.items() if variant.system.uses_tags]
    best = best_on_validation(experiment, with_tags) if experiment is not None else None
    if best is None:
        raise UserError(f"{name} needs a trained tag system, but none is trained; train one, or use NAME{name}")
    return best + name


def _controlled(name: str, every: dict[str, SystemVariant], path: Path) -> SystemVariant:
    base, _, control = name.partition("@")
    if base not in every:
        raise UserError(f"there is no system {base!r} in {path}, so no {name}; use one of its names")
    if control not in CONTROLS:
        raise UserError(f"{name}: there is no control {control!r}; use one of {', '.join(CONTROLS)}")
    if not every[base].system.uses_tags:
        raise UserError(f"{name}: {base} uses no tags, so there are none to alter; use a system with tags")
    return SystemVariant(every[base].system, control)
