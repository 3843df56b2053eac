"""What all taggers from outside share: mono at their rate, windows, batches, and a check of what they return."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from tagasc.audio.packed import PackedAudio
from tagasc.audio.store import AudioStore
from tagasc.audio.waveform import ToMono
from tagasc.sources.source import SourceOptions
from tagasc.sources.windows import Windows
from tagasc.tagger.clips import group_by_length, require_samples
from tagasc.training.ladder import in_batches_that_fit
from tagasc.utils.device import out_of_memory
from tagasc.utils.errors import UserError
from tagasc.utils.log import log, progress

TOLERANCE = 1e-5  # by which a probability may miss 0..1, through rounding


class OutsideTagger(ABC):
    """A tag source; see ``tagasc.sources.source.TagSource``.

    Attributes:
        title: its name, as given to ``--tags-from``.
        kind: its kind in words.
        classes: names of the events in the order of its outputs; of an embedding "value 1", "value 2", …
        windows: rate and window of the tagger.
        batch: windows per forward pass.
        hashes: hash of each file, by name; the first is the one that gives the source its identity.
        parameters: number of its weights; None if that is not known.
        extra: further settings that the values depend on, as JSON values.
    """

    kind: str

    def __init__(
        self, title: str, classes: list[str], windows: Windows, device: torch.device, options: SourceOptions
    ) -> None:
        self.title, self.windows, self.device = title, windows, device
        self.batch, self.take = options.batch, options.take
        self.classes = list(classes)
        self.hashes: Mapping[str, str] = {}
        self.parameters: int | None = None
        self.extra: dict[str, Any] = {}
        self._width = len(self.classes) if self.take == "probability" else None
        self._require_names()

    @abstractmethod
    def compute(self, waves: Tensor) -> Tensor | np.ndarray:
        """Return the values of windows, (windows, samples) → (windows, classes)."""

    def ready(self) -> Self:
        """Try the tagger on noise, so that what is wrong is said before anything is written; return it."""
        length = self.windows.samples or 2 * self.windows.rate
        noise = torch.randn(1, length, generator=torch.Generator().manual_seed(0)) * 0.1
        with torch.inference_mode():
            values = self._values(noise.to(self.device), self.title)
        if self.take == "embedding":
            self.classes = [f"value {n + 1}" for n in range(values.shape[1])]
        log.info("%s: %s", self.title, self._text())
        return self

    def input_hashes(self) -> dict[str, str]:
        """Return the hashes of its files."""
        return {("tag source" + (f" {name}" if n else "")): item for n, (name, item) in enumerate(self.hashes.items())}

    def settings(self) -> dict[str, Any]:
        """Return every setting that the values depend on."""
        return {**self.windows.describe(), "take": self.take, **self.extra}

    def record(self) -> dict[str, Any]:
        """Describe the source; see ``TagSource``."""
        identity = {"kind": self.kind, "source": self.title, "sha256": dict(self.hashes)}
        return {**identity, "classes": len(self.classes), "parameters": self.parameters, **self.settings()}

    def lengths(self, packed: PackedAudio) -> dict[str, int]:
        """Count the clips by what is done with them."""
        to_rate = lambda frames: -(-frames * self.windows.rate // packed.sampling_rate)
        return dict(Counter(self.windows.treatment(to_rate(length)) for length in packed.lengths.tolist()))

    @torch.inference_mode()
    def tags(self, packed: PackedAudio) -> np.ndarray:
        """Return the values of every clip, float32 (clips, classes): mean of the channels, resampled, in windows.

        Raises:
            UserError: the tagger fails, or returns something else than probabilities of its classes (or, of an
                embedding, finite numbers).
        """
        require_samples(packed)
        store = AudioStore(packed, self.device)
        to_rate = ToMono(packed.sampling_rate, self.windows.rate).to(self.device)
        values = np.zeros((len(packed), len(self.classes)), np.float32)
        groups = group_by_length(packed, self.batch)
        for length, indices in progress(groups, f"tagging {packed.folder.name}", total=len(groups)):
            mono = to_rate(store.windows(indices, torch.zeros_like(indices), length))
            if not bool(mono.isfinite().all()):
                raise UserError(f"{packed.folder}: a clip such as {packed.ids[int(indices[0])]} has samples that are"
                                " not finite; leave it out")  # fmt: skip
            windows, count = self.windows.cut(mono)
            work = partial(self._in_batches, windows, f"{packed.folder}: {self.title}")
            found = in_batches_that_fit(work, min(self.batch, len(windows)), self.device, "tags")
            values[indices.numpy()] = self.windows.join(found, count).numpy()
        return values

    def _in_batches(self, windows: Tensor, where: str, batch: int) -> Tensor:
        return torch.cat([self._values(part, where) for part in windows.split(batch)])

    def _values(self, waves: Tensor, where: str) -> Tensor:
        """Compute and check the values of windows; return them on the CPU."""
        try:
            values = torch.as_tensor(self.compute(waves)).detach().float().cpu()
        except (RuntimeError, ValueError, TypeError) as error:
            if out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                f"{where} cannot tag {waves.shape[1] / self.windows.rate:g} s of sound ({reason})"
            ) from None
        width = self._width or (values.shape[-1] if values.ndim else 0)  # of an embedding, the first window's
        if values.shape != (len(waves), width):
            named = f"{width} {'classes' if self.take == 'probability' else 'values'}"
            raise UserError(
                f"{where} returns {tuple(values.shape)} for {len(waves)} windows and {named}; these must match"
            )
        self._width = width
        if not bool(values.isfinite().all()):
            raise UserError(f"{where} returns values that are not finite (NaN or infinite); choose another model")
        if self.take == "embedding":
            return values
        low, high = float(values.min()), float(values.max())
        if low < -TOLERANCE or high > 1 + TOLERANCE:
            raise UserError(
                f"{where} returns {low:.4g} to {high:.4g}, which are no probabilities; {self.remedy_for_range}"
            )
        return values.clamp(0, 1)

    remedy_for_range = "choose another model"

    def _text(self) -> str:
        seconds = self.windows.describe()["window_seconds"]
        what = "classes" if self.take == "probability" else "values (embedding)"
        window = "clips of any length" if seconds is None else f"windows of {seconds:g} s"
        activation = self.extra.get("activation", "none")
        return f"{len(self.classes)} {what}, {self.windows.rate} Hz, {window}, activation {activation}"

    def _require_names(self) -> None:
        """Raise UserError if the classes are not at least two distinct names."""
        twice = [name for name, count in Counter(self.classes).items() if count > 1]
        if twice or len(self.classes) < 2 or not all(isinstance(name, str) and name.strip() for name in self.classes):
            found = f"{twice[0]!r} is listed twice" if twice else f"found {len(self.classes)}, {self.classes[:3]}"
            raise UserError(f"{self.title}: its classes must be at least two distinct names, but {found}")
