"""Runs a typed function as a program: options, configuration files, one-line errors, exit status."""

import inspect
import os
import re
import select
import signal
import sys
from argparse import ArgumentError
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentParser, auto_cli, get_loader, set_loader

from tagasc.utils.errors import UserError
from tagasc.utils.limits import describe_limit
from tagasc.utils.log import log, start_logging
from tagasc.utils.processes import peak_memory
from tagasc.utils.yaml_files import require_small

Config = TypeVar("Config")
_jsonargparse_yaml = get_loader("yaml")  # it reads 1e-3 as a number
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


@contextmanager
def _quiet_pipes() -> Iterator[None]:
    """End without a word, with the status of SIGPIPE, where nobody reads what is printed any more."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)  # reports only what is wrong with it
        if not poll.poll(0):
            raise  # another pipe, for example that of a worker process
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        sys.exit(128 + signal.SIGPIPE)


@_quiet_pipes()
def run(main: Callable[..., None], positional: bool = False) -> None:
    """Run ``main`` as a command-line program.

    Each parameter of ``main`` is an option; if its only parameter is a dataclass, each field of that is one. Other
    dataclasses are groups of options, and ``--config FILE.yaml`` sets any option.

    Exit status: 0 done, 1 bad input, 2 bad options, 3 some of several runs failed, 130 interrupted,
    141 nobody reads its output any more. In a step of run.sh
    the last line of the log is ``# done`` if the program came to its end: a cluster's launcher may report status 0 for
    a program that died with its node.

    Args:
        main: the program's function.
        positional: whether parameters without a default are positional arguments.
    """
    kinds = [parameter.annotation for parameter in inspect.signature(main).parameters.values()]
    options = kinds[0] if len(kinds) == 1 and is_dataclass(kinds[0]) else None
    start_logging()
    set_loader("yaml", _load_yaml, (yaml.YAMLError,))
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
    except BrokenProcessPool:
        _exit("a worker process died, probably out of memory or disk; free some, or lower --nj", 1)
    except Exception as error:
        message = describe_limit(error)
        if message is None:
            raise
        _exit(message, 1)
    _mark_end()


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


def _mark_end() -> None:
    """End the log of a step of run.sh with the line by which it knows that the program came to its end."""
    if "TAGASC_STAGE" in os.environ:
        print("# done", file=sys.stderr, flush=True)


def _load_yaml(text: str) -> Any:
    require_small(text)
    return _jsonargparse_yaml(text)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _exit(message: str, status: int) -> None:
    log.error("error: %s", message)
    sys.exit(status)
