"""Trains the tagger on one fold, stage 1: a stream of curated and one of noisy clips, a head for each.

Each stream makes its own forward pass, so that batch normalisation sees one stream at a time. Only the end of a cycle
of the learning rate competes for the best weights; every cycle's end is kept as a snapshot.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.model_selection import KFold
from torch import Tensor, nn

from tagasc.tagger.clips import TaggedClips, crop_spectrograms
from tagasc.tagger.config import SemiTraining, TaggerTraining
from tagasc.tagger.experiment import TaggerExperiment, snapshot_file, stage_folder
from tagasc.tagger.features import MelConfig, MelPower, normalise, to_decibels
from tagasc.tagger.inference import Ensemble
from tagasc.tagger.lwlrap import lwlrap
from tagasc.tagger.network import TaggerConfig, TaggerNetwork
from tagasc.training.augment import EpochRng, band_mask, mix, time_slice
from tagasc.training.loop import fit, mean_of
from tagasc.training.result import short_name
from tagasc.training.weights import parameters, save_weights
from tagasc.utils.cli import to_json
from tagasc.utils.device import autocast, to_device
from tagasc.utils.errors import UserError
from tagasc.utils.log import log, progress


@dataclass(frozen=True)
class ClipPool:
    """Clips with the targets that they have in one stream, and this epoch's batches of them.

    Mixup stays within a pool.
    """

    clips: TaggedClips
    target: Tensor
    batches: Sequence[Tensor]


@dataclass(frozen=True)
class DataStream:
    """Pools whose batches are passed through the network together, the head for them, and the loss."""

    pools: tuple[ClipPool, ...]
    head: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class FoldSetup:
    """One fold to train on.

    Attributes:
        number: which fold is held out, counted from 0.
        curated: clips with labels to trust.
        noisy: clips with labels not to trust, or None; then only the curated head is trained.
        config, model, mel: the settings.
        seed: of initialisation, order and augmentation, together with the fold's number.
        folder: where the snapshots go.
        device: where to train.
        compiled: let torch.compile make the trunk faster; sums then differ in the last bits.
    """

    number: int
    curated: TaggedClips
    noisy: TaggedClips | None
    config: TaggerTraining
    model: TaggerConfig
    mel: MelConfig
    seed: int
    folder: Path
    device: torch.device
    compiled: bool = False


class TaggerTrainer:
    """Stage 1 on one fold; see ``tagasc.training.loop.Trainer``."""

    def __init__(self, fold: FoldSetup) -> None:
        """Build the network from the fold's seed.

        Raises:
            UserError: fewer clips than a batch or than folds.
        """
        self.fold, self.config = fold, fold.config
        self.training_indices, self.held_out = split_folds(fold.curated, fold.config)[fold.number]
        self.steps = len(self.training_indices) // self.config.batch
        usable = {fold.curated.packed.folder: len(self.training_indices)}
        if fold.noisy is not None:
            usable[fold.noisy.packed.folder] = len(fold.noisy)
        for folder, count in usable.items():
            if count < self.config.batch:
                raise UserError(f"{folder} has fewer clips than batch: {self.config.batch}; lower batch")
        self.seed = int(np.random.SeedSequence([fold.seed, fold.number]).generate_state(1)[0])
        torch.manual_seed(self.seed)
        self.network = TaggerNetwork(fold.model, len(fold.curated.classes)).to(fold.device)
        trunk = self.network.features
        self.trunk = torch.compile(trunk, dynamic=False) if fold.compiled else trunk
        self.mel_power = MelPower(fold.mel).to(fold.device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), self.config.learning_rate)
        self.epochs, self.epoch, self.epochs_before = self.config.epochs, 0, 0
        self.slicing: SemiTraining | None = None

    def train(self, epoch: int) -> dict[str, float]:
        """One pass over the fold's curated clips, with as many clips of every other stream beside them."""
        self.network.train()
        self.epoch = epoch
        rng = EpochRng(self.seed, self.epochs_before + epoch)
        streams, losses = self.streams(rng), []
        for step in progress(range(self.steps), f"epoch {epoch}", total=self.steps):
            self._set_learning_rate(epoch - 1 + step / self.steps)
            losses.append(self.step(streams, step, rng))
        if self._ends_cycle():
            save_weights(
                snapshot_file(self.fold.folder, -(-epoch // self.config.cycle)),
                self.network.state_dict(),
                self.metadata(),
            )
        return {"loss": mean_of(losses)}

    def step(self, streams: Sequence[DataStream], step: int, rng: EpochRng) -> Tensor:
        """One step of the optimiser on each stream's batch ``step``; returns the loss, on the device."""
        batches = [self._batch(stream, step, rng) for stream in streams]
        logits = self._logits(streams, [power for power, _ in batches])
        parts = zip(streams, logits, batches, strict=True)
        loss = sum(stream.loss(scores.float(), target) for stream, scores, (_, target) in parts)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def validate(self) -> dict[str, float]:
        """lwlrap of the curated head on the held-out curated clips, taken whole; 0 as score within a cycle."""
        self.network.eval()
        values = Ensemble([self.network], self.fold.mel, self.fold.curated.classes).tags(
            self.fold.curated, self.held_out, self.config.batch
        )
        found = lwlrap(self.fold.curated.truth[self.held_out].numpy(), values)
        return {"validation_lwlrap": found, "score": found if self._ends_cycle() else 0.0}

    def metadata(self) -> dict[str, Any]:
        """What is stored with the weights."""
        return to_json({"model": self.fold.model, "mel": self.fold.mel, "classes": self.fold.curated.classes})

    def streams(self, rng: EpochRng) -> list[DataStream]:
        """The epoch's streams: curated clips, and as many noisy ones."""
        batches = self.shuffled_batches(self.training_indices, self.config.batch, rng)
        curated = ClipPool(self.fold.curated, self.fold.curated.truth, batches)
        streams = [DataStream((curated,), self.network.curated, F.binary_cross_entropy_with_logits)]
        if self.fold.noisy is not None:
            batches = self.shuffled_batches(torch.arange(len(self.fold.noisy)), self.config.batch, rng)
            noisy = ClipPool(self.fold.noisy, self.fold.noisy.truth, batches)
            streams.append(DataStream((noisy,), self.network.noisy, F.binary_cross_entropy_with_logits))
        return streams

    def shuffled_batches(self, which: Tensor, size: int, rng: EpochRng) -> Sequence[Tensor]:
        """An epoch's batches out of ``which``, shuffled; over again where they are too few."""
        count = self.steps * size
        order = torch.cat([which[rng.permutation(len(which))] for _ in range(-(-count // len(which)))])
        return order[:count].split(size)

    def _batch(self, stream: DataStream, step: int, rng: EpochRng) -> tuple[Tensor, Tensor]:
        """The stream's pools side by side, each augmented: (batch, mels, frames), (batch, classes)."""
        parts = [self.augment(pool.clips, pool.target, pool.batches[step], rng) for pool in stream.pools]
        return torch.cat([power for power, _ in parts]), torch.cat([target for _, target in parts])

    def _logits(self, streams: Sequence[DataStream], powers: list[Tensor]) -> list[Tensor]:
        """Each stream's own forward pass, or one of all streams together."""
        levels = [normalise(to_decibels(power)) for power in powers]
        with autocast(self.fold.device):
            if self.config.joint_pass:
                features = self.trunk(torch.cat(levels)).split([len(level) for level in levels])
                return [stream.head(part) for stream, part in zip(streams, features, strict=True)]
            passes = zip(streams, levels, strict=True)
            return [stream.head(self.trunk(level)) for stream, level in passes]

    def augment(self, clips: TaggedClips, target: Tensor, which: Tensor, rng: EpochRng) -> tuple[Tensor, Tensor]:
        """Crop, slice, mixup, gain, frequency mask, all on the power spectrogram.

        Returns:
            power (batch, mels, frames) and target (batch, classes), on the device.
        """
        config, batch = self.config, len(which)
        spare = clips.frames[which] - config.crop_frames
        # Spare frames: a crop starts within them; missing ones: the clip starts at a random place in the crop.
        starts = rng.integers(spare.abs() + 1) * spare.sign()
        power = crop_spectrograms(clips, which, starts, config.crop_frames, self.mel_power)
        target = to_device(target[which], self.fold.device)
        if self.slicing is not None:
            kept = time_slice(config.crop_frames, rng, self.slicing.slice_part, self.slicing.slice_probability, batch)
            power = power * to_device(kept.unsqueeze(1), self.fold.device)
        chosen = rng.chance(config.probability, batch)
        weight = torch.where(chosen, rng.beta(config.mixup_alpha, batch), 1.0)
        order = rng.permutation(batch)
        power, target = mix(power, order, weight), mix(target, order, weight)
        louder = torch.where(rng.chance(config.probability, batch), rng.uniform(*config.gain, batch), 1.0)
        masked = band_mask(self.fold.mel.mels, rng, config.mask_half_width, config.probability, batch)
        factor = louder.unsqueeze(1) * (~masked).float()
        return power * to_device(factor.unsqueeze(2), self.fold.device), target

    def _ends_cycle(self) -> bool:
        return self.epoch % self.config.cycle == 0 or self.epoch == self.epochs

    def _set_learning_rate(self, epochs_done: float) -> None:
        phase = epochs_done % self.config.cycle / self.config.cycle
        low, high = self.config.least_learning_rate, self.config.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = low + (high - low) * 0.5 * (1 + math.cos(math.pi * phase))


def fold_setup(experiment: TaggerExperiment, fold: int, stage: int) -> FoldSetup:
    """Prepare the training of one stage on one fold."""
    o, folder = experiment.options, stage_folder(experiment.folder, fold, stage)
    clips = experiment.curated, experiment.noisy
    return FoldSetup(fold, *clips, o.training, o.model, o.mel, o.seed, folder, experiment.device, o.compile)


def fit_fold(trainer: TaggerTrainer) -> None:
    """Train a fold to its last epoch."""
    fold, count = trainer.fold, parameters(trainer.network)
    title, classes = short_name(fold.folder), len(fold.curated.classes)
    log.info("%s: %d classes, %d parameters, device %s", title, classes, count, fold.device)
    fit(trainer, fold.folder, trainer.epochs, trainer.metadata())


def split_folds(curated: TaggedClips, config: TaggerTraining) -> list[tuple[Tensor, Tensor]]:
    """For each fold the positions of training and held-out curated clips.

    Raises:
        UserError: fewer clips than folds, or a clip to leave out is none of them.
    """
    if len(curated) < config.folds:
        raise UserError(f"{curated.packed.folder} has fewer clips than folds: {config.folds}; lower folds")
    split = KFold(config.folds, shuffle=True, random_state=config.fold_seed)
    bad = set(config.leave_out)
    unknown = sorted(bad.difference(curated.packed.ids))
    if unknown:
        raise UserError(f"training.leave_out: {curated.packed.folder} has no clip {', '.join(unknown)}; mend the list")
    kept = lambda places: torch.tensor([n for n in places.tolist() if curated.packed.ids[n] not in bad])
    return [(kept(training), torch.from_numpy(held)) for training, held in split.split(np.arange(len(curated)))]
