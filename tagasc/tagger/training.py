"""Stage 1 of the tagger's training on one fold: a stream of curated and one of noisy clips, with a head each.

Each stream makes its own forward pass, so that batch normalisation sees one stream at a time. Each cycle of the
learning rate ends with a snapshot. The best weights are those of the best snapshot.
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

from tagasc.tagger.clips import ClipPool, TaggedClips
from tagasc.tagger.config import SemiTraining, TaggerTraining
from tagasc.tagger.experiment import TaggerExperiment, snapshot_file, stage_folder
from tagasc.tagger.features import MelConfig, MelPower, normalise, to_decibels
from tagasc.tagger.inference import Ensemble
from tagasc.tagger.lwlrap import lwlrap
from tagasc.tagger.network import NOISY_LOSSES, TaggerConfig, TaggerNetwork
from tagasc.training.augment import EpochRng, band_mask, time_slice
from tagasc.training.loop import fit, mean_of
from tagasc.training.result import short_name
from tagasc.training.weights import parameters, save_weights
from tagasc.utils.cli import to_json
from tagasc.utils.device import autocast, to_device
from tagasc.utils.errors import UserError
from tagasc.utils.log import log, progress


@dataclass(frozen=True)
class DataStream:
    """An epoch's clips that share a forward pass, a head and a loss.

    Attributes:
        pool: the clips that they are drawn from.
        batches: indices of the clips in the pool, a tensor per step.
        head: the head of the network.
        loss: function of logits and targets, both float32 (batch, classes).
    """

    pool: ClipPool
    batches: Sequence[Tensor]
    head: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class FoldSetup:
    """Inputs and settings of the training on one fold.

    Attributes:
        number: number of the held-out fold, counted from 0.
        curated: clips with verified labels.
        noisy: clips with noisy labels; None: train the curated head only.
        config: settings of the training.
        model: shape of the network.
        mel: the spectrogram.
        seed: random seed of initialisation, order and augmentation, combined with the fold's number.
        folder: folder of the snapshots.
        device: device of the training.
        compiled: compile the trunk with torch.compile; sums then differ in the last bits.
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
    """Trainer of stage 1 on one fold; see ``tagasc.training.loop.Trainer``."""

    def __init__(self, fold: FoldSetup) -> None:
        """Build the network from the fold's seed.

        Raises:
            UserError: there are fewer clips than a batch or than folds.
        """
        self.fold, self.config = fold, fold.config
        self.training_indices, self.held_out = split_folds(fold.curated, fold.config)[fold.number]
        self.steps = steps_per_epoch(len(self.training_indices), self.config.batch)
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
        self.epochs, self.epoch, self.epochs_before = self.config.epochs, 1, 0
        self.slicing: SemiTraining | None = None

    def train(self, epoch: int) -> dict[str, float]:
        """Train for one epoch: a pass over the fold's curated clips, with a full batch of every other stream a step."""
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
        """Take one optimiser step on batch ``step`` of all streams; return the loss, on the device."""
        batches = [self.augment(stream.pool, stream.batches[step], rng) for stream in streams]
        logits = self._logits(streams, [power for power, _ in batches])
        parts = zip(streams, logits, batches, strict=True)
        loss = sum(stream.loss(scores.float(), target) for stream, scores, (_, target) in parts)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def validate(self) -> dict[str, float]:
        """Compute the curated head's lwlrap on the whole held-out curated clips; the score is 0 within a cycle."""
        self.network.eval()
        values = Ensemble([self.network], self.fold.mel, self.fold.curated.classes).tags(
            self.fold.curated, self.held_out, self.config.batch
        )
        value = lwlrap(self.fold.curated.truth[self.held_out].numpy(), values)
        return {"validation_lwlrap": value, "score": value if self._ends_cycle() else 0.0}

    def metadata(self) -> dict[str, Any]:
        """Return the metadata saved with the weights, enough to rebuild the network."""
        return to_json({"model": self.fold.model, "mel": self.fold.mel, "classes": self.fold.curated.classes})

    def streams(self, rng: EpochRng) -> list[DataStream]:
        """Return the epoch's streams: curated clips, and noisy ones."""
        fold, order = self.fold, self.training_indices[rng.permutation(len(self.training_indices))]
        pool = ClipPool((fold.curated,), fold.curated.truth, self.training_indices)
        batches = order.split(self.config.batch)[: self.steps]
        streams = [DataStream(pool, batches, self.network.curated, F.binary_cross_entropy_with_logits)]
        if fold.noisy is not None:
            pool = ClipPool((fold.noisy,), fold.noisy.truth, torch.arange(len(fold.noisy)))
            loss = NOISY_LOSSES[self.config.noisy_loss]
            streams.append(DataStream(pool, self._noisy_batches(), self.network.noisy, loss))
        return streams

    def _noisy_batches(self) -> Sequence[Tensor]:
        """Return the epoch's batches of noisy clips; epochs continue one shuffled pass over them after another."""
        clips, count = len(self.fold.noisy), self.steps * self.config.batch
        first = (self.epochs_before + self.epoch - 1) * count
        passes = range(first // clips, (first + count - 1) // clips + 1)
        orders = [np.random.default_rng([self.seed, 0, number]).permutation(clips) for number in passes]
        start = first % clips
        return torch.from_numpy(np.concatenate(orders)[start : start + count]).split(self.config.batch)

    def _logits(self, streams: Sequence[DataStream], powers: list[Tensor]) -> list[Tensor]:
        """Return each stream's logits (batch, classes): one forward pass per stream, or a joint one."""
        levels = [normalise(to_decibels(power)) for power in powers]
        with autocast(self.fold.device):
            if self.config.joint_pass:
                features = self.trunk(torch.cat(levels)).split([len(level) for level in levels])
                return [stream.head(part) for stream, part in zip(streams, features, strict=True)]
            passes = zip(streams, levels, strict=True)
            return [stream.head(self.trunk(level)) for stream, level in passes]

    def augment(self, pool: ClipPool, indices: Tensor, rng: EpochRng) -> tuple[Tensor, Tensor]:
        """Crop, slice, mix, scale and mask power spectrograms.

        Args:
            pool: the clips.
            indices: int64 (batch,), clips of the batch.
            rng: random numbers of the epoch.

        Returns:
            power (batch, mels, frames) and target (batch, classes), on the device.
        """
        config, device = self.config, self.fold.device
        power, target = self.crop(pool, indices, rng), to_device(pool.target[indices], device)
        mixed = rng.chance(config.probability, len(indices)).nonzero().flatten()
        if len(mixed):
            partners = pool.members[rng.integers(torch.full_like(mixed, len(pool.members)))]
            weight, mixed = (to_device(x, device) for x in (rng.beta(config.mixup_alpha, len(mixed)), mixed))
            others = self.crop(pool, partners, rng), to_device(pool.target[partners], device)
            power[mixed] = torch.lerp(others[0], power[mixed], weight.reshape(-1, 1, 1))
            target[mixed] = torch.lerp(others[1], target[mixed], weight.unsqueeze(1))
        gain = torch.where(rng.chance(config.probability, len(indices)), rng.uniform(*config.gain, len(indices)), 1.0)
        masked = band_mask(self.fold.mel.mels, rng, config.mask_half_width, config.probability, len(indices))
        factor = gain.unsqueeze(1) * (~masked).float()
        return power * to_device(factor.unsqueeze(2), device), target

    def crop(self, pool: ClipPool, indices: Tensor, rng: EpochRng) -> Tensor:
        """Compute a random crop of each clip's power spectrogram, (batch, mels, frames); stage 2 slices some of them.

        A clip that is shorter than the crop, or what slicing keeps of it, has a random position in the crop.
        """
        crop, frames = self.config.crop_frames, pool.frames[indices]
        start, length = rng.integers((frames - crop).clamp(min=0) + 1), frames.clamp(max=crop)
        if self.slicing is None:
            first, kept = torch.zeros_like(length), length
        else:
            first, kept = time_slice(length, rng, self.slicing.slice_part, self.slicing.slice_probability)
        position = torch.where(frames < crop, rng.integers(crop - kept + 1), first)
        power = pool.crops(indices, start + first - position, crop, self.mel_power)
        if self.slicing is None:
            return power
        after = torch.arange(crop) - position.unsqueeze(1)
        inside = (after >= 0) & (after < kept.unsqueeze(1))
        return power * to_device(inside.unsqueeze(1), self.fold.device)

    def _ends_cycle(self) -> bool:
        return self.epoch % self.config.cycle == 0 or self.epoch == self.epochs

    def _set_learning_rate(self, epochs_done: float) -> None:
        phase = epochs_done % self.config.cycle / self.config.cycle
        low, high = self.config.least_learning_rate, self.config.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = low + (high - low) * 0.5 * (1 + math.cos(math.pi * phase))


def steps_per_epoch(clips: int, batch: int) -> int:
    """Return the steps of a pass over ``clips``, including an incomplete last batch of two clips or more.

    Batch normalisation may have no variance over a single clip.
    """
    return clips // batch + (clips % batch > 1)


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
    """Split the curated clips; return (training indices, held-out indices) of each fold.

    Raises:
        UserError: there are fewer clips than folds, or a clip of ``leave_out`` does not exist.
    """
    if len(curated) < config.folds:
        raise UserError(f"{curated.packed.folder} has fewer clips than folds: {config.folds}; lower folds")
    splits = KFold(config.folds, shuffle=True, random_state=config.fold_seed)
    left_out = set(config.leave_out)
    unknown = sorted(left_out.difference(curated.packed.ids))
    if unknown:
        raise UserError(f"training.leave_out: {curated.packed.folder} has no clip {', '.join(unknown)}; fix the list")
    kept = lambda indices: torch.tensor([n for n in indices.tolist() if curated.packed.ids[n] not in left_out])
    return [(kept(train), torch.from_numpy(held_out)) for train, held_out in splits.split(np.arange(len(curated)))]
