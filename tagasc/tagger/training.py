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
    """Clips of a stream that mixup mixes with each other.

    Attributes:
        clips: the clips.
        target: float32 (clips, classes), their targets in this stream.
        batches: indices of this epoch's clips, a tensor per step.
    """

    clips: TaggedClips
    target: Tensor
    batches: Sequence[Tensor]


@dataclass(frozen=True)
class DataStream:
    """Pools that share a forward pass, a head and a loss.

    Attributes:
        pools: the pools; a batch holds clips from each.
        head: the head of the network.
        loss: function of logits and targets, both float32 (batch, classes).
    """

    pools: tuple[ClipPool, ...]
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
        """Train for one epoch: one pass over the fold's curated clips, and as many clips of every other stream."""
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
        batches = [self._batch(stream, step, rng) for stream in streams]
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
        """Return the epoch's streams: curated clips, and as many noisy ones."""
        batches = self.shuffled_batches(self.training_indices, self.config.batch, rng)
        curated = ClipPool(self.fold.curated, self.fold.curated.truth, batches)
        streams = [DataStream((curated,), self.network.curated, F.binary_cross_entropy_with_logits)]
        if self.fold.noisy is not None:
            batches = self.shuffled_batches(torch.arange(len(self.fold.noisy)), self.config.batch, rng)
            noisy = ClipPool(self.fold.noisy, self.fold.noisy.truth, batches)
            streams.append(DataStream((noisy,), self.network.noisy, F.binary_cross_entropy_with_logits))
        return streams

    def shuffled_batches(self, indices: Tensor, size: int, rng: EpochRng) -> Sequence[Tensor]:
        """Shuffle ``indices`` into an epoch's batches; repeat them, shuffled again, if there are too few."""
        count = self.steps * size
        passes = -(-count // len(indices))
        shuffled = torch.cat([indices[rng.permutation(len(indices))] for _ in range(passes)])
        return shuffled[:count].split(size)

    def _batch(self, stream: DataStream, step: int, rng: EpochRng) -> tuple[Tensor, Tensor]:
        """Concatenate the stream's augmented pools: power (batch, mels, frames), targets (batch, classes)."""
        parts = [self.augment(pool.clips, pool.target, pool.batches[step], rng) for pool in stream.pools]
        return torch.cat([power for power, _ in parts]), torch.cat([target for _, target in parts])

    def _logits(self, streams: Sequence[DataStream], powers: list[Tensor]) -> list[Tensor]:
        """Return each stream's logits (batch, classes): one forward pass per stream, or a joint one."""
        levels = [normalise(to_decibels(power)) for power in powers]
        with autocast(self.fold.device):
            if self.config.joint_pass:
                features = self.trunk(torch.cat(levels)).split([len(level) for level in levels])
                return [stream.head(part) for stream, part in zip(streams, features, strict=True)]
            passes = zip(streams, levels, strict=True)
            return [stream.head(self.trunk(level)) for stream, level in passes]

    def augment(self, clips: TaggedClips, target: Tensor, indices: Tensor, rng: EpochRng) -> tuple[Tensor, Tensor]:
        """Crop, slice, mix, scale and mask power spectrograms.

        Args:
            clips: the clips.
            target: float32 (clips, classes), their targets.
            indices: int64 (batch,), clips of the batch.
            rng: random numbers of the epoch.

        Returns:
            power (batch, mels, frames) and target (batch, classes), on the device.
        """
        config, batch = self.config, len(indices)
        spare = clips.frames[indices] - config.crop_frames
        # A long clip is cropped at a random position; a short one is placed at a random position in the crop.
        starts = rng.integers(spare.abs() + 1) * spare.sign()
        power = crop_spectrograms(clips, indices, starts, config.crop_frames, self.mel_power)
        target = to_device(target[indices], self.fold.device)
        if self.slicing is not None:
            kept = time_slice(config.crop_frames, rng, self.slicing.slice_part, self.slicing.slice_probability, batch)
            power = power * to_device(kept.unsqueeze(1), self.fold.device)
        chosen = rng.chance(config.probability, batch)
        weight = torch.where(chosen, rng.beta(config.mixup_alpha, batch), 1.0)
        order = rng.permutation(batch)
        power, target = mix(power, order, weight), mix(target, order, weight)
        gain = torch.where(rng.chance(config.probability, batch), rng.uniform(*config.gain, batch), 1.0)
        masked = band_mask(self.fold.mel.mels, rng, config.mask_half_width, config.probability, batch)
        factor = gain.unsqueeze(1) * (~masked).float()
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
