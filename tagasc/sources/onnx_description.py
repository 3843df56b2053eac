"""What an ONNX tagger takes and gives: from its sidecar, from a published folder, or from a bundle of ours."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tagasc.bundle.folder import TAGGER, read_bundle
from tagasc.bundle.schema import NAME as BUNDLE
from tagasc.sources import sherpa
from tagasc.sources.features import KALDI_RATE, LogMel
from tagasc.utils.cli import from_values
from tagasc.utils.errors import SettingError, UserError
from tagasc.utils.files import digest_bytes
from tagasc.utils.tables import read_table
from tagasc.utils.yaml_files import read_yaml

_NAMES = ("model.onnx", "model.int8.onnx")  # in a published folder, by preference


@dataclass(frozen=True)
class OnnxDescription:
    """A sidecar: the YAML beside an ONNX file.

    Args:
        sampling_rate: rate of the sound that the model takes, Hz.
        input: ``waveform``, or the features that are computed from it.
        activation: what turns the output into probabilities; ``none`` if it is probabilities already.
        classes: names in the order of the output; or a file beside this one, with one a line, or a CSV file with the
            columns index and display_name.
        output: name of the output; empty: the model has only one.
        embedding: name of the output, (batch, values), that is taken as an embedding; empty: the model lacks one.
        window: length of the sound that the model takes, s; empty: any length, or what the file itself fixes.
        layout: order of the axes of features; ``auto``: from the shape in the file.
        log_mel: for ``input: log_mel``, its description.
    """

    sampling_rate: int
    input: Literal["waveform", "kaldi_fbank80", "mel64db", "log_mel"]
    activation: Literal["none", "sigmoid", "softmax"]
    classes: list[str] | str
    output: str = ""
    embedding: str = ""
    window: float | None = None
    layout: Literal["auto", "bands_frames", "frames_bands"] = "auto"
    log_mel: LogMel | None = None

    def __post_init__(self) -> None:
        if not 1000 <= self.sampling_rate <= 384000:
            raise SettingError(f"sampling_rate: {self.sampling_rate} must be in Hz, 1000 to 384000")
        if self.input in ("kaldi_fbank80", "mel64db") and self.sampling_rate != KALDI_RATE:
            raise SettingError(f"sampling_rate: {self.input} is of {KALDI_RATE} Hz, not {self.sampling_rate}")
        if (self.input == "log_mel") != (self.log_mel is not None):
            raise SettingError("log_mel: describe it if, and only if, input is log_mel")
        if self.window is not None and not self.window > 0:
            raise SettingError(f"window: {self.window} must be a length in s, or left out")

    @property
    def bands(self) -> int:
        """Number of bands of the features."""
        return self.log_mel.mels if self.log_mel else {"kaldi_fbank80": 80, "mel64db": 64}[self.input]


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX tagger on disk.

    Attributes:
        path: the model.
        description: what it takes and gives; its classes are a list of names.
        hashes: hash of each file that it consists of, the model first; external weights excepted.
        found: where the description is from, in words.
        sidecar: where one would change it.
    """

    path: Path
    description: OnnxDescription
    hashes: Mapping[str, str]
    found: str
    sidecar: Path


def find_onnx(path: Path, metadata: Mapping[str, str]) -> OnnxFile:
    """Describe an ONNX file: by its sidecar, else as a published folder's or a bundle's model.

    Args:
        path: the model.
        metadata: properties that the file itself holds.

    Raises:
        UserError: there is no description, or it is wrong.
    """
    sidecar, folder = path.with_suffix(".yaml"), path.parent
    hashes = {path.name: digest_bytes(path)}
    if sidecar.exists():
        description = from_values(OnnxDescription, read_yaml(sidecar, "write it"), str(sidecar))
        hashes[sidecar.name] = digest_bytes(sidecar)
        if isinstance(description.classes, str):
            listing = folder / description.classes
            description = replace(description, classes=read_classes(listing, f"name it in {sidecar}"))
            hashes[listing.name] = digest_bytes(listing)
        return OnnxFile(path, description, hashes, f"its sidecar {sidecar.name}", sidecar)
    if path.name == TAGGER and (folder / BUNDLE).exists():
        about = read_bundle(folder)
        values = {"sampling_rate": about["audio"]["sampling_rate"], "input": "waveform", "activation": "none"}
        values |= {"classes": about["events"], "output": "tags"}
        description = from_values(OnnxDescription, values, str(folder / BUNDLE))
        return OnnxFile(path, description, hashes, f"the bundle's {BUNDLE}", sidecar)
    published = sherpa.description(metadata)
    if published is None:
        raise UserError(
            f"{path} has no description: write {sidecar} with its sampling_rate, input, activation and classes"
            " (docs/taggers.md)"
        )
    listing = folder / sherpa.CLASSES
    names = read_classes(listing, "take the whole folder, as published")
    description = from_values(OnnxDescription, published | {"classes": names}, str(path))
    hashes[listing.name] = digest_bytes(listing)
    return OnnxFile(path, description, hashes, f"its metadata, {metadata['model_type']} of sherpa-onnx", sidecar)


def model_in(path: Path) -> Path:
    """Return the ONNX file that a file or a folder means.

    Raises:
        UserError: it does not exist, or the folder holds none or several.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"--tags-from onnx:{path} does not exist; check the path")
    found = sorted(item.name for item in path.glob("*.onnx"))
    if (path / BUNDLE).exists() and TAGGER in found:  # its model.onnx is the scene network
        return path / TAGGER
    names = [name for name in _NAMES if name in found] or (found if len(found) == 1 else [])
    if not names:
        raise UserError(f"{path} holds {', '.join(found) or 'no .onnx file'}; give the path of the model")
    return path / names[0]


def read_classes(path: Path, remedy: str) -> list[str]:
    """Read names in the order of a model's outputs: one a line, or a CSV file with index and display_name.

    Raises:
        UserError: the file is missing or not such a list.
    """
    if not path.is_file():
        raise UserError(f"{path} with the names of the classes does not exist; {remedy}")
    if path.suffix != ".csv":
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    rows = read_table(path, ("index", "display_name"), ignored=None, remedy=remedy)
    if [row["index"] for row in rows] != [str(number) for number in range(len(rows))]:
        raise UserError(f"{path}: its index must count 0, 1, 2, …; {remedy}")
    return [row["display_name"] for row in rows]
