"""Tags clips with trained networks: whole clips, mean of the sigmoids over networks and pads.

A trained tagger's folder holds ``tagger.json``: the weights that it consists of, with their hashes, and the pads. It
is written last, so its presence means that the tagger is ready, and it stands for the whole wherever a hash is needed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from tagasc.training.weights import read_weights
from tagasc.utils.cli import from_values
from tagasc.utils.device import autocast, to_device
from tagasc.utils.errors import UserError
from tagasc.utils.files import digest, read_json, write_json
from tagasc.utils.log import progress


@dataclass(frozen=True)
class Ensemble:
    """Trained networks of one vocabulary that are used together.

    Attributes:
        networks: in evaluation mode, on one device.
        mel: their spectrogram.
        classes: names of the sound events.
        pads: see ``InferenceConfig``.
    """

    networks: Sequence[TaggerNetwork]
    mel: MelConfig
    classes: list[str]
    pads: tuple[int, ...] = (0,)

    def tags(self, clips: TaggedClips, which: Tensor, batch: int = 64) -> np.ndarray:
        """Tag probabilities of whole clips of a tagging set, float32 (clips, classes), in the order of ``which``."""
        device = clips.store.device
        power = MelPower(self.mel).to(device)
        total = torch.zeros(len(which), len(self.classes), device=device)
        with _many_lengths():
            for pad in self.pads:
                for places, frames in group_by_padded_length(clips.frames[which] + 2 * pad, batch):
                    spectra = crop_spectrograms(clips, which[places], torch.full((len(places),), -pad), frames, power)
                    total[to_device(places, device)] += self._probabilities(spectra)
        return _mean(total, self.pads, [clips.packed.ids[n] for n in which.tolist()], clips.packed)

    def tag_scenes(self, packed: PackedAudio, device: torch.device, batch: int = 16) -> np.ndarray:
        """Tag probabilities of scene clips: mean of the channels, resampled, whole clip, float32 (clips, classes).

        ``batch`` clips at a time, or fewer if they are longer than 10 s. Clips of one length go together.
        """
        require_samples(packed)
        store, power = AudioStore(packed, device), MelPower(self.mel).to(device)
        to_rate = ToMono(packed.sampling_rate, self.mel.sampling_rate).to(device)
        total = torch.zeros(len(packed), len(self.classes), device=device)
        groups = group_by_length(packed, batch)
        for length, places in progress(groups, f"tagging {packed.folder.name}", total=len(groups)):
            mono = to_rate(store.windows(places, torch.zeros_like(places), length))
            spectra = power(reflect(mono, self.mel))
            frames = spectra.shape[2]
            for pad in self.pads:
                padded = F.pad(spectra, (pad, padded_frames(frames + 2 * pad) - frames - pad))
                total[to_device(places, device)] += self._probabilities(padded)
        return _mean(total, self.pads, packed.ids, packed)

    @torch.inference_mode()
    def _probabilities(self, power: Tensor) -> Tensor:
        """Mean over the networks of the curated head's sigmoid: (batch, mels, frames) → float32 (batch, classes)."""
        level = normalise(to_decibels(power))
        with autocast(power.device):
            every = torch.stack([network(level).float().sigmoid() for network in self.networks])
        return every.mean(dim=0)


def load_ensemble(paths: Sequence[Path], pads: tuple[int, ...], device: torch.device) -> Ensemble:
    """Load trained networks that belong together.

    Raises:
        UserError: a file is absent or not whole, or they differ in classes or spectrogram.
    """
    loaded = [load_tagger_network(path) for path in paths]
    _, mel, classes = loaded[0]
    for path, (_, *inputs) in zip(paths, loaded, strict=True):
        if inputs != [mel, classes]:
            raise UserError(f"{path} was trained on another spectrogram or vocabulary than {paths[0]}; train it again")
    return Ensemble([network.to(device) for network, _, _ in loaded], mel, classes, pads)


def load_tagger_network(path: Path) -> tuple[TaggerNetwork, MelConfig, list[str]]:
    """Build a trained network from its weights file alone: the network, its spectrogram, its classes.

    Raises:
        UserError: the file is absent or not whole.
    """
    state, metadata = read_weights(path, STAGE)
    try:
        network = TaggerNetwork(from_values(TaggerConfig, metadata["model"], str(path)), len(metadata["classes"]))
        network.load_state_dict(state)
        return network.eval(), from_values(MelConfig, metadata["mel"], str(path)), metadata["classes"]
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"{path} does not hold the tagger that it describes ({str(error)[:80]}); train it again"
        ) from None


def write_tagger(folder: Path, models: Sequence[Path], inference: InferenceConfig) -> None:
    """Declare the tagger in ``folder`` ready: it consists of ``models``, weights files below that folder."""
    listed = [{"weights": str(path.relative_to(folder)), "sha256": digest(path)} for path in models]
    write_json(folder / TAGGER, {"models": listed, "chosen": inference.models, "pads": list(inference.pads)})


def load_tagger(folder: Path, device: torch.device) -> Ensemble:
    """Load the tagger in ``folder``.

    Raises:
        UserError: it is not ready, or a weights file is absent or another one than it was.
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


@contextmanager
def _many_lengths() -> Iterator[None]:
    """Without trying out algorithms, which a GPU would do for every length anew: each has a handful of batches."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _mean(total: Tensor, pads: Sequence[int], ids: Sequence[str], packed: PackedAudio) -> np.ndarray:
    values = (total / len(pads)).cpu().numpy()
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise UserError(f"{packed.folder}: clip {ids[bad[0]]} holds samples that are not numbers; leave it out")
    return values
