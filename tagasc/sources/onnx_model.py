"""An ONNX file as a tagger, with onnxruntime.

A model quantised dynamically scales its activations by all that is in a batch, so the tags of a clip would depend on
its neighbours; such a model gets one window at a time. So does a file that fixes its batch at 1.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tagasc.sources import features
from tagasc.sources.onnx_description import find_onnx, model_in
from tagasc.sources.onnx_input import ModelInput
from tagasc.sources.outside import OutsideTagger
from tagasc.sources.source import SourceOptions, require_default
from tagasc.sources.windows import Windows
from tagasc.utils.errors import SettingError, UserError
from tagasc.utils.files import digest_bytes
from tagasc.utils.log import log

_INSTALL = "pip install -c constraints.txt -r requirements-export.txt (into the Python that runs the recipe)"


class OnnxTagger(OutsideTagger):
    """A tag source; see ``tagasc.sources.outside.OutsideTagger``. Its embedding is an output that the sidecar names."""

    kind = "ONNX"

    def __init__(self, path: Path, device: torch.device, options: SourceOptions) -> None:
        """Load the model.

        Raises:
            UserError: a package is missing, the file is not ONNX, has no description or does not fit it.
        """
        title, why = f"onnx:{path.name}", "its sidecar says so (docs/taggers.md)"
        require_default(options, title, activation=why)
        model_path = model_in(path)
        graph = _read(model_path)
        self.file = find_onnx(model_path, {item.key: item.value for item in graph.metadata_props})
        self.description = self.file.description
        self.session = _session(model_path, device)
        self.input = ModelInput(self.file, self.session.get_inputs())
        super().__init__(title, self.description.classes, self._windows(options), device, options)
        self.output = self._output()
        self.features = self._features()
        self.hashes = {**self.file.hashes, **_external(graph, model_path)}
        self.parameters = _count_weights(graph)
        activation = self.description.activation if self.take == "probability" else "none"
        self.extra = {"activation": activation, "input": self.description.input, "described_by": self.file.found}
        quantised = any(node.op_type.startswith("DynamicQuantize") for node in graph.graph.node)
        if quantised or self.input.one_at_a_time:
            self.batch = 1
        self.remedy_for_range = f"set activation: sigmoid or softmax in {self.file.sidecar}"

    def compute(self, waves: Tensor) -> np.ndarray:
        """Return probabilities, or the embedding; see ``OutsideTagger``."""
        feeds = self.input.feeds(self.features(waves).cpu().numpy())
        try:
            found = np.asarray(self.session.run([self.output], feeds)[0], np.float64)
        except Exception as error:  # onnxruntime raises types of its own
            raise ValueError(f"onnxruntime: {error}") from None
        if found.ndim == 1 and len(self.input.shape) == 1:
            found = found[None]
        if self.take == "embedding" or self.description.activation == "none":
            return found
        logits = torch.from_numpy(found)
        return (logits.sigmoid() if self.description.activation == "sigmoid" else logits.softmax(dim=-1)).numpy()

    def _windows(self, options: SourceOptions) -> Windows:
        """Return the window: as described, or what a file that takes waveforms of one length fixes."""
        rate, seconds, fixed = self.description.sampling_rate, self.description.window, self.input.fixed_samples
        samples = None if seconds is None else round(seconds * rate)
        if fixed and samples not in (None, fixed):
            raise UserError(
                f"{self.file.path} takes {fixed} samples, {fixed / rate:g} s at {rate} Hz, not a window of"
                f" {seconds:g} s; fix sampling_rate or window in {self.file.sidecar}"
            )
        return Windows(fixed or samples, rate, options.short, options.long)

    def _output(self) -> str:
        names = [output.name for output in self.session.get_outputs()]
        wanted = self.description.embedding if self.take == "embedding" else self.description.output
        if self.take == "embedding" and not wanted:
            raise UserError(
                f"{self.file.path} has no known embedding; name one of its outputs in {self.file.sidecar}"
                f" (embedding: NAME), of {', '.join(names)}"
            )
        if wanted not in names and (wanted or len(names) > 1):
            lacking = f"not {wanted}" if wanted else "several"
            raise UserError(
                f"{self.file.path} has the outputs {', '.join(names)}, {lacking}; name one in {self.file.sidecar}"
            )
        return wanted or names[0]

    def _features(self) -> features.Features:
        match self.description.input:
            case "waveform":
                return lambda waves: waves
            case "log_mel":
                try:
                    return features.log_mel(self.description.log_mel, self.windows.rate, self.device)
                except SettingError as error:
                    raise UserError(f"{self.file.sidecar}: log_mel.{error}") from None
            case name:
                return getattr(features, name)


def _read(path: Path) -> Any:
    """Parse a model without its external weights."""
    try:
        import onnx
        import onnxruntime  # noqa: F401  # said here, before anything else fails
    except ImportError:
        raise UserError(f"--tags-from onnx:{path.name} needs the packages onnx and onnxruntime; {_INSTALL}") from None
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises types of its own
        raise UserError(f"{path} is not an ONNX file ({' '.join(str(error).split())[:80]}); export it again") from None
    if not model.graph.node:
        raise UserError(f"{path} is not an ONNX file (it holds no graph); export it again")
    return model


def _count_weights(graph: Any) -> int:
    """Count the numbers that a model holds, but not those that are axes, shapes and positions."""
    import onnx

    whole = (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL)
    return sum(int(np.prod(item.dims)) for item in graph.graph.initializer if item.data_type not in whole)


def _external(graph: Any, path: Path) -> dict[str, str]:
    """Return the hashes of files beside the model that hold weights."""
    entries = (item for tensor in graph.graph.initializer for item in tensor.external_data)
    places = {item.value for item in entries if item.key == "location"}
    return {place: digest_bytes(path.parent / place) for place in sorted(places)}


def _session(path: Path, device: torch.device) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads sleep
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    elif device.type == "cuda":
        log.warning("onnx:%s runs on the CPU; for the GPU install onnxruntime-gpu in place of onnxruntime", path.name)
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime raises types of its own
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path} cannot be run ({reason}); export it again, or use a newer onnxruntime") from None
