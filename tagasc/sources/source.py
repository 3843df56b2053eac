"""What a tag source is, and which one a name means.

A tag source knows its classes and tags the clips of a packed folder. Its name is the folder of a trained tagger,
``FILE.npz``, ``hf:NAME_OR_DIR``, ``onnx:FILE_OR_DIR``, ``py:FILE.py[:CLASS]`` or ``clap:NAME_OR_DIR``. A source takes
the probabilities of events or, by option, an embedding, which has no event names.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from tagasc.audio.packed import PackedAudio
from tagasc.sources.windows import LongClips, ShortClips
from tagasc.utils.errors import UserError

Activation = Literal["auto", "sigmoid", "softmax"]
Take = Literal["probability", "embedding"]


@dataclass(frozen=True)
class SourceOptions:
    """How a source tags.

    Args:
        batch: clips or windows per forward pass.
        activation: output of a transformers model; ``auto``: from the model's configuration.
        take: probabilities of the events, or the tagger's embedding.
        short: a clip shorter than the tagger's window is repeated, or followed by silence.
        long: over the windows of a longer clip, the mean or the maximum is taken.
        events: for ``clap:``, a text file with one event a line.
        prompt: for ``clap:``, the sentence in which an event stands for {}.
        temperature: for ``clap:``, divides the similarities before the softmax.
    """

    batch: int = 16
    activation: Activation = "auto"
    take: Take = "probability"
    short: ShortClips = "repeat"
    long: LongClips = "mean"
    events: Path | None = None
    prompt: str = "This is a sound of {}."
    temperature: float = 1.0


def require_default(options: SourceOptions, title: str, **why: str) -> None:
    """Refuse options that a source does not have.

    Args:
        options: the options.
        title: the source, for the error.
        why: why it lacks the option, by the option's name.

    Raises:
        UserError: one of these options is not at its default.
    """
    default = {field.name: field.default for field in fields(options)}
    for name, reason in why.items():
        if getattr(options, name) != default[name]:
            raise UserError(f"--{name} does not go with {title}: {reason}; leave it out")


class TagSource(Protocol):
    """A source of tag vectors."""

    classes: list[str]  # names of the events; of an embedding "value 1", "value 2", …

    def input_hashes(self) -> dict[str, str]:
        """Return hashes of everything that the tags depend on besides the clips and the settings, by name."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return every setting that the tags depend on, as JSON values."""
        ...

    def record(self) -> dict[str, Any]:
        """Describe the source for the reader, as JSON values: kind, files and hashes, rate, parameters, settings."""
        ...

    def lengths(self, packed: PackedAudio) -> dict[str, int]:
        """Count the clips that are tagged whole, repeated, padded or cut into windows."""
        ...

    def tags(self, packed: PackedAudio) -> np.ndarray:
        """Return the values of every clip in order, float32 (clips, classes): probabilities or an embedding."""
        ...


def open_source(name: str, device: torch.device, options: SourceOptions = SourceOptions()) -> TagSource:
    """Open a tag source by its name; the module's docstring lists the forms.

    Raises:
        UserError: the source is missing, incomplete or not usable, or lacks one of the options.
    """
    kind, colon, rest = name.partition(":")
    if kind != "clap":
        require_default(options, name, **dict.fromkeys(("events", "prompt", "temperature"), "it is for clap:"))
    if colon and kind in _OPEN:
        if not rest:
            raise UserError(f"--tags-from {name} names nothing; see docs/taggers.md for what follows {kind}:")
        return _OPEN[kind](rest, device, options)
    if colon and kind.isalpha() and not Path(name).exists():
        raise UserError(f"--tags-from {name}: there is no source {kind}:; use one of {', '.join(_OPEN)} (with a colon)")
    return _open_file(name, options) if name.endswith(".npz") else _open_own(name, device, options)


# Imports below are local, because most are slow and some packages are optional.


def _open_own(name: str, device: torch.device, options: SourceOptions) -> TagSource:
    from tagasc.sources.own import OwnTagger

    if Path(name).is_file():
        raise UserError(f"--tags-from {name} is a file; write what it is before it, such as onnx:{name} or py:{name}")
    return OwnTagger(Path(name), device, options)


def _open_file(name: str, options: SourceOptions) -> TagSource:
    from tagasc.sources.tag_file import TagFile

    return TagFile(Path(name), options)


def _open_hugging_face(name: str, device: torch.device, options: SourceOptions) -> TagSource:
    from tagasc.sources.hugging_face import HuggingFaceTagger

    return HuggingFaceTagger(name, device, options).ready()


def _open_onnx(name: str, device: torch.device, options: SourceOptions) -> TagSource:
    from tagasc.sources.onnx_model import OnnxTagger

    return OnnxTagger(Path(name), device, options).ready()


def _open_python(name: str, device: torch.device, options: SourceOptions) -> TagSource:
    from tagasc.sources.python_class import PythonTagger

    return PythonTagger(name, device, options).ready()


def _open_clap(name: str, device: torch.device, options: SourceOptions) -> TagSource:
    from tagasc.sources.clap import ClapTagger

    return ClapTagger(name, device, options).ready()


_OPEN = {"hf": _open_hugging_face, "onnx": _open_onnx, "py": _open_python, "clap": _open_clap}
