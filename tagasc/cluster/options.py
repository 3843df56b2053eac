"""The command line of ``utils/slurm.py``, and the file that translates its options for ``sbatch``.

The file is Kaldi's ``conf/slurm.conf``: ``command``, ``option NAME=VALUE WORDS``, ``default NAME=VALUE``.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from tagasc.utils.errors import UserError

CONFIG = Path("conf/slurm.conf")  # of a recipe
DEFAULT_CONFIG = Path(__file__).resolve().parents[2] / "utils/slurm.conf"
_LINE = re.compile(r"(option|default)\s+([\w-]+)=(\S+)\s*(.*)")


@dataclass
class Config:
    """What a configuration file says.

    Attributes:
        command: words of the command that submits.
        defaults: value of an option that is not given.
        options: words for ``sbatch``, by option and value; ``*`` is any other value, and ``$0`` stands for it.
    """

    command: list[str] = field(default_factory=lambda: ["sbatch"])
    defaults: dict[str, str] = field(default_factory=dict)
    options: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def words(self, name: str, value: str) -> list[str] | None:
        """Return the words of an option; None if the file does not have it."""
        words = self.options.get((name, value), self.options.get((name, "*")))
        return None if words is None else [word.replace("$0", value) for word in words]


@dataclass(frozen=True)
class Options:
    """What ``utils/slurm.py`` is asked to do.

    Attributes:
        command: program and its options.
        sbatch: command that submits, with its options.
        leftovers: jobs of an earlier run: wait for them, or cancel them.
        tries: how often a job may be submitted, and requeued at its time limit.
        poll: seconds between two questions to Slurm.
        patience: seconds that a node's output may take to be seen on this computer.
        stage_to: folder on the node to copy packed audio to; empty for none.
    """

    command: list[str]
    sbatch: list[str]
    leftovers: str = "wait"
    tries: int = 10
    poll: float = 10
    patience: float = 60
    stage_to: str = ""

    own: ClassVar[tuple[str, ...]] = ("leftovers", "tries", "poll", "patience", "stage_to")


def parse(words: Sequence[str], step: str) -> Options:
    """Read ``[--OPTION VALUE]... PROGRAM [OPTION...]``.

    Args:
        words: the command line.
        step: name of the step, as ``5.scenes.0``; ``option step=scenes`` in the file adds to the steps of that name.

    Raises:
        UserError: an option is unknown or has a wrong value, or there is no program.
    """
    given, words = {}, list(words)
    while words and words[0].startswith("--"):
        name, equals, value = words.pop(0)[2:].partition("=")
        if not equals:
            if not words:
                raise UserError(f"slurm.py: option --{name} needs a value; see cmd.sh")
            value = words.pop(0)
        given[name.replace("-", "_")] = value
    if not words:
        raise UserError("slurm.py: there is no program to run; see cmd.sh")
    path = Path(given.pop("config", "") or (CONFIG if CONFIG.exists() else DEFAULT_CONFIG))
    config = read_config(path)
    own = {name: _own(name, given.pop(name)) for name in Options.own if name in given}
    sbatch = list(config.command)
    for name, value in (config.defaults | given).items():
        added = config.words(name, value)
        if added is None:
            raise UserError(f"slurm.py: unknown option --{name.replace('_', '-')}; add 'option {name}=*' to {path}")
        sbatch += added
    sbatch += config.options.get(("step", step.split(".")[1] if step.count(".") else step), [])
    return Options(words, sbatch, **own)


def _own(name: str, value: str) -> str | int | float:
    """Check the value of an option of this program."""
    if name == "leftovers" and value not in ("wait", "cancel"):
        raise UserError(f"slurm.py: --leftovers must be wait or cancel, not '{value}'")
    if name in ("leftovers", "stage_to"):
        return value
    kind = int if name == "tries" else float
    try:
        if (number := kind(value)) > 0:
            return number
    except ValueError:
        pass
    raise UserError(f"slurm.py: --{name} must be a number above 0, not '{value}'")


def read_config(path: Path) -> Config:
    """Read a configuration file.

    Raises:
        UserError: it is missing, or a line is not understood.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give slurm.py --config FILE") from None
    config = Config()
    for number, line in enumerate(lines, 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        match = _LINE.fullmatch(line)
        try:
            if line.startswith("command "):
                config.command = shlex.split(line)[1:]
            elif match and match[1] == "option":
                config.options[match[2].replace("-", "_"), match[3]] = shlex.split(match[4])
            elif match and not match[4]:
                config.defaults[match[2].replace("-", "_")] = match[3]
            else:
                raise ValueError("none of: command, option NAME=VALUE, default NAME=VALUE")
        except ValueError as error:
            raise UserError(f"{path}, line {number} is not understood ({error}); see {DEFAULT_CONFIG}") from None
    return config
