"""Runs a typed function as a program: options, configuration files, one-line errors, exit status."""

import errno
import inspect
import os
import re
import signal
import sys
from argparse import ArgumentError
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentParser, auto_cli

from tagasc.utils.errors import UserError
from tagasc.utils.log import log, start_logging
from tagasc.utils.processes import peak_memory

Config = TypeVar("Config")
_GROUP = "settings"  # group of a configuration's keys in its parser
RENAMED = {
    "beds": "backgrounds",
    "chosen_by": "select_from",
    "compiled": "compile",
    "data_on": "audio_cache",
    "sample": "sample_format",
    "tagger": "tags_from",
    "scenes.distinct": "scenes.unique_clips",
    "tagging.distinct": "tagging.unique_clips",
    "truth": "event_labels",
    "ways": "groups",
    "windows": "code_segment",
    "wrong": "label_noise",
}  # options of earlier versions, and their new names
REMOVED = {
    "seconds": "stage 1 (manifests) sets the length of clips; give it there",
}  # options of earlier versions that a program lacks now, and what replaces them
_SYSTEM = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EFBIG: "the file may not grow so large; raise the limit, or free some space and run the same command again",
    errno.ENOMEM: "the memory is full; free some, or choose smaller settings",
    errno.EACCES: "no permission; check who owns it",
    errno.EROFS: "the file system is read-only; write to another folder",
    errno.ENOENT: "no such file or folder; check the path",
    errno.ENOTDIR: "a file is where a folder is needed; check the path",
    errno.EISDIR: "a folder is where a file is needed; check the path",
}


def run(main: Callable[..., None], positional: bool = False) -> None:
    """Run ``main`` as a command-line program.

    Each parameter of ``main`` is an option; if its only parameter is a dataclass, each field of that is one. Other
    dataclasses are groups of options, and ``--config FILE.yaml`` sets any option.

    Exit status: 0 done, 1 bad input, 2 bad options, 3 some of several runs failed, 130 interrupted.

    Args:
        main: the program's function.
        positional: whether parameters without a default are positional arguments.
    """
    kinds = [parameter.annotation for parameter in inspect.signature(main).parameters.values()]
    options = kinds[0] if len(kinds) == 1 and is_dataclass(kinds[0]) else None
    start_logging()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        arguments = _normalise_flags(options or main, sys.argv[1:])
        parsed = auto_cli(
            options or main, args=arguments, as_positional=positional, exit_on_error=False, allow_abbrev=False
        )
        if options:
            main(parsed)
        log.debug("at most %s", peak_memory())
    except ArgumentError as error:
        _exit(f"{_one_line(error)}; see --help", 2)
    except UserError as error:
        _exit(str(error), error.status)
    except UnicodeDecodeError as error:
        _exit(f"{_file_with(error.object)} is not UTF-8 text; save it as UTF-8", 1)
    except KeyboardInterrupt:
        _exit("interrupted; run the same command again to resume", 130)
    except OSError as error:
        if error.errno not in _SYSTEM:
            raise
        _exit(f"{error.filename or 'writing'}: {_SYSTEM[error.errno]}", 1)
    except BrokenProcessPool:
        _exit("a worker process died, probably out of memory or disk; free some, or lower --nj", 1)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's; not every program imports torch
            raise
        _exit("the GPU's memory is full; choose a smaller batch, or free the GPU", 1)


def from_values(cls: type[Config], values: Any, where: str) -> Config:
    """Build a configuration dataclass from plain values, each checked against its field's type.

    Raises:
        UserError: a key is unknown or of the wrong type; the message gives ``where`` and the key.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where} must be a mapping of settings, not {values!r}")
    parser = _parser(cls)
    try:
        return parser.instantiate(parser.parse_object({_GROUP: values}))[_GROUP]
    except (ArgumentError, ValueError, TypeError) as error:
        message = re.sub(
            rf"Group '{_GROUP}' does not accept option '(.*?)'", r"there is no setting '\1'", _one_line(error)
        )
        raise UserError(f"{where}: {message.replace(f'{_GROUP}.', '')}") from None


@cache
def _parser(cls: type) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_class_arguments(cls, _GROUP)
    return parser


def to_json(value: Any) -> Any:
    """Return dataclasses, paths and tuples as the dicts, strings and lists that JSON can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_json(asdict(value))
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _normalise_flags(main: Callable[..., None], arguments: list[str]) -> list[str]:
    """Rewrite options as jsonargparse expects them: ``--allow-partial`` becomes ``--allow_partial true``."""
    parameters = inspect.signature(main).parameters
    flags = {name for name, parameter in parameters.items() if parameter.annotation is bool}
    normalised: list[str] = []
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            name = name.replace("-", "_").replace("__", "--", 1)
            new = RENAMED.get(name[2:], "")
            if name[2:] not in parameters and new.partition(".")[0] in parameters:
                raise ArgumentError(None, f"option {argument} is now --{new.replace('_', '-')}")
            if name[2:] in REMOVED and name[2:] not in parameters:
                raise ArgumentError(None, f"option {argument} was removed: {REMOVED[name[2:]]}")
        normalised.append(name + equals + value)
        following = arguments[position + 1 : position + 2]
        if name[2:] in flags and name.startswith("--") and not equals and following not in (["true"], ["false"]):
            normalised.append("true")
    return normalised


def _file_with(content: bytes) -> str:
    """Find the file among the arguments that has this content, since a decoding error does not name it."""
    for argument in sys.argv[1:]:
        name = argument.rpartition("=")[2]
        if os.path.isfile(name) and os.path.getsize(name) == len(content) and Path(name).read_bytes() == content:
            return name
    return "a file that was read"


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _exit(message: str, status: int) -> None:
    log.error("error: %s", message)
    sys.exit(status)
