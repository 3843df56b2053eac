"""A class of the user's own as a tagger, from a Python file: ``py:FILE.py[:CLASS]``.

The file is the user's own code and is run as such. Its class has

- ``sampling_rate``, Hz,
- ``classes``, names in the order of its outputs,
- ``window``, s, if it takes sound of one length (else clips come whole, of any length),
- ``__call__(waves)``, from float32 (batch, samples) in -1..1 on the device to probabilities, (batch, classes),
- ``embedding(waves)``, to (batch, values), if it has one,
- ``files``, paths of what it loads, so that their hashes are in the record.

It is created as ``CLASS()``, or as ``CLASS(device=...)`` if it takes that.
"""

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tagasc.sources.outside import OutsideTagger
from tagasc.sources.source import SourceOptions, require_default
from tagasc.sources.windows import Windows
from tagasc.utils.device import out_of_memory
from tagasc.utils.errors import UserError
from tagasc.utils.files import digest_bytes


class PythonTagger(OutsideTagger):
    """A tag source; see ``tagasc.sources.outside.OutsideTagger``."""

    kind = "Python class"

    def __init__(self, name: str, device: torch.device, options: SourceOptions) -> None:
        """Run the file and create the class.

        Raises:
            UserError: there is no such file or class, it raises, or lacks what the module's docstring lists.
        """
        file, _, wanted = name.partition(".py:")
        path = Path(file if not wanted else f"{file}.py")
        title = f"py:{path.name}" + (f":{wanted}" if wanted else "")
        require_default(options, title, activation="its class returns probabilities")
        self.path = path
        if path.suffix != ".py" or not path.is_file():
            raise UserError(f"--tags-from py:{name}: {path} is no Python file; give py:FILE.py or py:FILE.py:CLASS")
        kind = _class_in(self._guarded(lambda: _run(path)), wanted, path)
        takes_device = "device" in inspect.signature(kind).parameters
        self.tagger = self._guarded(lambda: kind(device=device) if takes_device else kind())
        rate, seconds = self._number("sampling_rate", 1000), self._number("window", 0.01, optional=True)
        samples = None if seconds is None else round(seconds * rate)
        classes = self._guarded(lambda: [str(item) for item in self.tagger.classes])
        windows = Windows(samples, int(rate), options.short, options.long)
        super().__init__(f"py:{path.name}:{kind.__name__}", classes, windows, device, options)
        if self.take == "embedding" and not callable(getattr(self.tagger, "embedding", None)):
            raise UserError(f"{path}: {kind.__name__} has no method embedding(waves); add it, or take probability")
        loaded = self._guarded(lambda: [Path(item) for item in getattr(self.tagger, "files", ())])
        self.hashes = {item.name: self._guarded(lambda item=item: digest_bytes(item)) for item in (path, *loaded)}
        self.parameters = _parameters(self.tagger)

    def compute(self, waves: Tensor) -> Tensor | np.ndarray:
        """Return what the class returns; see ``OutsideTagger``."""
        method = self.tagger.embedding if self.take == "embedding" else self.tagger
        return self._guarded(lambda: method(waves.clone()))

    def _guarded(self, call: Callable[[], Any]) -> Any:
        """Call the user's code; turn what it raises into one line that names the place."""
        try:
            return call()
        except UserError:
            raise
        except Exception as error:
            if out_of_memory(error):
                raise
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if Path(frame.filename).name == self.path.name]
            line = error.lineno if isinstance(error, SyntaxError) else (lines[-1] if lines else None)
            place = f"{self.path}, line {line}" if line else str(self.path)
            reason = " ".join(str(error).split())[:160]
            raise UserError(f"{place}: {type(error).__name__}: {reason}; fix the class") from None

    def _number(self, name: str, least: float, optional: bool = False) -> float | None:
        value = self._guarded(lambda: getattr(self.tagger, name, None))
        if value is None and optional:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < 1e6:
            raise UserError(f"{self.path}: {name} must be a number, {least:g} or more, not {value!r}; set it")
        return value


def _run(path: Path) -> ModuleType:
    """Import a file, whose folder it may import from."""
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(f"py_tagger_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for dataclasses and the like
    spec.loader.exec_module(module)
    return module


def _class_in(module: ModuleType, wanted: str, path: Path) -> type:
    """Return the class of that name; without a name, the only one that can be called with waves."""
    own = {name: item for name, item in vars(module).items() if isinstance(item, type)}
    own = {name: item for name, item in own.items() if item.__module__ == module.__name__}
    callable_ = {name: item for name, item in own.items() if "__call__" in dir(item)}
    found = {wanted: own[wanted]} if wanted in own else ({} if wanted else callable_)
    if len(found) != 1:
        raise UserError(f"{path} has the classes {', '.join(own) or '(none)'}; name one: py:{path.name}:CLASS")
    return next(iter(found.values()))


def _parameters(tagger: Any) -> int | None:
    """Count the weights of the torch modules that an object is or holds; None without any."""
    held = [tagger] if isinstance(tagger, nn.Module) else list(getattr(tagger, "__dict__", {}).values())
    modules = [item for item in held if isinstance(item, nn.Module)]
    return sum(value.numel() for module in modules for value in module.parameters()) if modules else None
