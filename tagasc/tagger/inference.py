"""Tag whole clips with trained networks: the mean of the sigmoids over networks and pads.

``tagger.json`` in a tagger's folder lists its weights files with their hashes, and the pads. It is written last: if it
exists, the tagger is ready. Its hash identifies the tagger.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tagasc.audio.packed import PackedAudio
from tagasc.audio.store import AudioStore
from tagasc.audio.waveform import ToMono
from tagasc.tagger.clips import (
    TaggedClips,
    crop_spectrograms,
    group_by_length,
    group_by_padded_length,
    padded_frames,
    require_samples,
)
from tagasc.tagger.config import InferenceConfig
from tagasc.tagger.experiment import STAGE, TAGGER
from tagasc.tagger.features import MelConfig, MelPower, normalise, reflect, to_decibels
from tagasc.tagger.network import TaggerConfig, TaggerNetwork
from tagasc.training.ladder import in_batches_that_fit
from tagasc.training.weights import read_weights
from tagasc.utils.cli import from_values
from tagasc.utils.device import autocast, to_device
from tagasc.utils.errors import UserError
from tagasc.utils.files import digest, read_json, write_json
from tagasc.utils.log import progress


@dataclass(frozen=True)
class Ensemble:
    """Trained networks of one vocabulary whose tags are averaged.

    Attributes:
        networks: networks in evaluation mode, on one device.
        mel: the networks' spectrogram.
        classes: names of the sound events.
        pads: silent frames before and after a clip; see ``InferenceConfig``.
    """

    networks: Sequence[TaggerNetwork]
    mel: MelConfig
    classes: list[str]
    pads: tuple[int, ...] = (0,)

    def tags(self, clips: TaggedClips, indices: Tensor, batch: int = 64) -> np.ndarray:
        """Return tag probabilities of whole clips, float32 (clips, classes), in the order of ``indices``."""
        device = clips.store.device
        mel_power = MelPower(self.mel).to(device)
        total = torch.zeros(len(indices), len(self.classes), device=device)

        def tag(rows: Tensor, pad: int, frames: int) -> Tensor:
            starts = torch.full((len(rows),), -pad)
            return self._probabilities(crop_spectrograms(clips, indices[rows], starts, frames, mel_power))

        with _without_cudnn_benchmark():
            for pad in self.pads:
                for rows, frames in group_by_padded_length(clips.frames[indices] + 2 * pad, batch):
                    work = partial(tag, pad=pad, frames=frames)
                    total[to_device(rows, device)] += _where_it_fits(work, rows, device)
        return _mean(total, self.pads, [clips.packed.ids[n] for n in indices.tolist()], clips.packed)

    def tag_scenes(self, packed: PackedAudio, device: torch.device, batch: int = 16) -> np.ndarray:
        """Return tag probabilities of scene clips, float32 (clips, classes).

        The mean of the channels is resampled and tagged whole. A batch holds up to ``batch`` clips of equal length,
        and fewer if they are longer than 10 s.
        """
        return self._scenes(packed, device, batch, self._probabilities, len(self.classes))

    def embed_scenes(self, packed: PackedAudio, device: torch.device, batch: int = 16) -> np.ndarray:
        """Return the last network's embeddings of scene clips, float32 (clips, values); else as ``tag_scenes``.

        Networks trained apart have nothing in common between their layers, so these are not averaged over networks.
        """
        return self._scenes(packed, device, batch, self._embeddings, self.networks[-1].embedding_size)

    def _scenes(
        self, packed: PackedAudio, device: torch.device, batch: int, compute: Callable[[Tensor], Tensor], width: int
    ) -> np.ndarray:
        """Average what ``compute`` makes of a padded power spectrogram over the pads, for every clip."""
        require_samples(packed)
        store, mel_power = AudioStore(packed, device), MelPower(self.mel).to(device)
        to_rate = ToMono(packed.sampling_rate, self.mel.sampling_rate).to(device)
        total = torch.zeros(len(packed), width, device=device)
        groups = group_by_length(packed, batch)

        def tag(indices: Tensor, length: int) -> Tensor:
            mono = to_rate(store.windows(indices, torch.zeros_like(indices), length))
            spectra = mel_power(reflect(mono, self.mel))
            frames = spectra.shape[2]
            padded = ((pad, padded_frames(frames + 2 * pad) - frames - pad) for pad in self.pads)
            return sum(compute(F.pad(spectra, pads)) for pads in padded)

        for length, indices in progress(groups, f"tagging {packed.folder.name}", total=len(groups)):
            total[to_device(indices, device)] = _where_it_fits(partial(tag, length=length), indices, device)
        return _mean(total, self.pads, packed.ids, packed)

    @torch.inference_mode()
    def _probabilities(self, power: Tensor) -> Tensor:
        """Average the curated head's sigmoid over the networks: (batch, mels, frames) → float32 (batch, classes)."""
        level = normalise(to_decibels(power))
        with autocast(power.device):
            probabilities = torch.stack([network(level).float().sigmoid() for network in self.networks])
        return probabilities.mean(dim=0)

    @torch.inference_mode()
    def _embeddings(self, power: Tensor) -> Tensor:
        """Compute the last network's embedding: (batch, mels, frames) → float32 (batch, values)."""
        level = normalise(to_decibels(power))
        with autocast(power.device):
            return self.networks[-1].embedding(level).float()


def load_ensemble(paths: Sequence[Path], pads: tuple[int, ...], device: torch.device) -> Ensemble:
    """Load trained networks of one vocabulary and spectrogram.

    Raises:
        UserError: a file is missing or incomplete, or the networks differ in classes or spectrogram.
    """
    loaded = [load_tagger_network(path) for path in paths]
    _, mel, classes = loaded[0]
    for path, (_, *inputs) in zip(paths, loaded, strict=True):
        if inputs != [mel, classes]:
            raise UserError(f"{path} has another spectrogram or vocabulary than {paths[0]}; train it again")
    return Ensemble([network.to(device) for network, _, _ in loaded], mel, classes, pads)


def load_tagger_network(path: Path) -> tuple[TaggerNetwork, MelConfig, list[str]]:
    """Build a trained network from its weights file; return the network, its spectrogram, and its classes.

    Raises:
        UserError: the file is missing or incomplete.
    """
    state, metadata = read_weights(path, STAGE)
    try:
        network = TaggerNetwork(from_values(TaggerConfig, metadata["model"], str(path)), len(metadata["classes"]))
        network.load_state_dict(state)
        return network.eval(), from_values(MelConfig, metadata["mel"], str(path)), metadata["classes"]
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"{path}: weights and metadata do not match ({str(error)[:80]}); train the tagger again"
        ) from None


def write_tagger(folder: Path, paths: Sequence[Path], inference: InferenceConfig) -> None:
    """Write ``tagger.json``: the tagger in ``folder`` consists of the weights files ``paths``."""
    listed = [{"weights": str(path.relative_to(folder)), "sha256": digest(path)} for path in paths]
    write_json(folder / TAGGER, {"models": listed, "chosen": inference.models, "pads": list(inference.pads)})


def load_tagger(folder: Path, device: torch.device) -> Ensemble:
    """Load the tagger in ``folder``.

    Raises:
        UserError: the tagger is not ready, or a weights file is missing or has changed.
    """
    path = folder / TAGGER
    metadata = read_json(path, STAGE)
    try:
        listed = [(folder / model["weights"], model["sha256"]) for model in metadata["models"]]
        pads = InferenceConfig(pads=tuple(metadata["pads"])).pads
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} does not describe a tagger ({error}); run stage 3 (tagger) again") from None
    ensemble = load_ensemble([weights for weights, _ in listed], pads, device)
    for weights, expected in listed:
        if digest(weights) != expected:
            raise UserError(f"{weights} has changed since {path} was written; run stage 3 (tagger) again")
    return ensemble


def _where_it_fits(tag: Callable[[Tensor], Tensor], rows: Tensor, device: torch.device) -> Tensor:
    """Return ``tag(rows)``, computed in parts where the GPU's memory does not suffice for all rows."""
    in_parts = lambda batch: torch.cat([tag(part) for part in rows.split(batch)])
    return in_batches_that_fit(in_parts, len(rows), device, "tags")


@contextmanager
def _without_cudnn_benchmark() -> Iterator[None]:
    """Turn off cuDNN's search for algorithms, which would be repeated for every length; each has few batches."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _mean(total: Tensor, pads: Sequence[int], ids: Sequence[str], packed: PackedAudio) -> np.ndarray:
    values = (total / len(pads)).cpu().numpy()
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise UserError(f"{packed.folder}: clip {ids[bad[0]]} has samples that are not finite; leave it out")
    return values
