"""Trains the audio tagger and tags clips with it (Akiyama & Sato [13]; paper, section 2.2).

First form: the multi-task stage on one fold. Curated and noisy clips are two streams, each with its own forward pass
and its own head; the epoch with the best lwlrap on the fold's held-out curated clips is kept.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.model_selection import KFold
from torch import Tensor, nn
from torchaudio.functional import resample

from tagasc.audio import AudioStore, PackedAudio
from tagasc.augment import Draws, band_mask, mix
from tagasc.command import from_values, plain
from tagasc.console import progress
from tagasc.errors import SettingError, UserError
from tagasc.features import MelConfig, MelPower, normalise, reflect, to_decibels
from tagasc.metrics import lwlrap
from tagasc.models.tagger import Tagger, TaggerConfig
from tagasc.training import autocast, mean_of, read_weights

_LADDER = 32  # whole clips are padded to a multiple of so many spectrogram frames


@dataclass(frozen=True)
class TaggerTraining:
    """How the tagger is trained.

    Args:
        epochs: number of epochs; one epoch is one pass over the fold's curated training clips.
        cycle: epochs after which the learning rate's cosine starts again.
        batch: clips per step and stream.
        learning_rate: highest, of Adam.
        least_learning_rate: lowest.
        crop_frames: spectrogram frames of a random crop; shorter clips are zero-padded at a random place.
        mixup_alpha: λ ~ Beta(alpha, alpha) per clip, within the same stream.
        gain: factor on the power spectrogram, uniform between these.
        mask_half_width: half-width of the frequency mask in mel bands, uniform between these.
        probability: of each of the three augmentations.
        folds: number of folds over the curated clips.
        fold: which fold is held out, counted from 0.
        fold_seed: of the shuffle before folding.
        leave_out: curated clips not to train on, by id.
    """

    epochs: int = 512
    cycle: int = 64
    batch: int = 64
    learning_rate: float = 1e-3
    least_learning_rate: float = 1e-6
    crop_frames: int = 512
    mixup_alpha: float = 1.0
    gain: tuple[float, float] = (0.9, 1.1)
    mask_half_width: tuple[int, int] = (8, 31)
    probability: float = 0.5
    folds: int = 5
    fold: int = 0
    fold_seed: int = 42
    leave_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.cycle < 1 or self.batch < 2 or self.crop_frames < 1:
            raise SettingError("epochs, cycle and crop_frames must be at least 1, batch at least 2")
        if not 0 < self.least_learning_rate <= self.learning_rate:
            raise SettingError("learning rates must be positive, the least not above the highest")
        if self.folds < 2 or not 0 <= self.fold < self.folds:
            raise SettingError("folds must be at least 2, and fold one of 0..folds-1")
        if not 0 <= self.probability <= 1 or self.mixup_alpha <= 0:
            raise SettingError("probability must lie in 0..1, mixup_alpha be positive")
        if not 0 <= self.mask_half_width[0] <= self.mask_half_width[1] or not 0 < self.gain[0] <= self.gain[1]:
            raise SettingError("mask_half_width and gain are ranges: lower end first, not negative")


class TaggedClips:
    """Clips of one tagging set.

    Attributes:
        store: the audio, mono.
        truth: float32 (clips, classes), 1 where the class is present.
        frames: int64 (clips,), spectrogram frames of each clip.
    """

    def __init__(self, folder: Path, classes: list[str] | None, mel: MelConfig, device: torch.device) -> None:
        """Open a packed folder; ``classes`` None takes the folder's own labels in ASCII order.

        Raises:
            UserError: another sampling rate than the spectrogram's, several channels, or a label not in ``classes``.
        """
        self.packed = PackedAudio(folder)
        if self.packed.sampling_rate != mel.sampling_rate or self.packed.channels != 1:
            raise UserError(
                f"{folder} has {self.packed.sampling_rate} Hz and {self.packed.channels} channel(s), the tagger takes"
                f" {mel.sampling_rate} Hz mono; set mel.sampling_rate or prepare the audio"
            )
        self.classes = classes or sorted({label for clip in self.packed.clips for label in clip.labels})
        place = {name: number for number, name in enumerate(self.classes)}
        self.truth = torch.zeros(len(self.packed), len(self.classes))
        for number, clip in enumerate(self.packed.clips):
            for label in clip.labels:
                if label not in place:
                    raise UserError(
                        f"{folder}: clip {clip.id} is labelled {label}, which no curated clip is; mend the labels"
                    )
                self.truth[number, place[label]] = 1
        self.frames = mel.frames(self.packed.lengths)
        self.store = AudioStore(self.packed, device)


class TaggerTask:
    """The multi-task stage on one fold; see ``tagasc.training.Trainable``."""

    def __init__(
        self,
        config: TaggerTraining,
        model: TaggerConfig,
        mel: MelConfig,
        curated: TaggedClips,
        noisy: TaggedClips | None,
        seed: int,
        device: torch.device,
    ) -> None:
        """Build the network from ``seed``; without ``noisy`` only the curated head is trained.

        Raises:
            UserError: fewer clips than a batch or than folds.
        """
        self.config, self.model, self.mel, self.seed, self.device = config, model, mel, seed, device
        self.curated, self.noisy = curated, noisy
        self.training, self.held_out = _fold(curated, config)
        self.steps = len(self.training) // config.batch
        short = [c.packed.folder for c in (curated, noisy) if c is not None and len(c.packed) < config.batch]
        if self.steps == 0 or short:
            raise UserError(
                f"{(short or [curated.packed.folder])[0]} has fewer clips than batch: {config.batch}; lower batch"
            )
        torch.manual_seed(seed)
        self.network = Tagger(model, len(curated.classes)).to(device)
        self.power = MelPower(mel).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), config.learning_rate)

    def train(self, epoch: int) -> dict[str, float]:
        """One pass over the fold's curated clips, with as many noisy clips beside them."""
        self.network.train()
        draws = Draws(self.seed, epoch)
        streams, losses = self._streams(draws), []
        for step in progress(range(self.steps), f"epoch {epoch}", total=self.steps):
            self._set_learning_rate(epoch - 1 + step / self.steps)
            loss = sum(self._loss(clips, head, batches[step], draws) for clips, head, batches in streams)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return {"loss": mean_of(losses)}

    def validate(self) -> dict[str, float]:
        """lwlrap of the curated head on the held-out curated clips, taken whole."""
        score = lwlrap(self.curated.truth[self.held_out].numpy(), self.scores(self.curated, self.held_out))
        return {"validation_lwlrap": score, "score": score}

    def scores(self, clips: TaggedClips, which: Tensor) -> np.ndarray:
        """Tag probabilities of whole clips, float32 (clips, classes), in the order of ``which``."""
        self.network.eval()
        result = np.zeros((len(which), len(clips.classes)), np.float32)
        for places, frames in by_length(clips.frames[which], self.config.batch):
            power = crop(clips, which[places], torch.zeros(len(places), dtype=torch.int64), frames, self.power)
            result[places] = probabilities(self.network, power)
        return result

    def about(self) -> dict[str, Any]:
        """What is stored with the weights."""
        return plain({"model": self.model, "mel": self.mel, "classes": self.curated.classes})

    def _streams(self, draws: Draws) -> list[tuple[TaggedClips, nn.Module, tuple[Tensor, ...]]]:
        """For each stream its clips, its head, and the epoch's batches; as many noisy clips as curated ones."""
        size, count = self.config.batch, self.steps * self.config.batch
        order = self.training[draws.permutation(len(self.training))]
        streams = [(self.curated, self.network.curated, order[:count].split(size))]
        if self.noisy is not None:
            clips = len(self.noisy.packed)
            order = torch.cat([draws.permutation(clips) for _ in range(-(-count // clips))])
            streams.append((self.noisy, self.network.noisy, order[:count].split(size)))
        return streams

    def _loss(self, clips: TaggedClips, head: nn.Module, which: Tensor, draws: Draws) -> Tensor:
        """One stream: crop, augment, its own forward pass, binary cross-entropy of its head."""
        power, truth = self._augmented(clips, which, draws)
        with autocast(self.device):
            logits = head(self.network.features(normalise(to_decibels(power))))
        return F.binary_cross_entropy_with_logits(logits.float(), truth)

    def _augmented(self, clips: TaggedClips, which: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Crop, mixup, gain, frequency mask, all on the power spectrogram: (batch, mels, frames), (batch, classes)."""
        config, batch = self.config, len(which)
        spare = clips.frames[which] - config.crop_frames
        # Spare frames: a crop starts within them; missing ones: the clip starts at a random place in the crop.
        starts = draws.integers(spare.abs() + 1) * spare.sign()
        power, truth = crop(clips, which, starts, config.crop_frames, self.power), clips.truth[which].to(self.device)
        chosen = draws.chance(config.probability, batch)
        weight = torch.where(chosen, draws.beta(config.mixup_alpha, batch), 1.0)
        order = draws.permutation(batch)
        power, truth = mix(power, order, weight), mix(truth, order, weight)
        louder = torch.where(draws.chance(config.probability, batch), draws.uniform(*config.gain, batch), 1.0)
        masked = band_mask(self.mel.mels, draws, config.mask_half_width, config.probability, batch)
        factor = louder.unsqueeze(1) * (~masked).float()
        return power * factor.unsqueeze(2).to(self.device), truth

    def _set_learning_rate(self, epochs_done: float) -> None:
        phase = epochs_done % self.config.cycle / self.config.cycle
        low, high = self.config.least_learning_rate, self.config.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = low + (high - low) * 0.5 * (1 + math.cos(math.pi * phase))


def crop(clips: TaggedClips, which: Tensor, starts: Tensor, frames: int, power: MelPower) -> Tensor:
    """Cut ``frames`` spectrogram frames out of clips: (batch, mels, frames), power.

    A start may be negative, a crop longer than its clip: frames outside the clip are zero. Frames inside are those of
    the whole clip's centred, reflecting spectrogram.
    """
    mel = power.config
    wave = clips.store.windows(which, starts * mel.hop - mel.n_fft // 2, mel.samples(frames))[:, :, 0]
    place = starts.unsqueeze(1) + torch.arange(frames)
    inside = (place >= 0) & (place < clips.frames[which].unsqueeze(1))
    return power(wave) * inside.unsqueeze(1).to(wave.device)


def by_length(frames: Tensor, batch: int) -> Iterator[tuple[Tensor, int]]:
    """Group clips for inference: yields positions and the padded number of frames.

    That number is the next multiple of 32 of the clip's own length, so a clip's tags never depend on the clips beside
    it. Batches hold at most ``batch`` clips, and fewer of long ones: no more frames than ``batch`` crops of 512.
    """
    padded = (frames + _LADDER - 1) // _LADDER * _LADDER
    for length in padded.unique().tolist():
        for places in torch.nonzero(padded == length).flatten().split(max(1, min(batch, batch * 512 // length))):
            yield places, length


@torch.inference_mode()
def probabilities(network: Tagger, power: Tensor) -> np.ndarray:
    """Sigmoid of the curated head for (batch, mels, frames): float32 (batch, classes)."""
    with autocast(power.device):
        logits = network(normalise(to_decibels(power)))
    return logits.float().sigmoid().cpu().numpy()


def tag_scenes(
    network: Tagger, mel: MelConfig, packed: PackedAudio, device: torch.device, batch: int = 16
) -> np.ndarray:
    """Tag vectors of scene clips: mean of the channels, resampled to the tagger's rate, whole clip, curated head.

    Returns:
        float32 (clips, classes).
    """
    store, power = AudioStore(packed, device), MelPower(mel).to(device)
    network = network.to(device).eval()
    rows = np.zeros((len(packed), network.curated[-1].out_features), np.float32)
    groups = [
        (length, places)
        for length in packed.lengths.unique().tolist()
        for places in torch.nonzero(packed.lengths == length).flatten().split(batch)
    ]
    for length, places in progress(groups, f"tagging {packed.folder.name}", total=len(groups)):
        mono = store.windows(places, torch.zeros_like(places), length).mean(dim=2)
        mono = resample(mono, packed.sampling_rate, mel.sampling_rate)
        spectrum = power(reflect(mono, mel))
        padding = -spectrum.shape[2] % _LADDER
        rows[places] = probabilities(network, F.pad(spectrum, (0, padding)))
    return rows


def load_tagger(path: Path) -> tuple[Tagger, MelConfig, list[str]]:
    """Build a trained tagger from its weights file alone: the network, its spectrogram, its classes."""
    state, about = read_weights(path, "stage 3 (tagger)")
    try:
        network = Tagger(from_values(TaggerConfig, about["model"], str(path)), len(about["classes"]))
        network.load_state_dict(state)
        return network.eval(), from_values(MelConfig, about["mel"], str(path)), about["classes"]
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"{path} does not hold the tagger that it describes ({str(error)[:80]}); train it again"
        ) from None


def _fold(curated: TaggedClips, config: TaggerTraining) -> tuple[Tensor, Tensor]:
    """Positions of training and held-out curated clips."""
    if len(curated.packed) < config.folds:
        raise UserError(f"{curated.packed.folder} has fewer clips than folds: {config.folds}; lower folds")
    split = KFold(config.folds, shuffle=True, random_state=config.fold_seed)
    training, held_out = list(split.split(np.arange(len(curated.packed))))[config.fold]
    bad = set(config.leave_out)
    kept = [number for number in training.tolist() if curated.packed.ids[number] not in bad]
    return torch.tensor(kept), torch.from_numpy(held_out)
