"""How waveforms or features become the inputs of an ONNX model, whatever the order of its axes."""

from typing import Any

import numpy as np

from tagasc.sources.onnx_description import OnnxFile
from tagasc.utils.errors import UserError

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_WHOLE = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_WAVEFORMS = "(samples), (N, samples), (N, 1, samples) or (N, samples, channels)"


class ModelInput:
    """The inputs of a model: sound or features first, and perhaps their length.

    Attributes:
        shape: shape of the first input; a free dimension is text or None.
        form: order of its axes, in words.
    """

    def __init__(self, file: OnnxFile, inputs: list[Any]) -> None:
        """Compare the inputs with the description.

        Raises:
            UserError: they do not fit.
        """
        self.file, self.description = file, file.description
        self.first, *self.lengths = inputs
        self.shape = list(self.first.shape)
        if self.first.type not in _TYPES or any(x.type not in _WHOLE or len(x.shape) != 1 for x in self.lengths):
            raise UserError(
                f"{file.path} takes {self._text()}; it must take sound or features, and at most their length"
            )
        self.form = self._waveform() if self.description.input == "waveform" else self._features()
        if len(self.shape) > 1 and isinstance(self.shape[0], int) and self.shape[0] != 1:
            raise UserError(f"{file.path} takes {self._text()}; export it with a free batch size, or with 1")

    @property
    def one_at_a_time(self) -> bool:
        """Whether the model takes one window at a time."""
        return len(self.shape) == 1 or self.shape[0] == 1

    @property
    def fixed_samples(self) -> int | None:
        """Length of the waveforms if the file fixes it."""
        axis = {"samples": -1, "one channel": -1, "channels last": 1}.get(self.form)
        return self.shape[axis] if axis and isinstance(self.shape[axis], int) else None

    def feeds(self, value: np.ndarray) -> dict[str, np.ndarray]:
        """Return the inputs by name.

        Args:
            value: waveforms, (n, samples), or features, (n, bands, frames).

        Raises:
            ValueError: the model takes another number of frames.
        """
        length = value.shape[-1]
        value = self._ordered(value.astype(_TYPES[self.first.type]))
        wanted = [axis for axis in self.shape[-2:] if isinstance(axis, int)]
        if self.form in ("bands, frames", "frames, bands") and not set(wanted) <= set(value.shape[-2:]):
            raise ValueError(
                f"its input takes {tuple(self.shape[-2:])}, but {self.description.input} has {value.shape[-2:]}; fix"
                f" window in {self.file.sidecar}"
            )
        lengths = {item.name: np.full(len(value), length, _WHOLE[item.type]) for item in self.lengths}
        return {self.first.name: np.ascontiguousarray(value), **lengths}

    def _ordered(self, value: np.ndarray) -> np.ndarray:
        match self.form:
            case "samples":
                return value[0] if len(self.shape) == 1 else value
            case "one channel":
                return value[:, None]
            case "channels last":
                return np.repeat(value[:, :, None], self.shape[2], axis=2)
            case "frames, bands":
                value = value.transpose(0, 2, 1)
        return value[:, None] if len(self.shape) == 4 else value

    def _waveform(self) -> str:
        if len(self.shape) in (1, 2):
            return "samples"
        if len(self.shape) == 3 and self.shape[1] == 1:
            return "one channel"
        if len(self.shape) == 3 and isinstance(self.shape[2], int):
            return "channels last"
        raise UserError(f"{self.file.path} takes {self._text()}, but a waveform is {_WAVEFORMS}; describe its input")

    def _features(self) -> str:
        bands, name = self.description.bands, self.description.input
        wanted = f"{name} is (N, {bands}, T) or (N, T, {bands}), or these as images of one channel"
        if len(self.shape) != 3 and not (len(self.shape) == 4 and self.shape[1] == 1):
            raise UserError(f"{self.file.path} takes {self._text()}, but {wanted}; describe its input")
        axes = self.shape[-2:]
        if self.description.layout != "auto":
            form = self.description.layout.replace("_", ", ")
            if isinstance(axis := axes[form.split(", ").index("bands")], int) and axis != bands:
                raise UserError(f"{self.file.path} takes {self._text()}, but {wanted}; describe its input")
            return form
        if axes.count(bands) == 1:
            return "bands, frames" if axes[0] == bands else "frames, bands"
        if axes.count(bands) == 2 or not any(isinstance(axis, int) for axis in axes):
            raise UserError(
                f"{self.file.path} takes {self._text()}, from which the order of the axes cannot be told; write layout:"
                f" bands_frames or frames_bands into {self.file.sidecar}"
            )
        raise UserError(f"{self.file.path} takes {self._text()}, but {wanted}; describe its input")

    def _text(self) -> str:
        return ", ".join(f"{x.name} {tuple(x.shape)} of {x.type}" for x in (self.first, *self.lengths))
