"""YAML within limits: no duplicate keys, and no file that grows without bound when its aliases are resolved."""

from pathlib import Path
from typing import Any

import yaml

from tagasc.utils.errors import UserError

MOST_BYTES, MOST_ALIASES, DEEPEST = 2**20, 100, 50
_SHORT = 200  # characters; a shorter text is not worth a second pass


def read_yaml(path: Path, remedy: str) -> Any:
    """Read YAML without duplicate keys.

    Args:
        path: the file.
        remedy: what to do if it is missing, for the error.

    Raises:
        UserError: the file is missing, not YAML, beyond the limits, or has a duplicate key.
    """
    try:
        text = path.read_text(encoding="utf-8")
        require_small(text)
        return yaml.load(text, _UniqueKeyLoader)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {remedy}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def require_small(text: str) -> None:
    """Make sure that YAML text stays small when it is read.

    Raises:
        yaml.YAMLError: it is larger than 1 MiB, nested deeper than 50 levels, or has more than 100 aliases.
    """
    if len(text) < _SHORT:
        return
    if len(text) > MOST_BYTES:
        raise yaml.YAMLError(f"it has {len(text)} characters, more than settings can need ({MOST_BYTES})")
    depth = aliases = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > DEEPEST or aliases > MOST_ALIASES:
            raise yaml.YAMLError(f"it has more than {DEEPEST} levels or {MOST_ALIASES} aliases; write it out plainly")


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that rejects duplicate keys."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        for number, (key, _) in enumerate(node.value):
            if key.value in [earlier.value for earlier, _ in node.value[:number]]:
                raise yaml.MarkedYAMLError(problem=f"duplicate key {key.value!r}", problem_mark=key.start_mark)
        return node
