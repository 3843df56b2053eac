"""Trains a scene network (paper, section 2.1; settings of the released code of [21] where the paper is silent)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tagasc.audio import AudioStore, preemphasis
from tagasc.augment import Draws, mix
from tagasc.command import from_values, plain
from tagasc.console import progress
from tagasc.errors import SettingError, UserError
from tagasc.models.fusion import System
from tagasc.models.scene import SceneNetwork
from tagasc.models.trunk import TrunkConfig
from tagasc.tags import TagVectors
from tagasc.training import autocast, mean_of, read_weights


@dataclass(frozen=True)
class SceneTraining:
    """How a scene network is trained.

    Args:
        epochs: number of epochs.
        batch: clips per step; an epoch's incomplete last batch is left out.
        learning_rate: of Adam with amsgrad.
        schedule: learning rate over the training, constant or falling to 0 along half a cosine.
        weight_decay: L2 penalty, part of the gradient.
        crop_seconds: length of the random crops; null takes whole clips.
        mixup_alpha: λ ~ Beta(alpha, alpha), one per batch; 0 is no mixup.
        mixup_from_epoch: first epoch, counted from 1, with mixup.
    """

    epochs: int = 90
    batch: int = 24
    learning_rate: float = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: float = 1e-3
    crop_seconds: float | None = 5.0
    mixup_alpha: float = 0.1
    mixup_from_epoch: int = 7

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2:
            raise SettingError("epochs must be at least 1, batch at least 2")
        if self.learning_rate <= 0 or self.weight_decay < 0 or self.mixup_alpha < 0:
            raise SettingError("learning_rate must be positive, weight_decay and mixup_alpha not negative")
        if self.crop_seconds is not None and self.crop_seconds <= 0:
            raise SettingError("crop_seconds must be positive, or null for whole clips")


class SceneClips:
    """Clips of one split with scenes and, if given, tag vectors.

    Attributes:
        store: the audio.
        scenes: int64 (clips,), positions in the list of scenes; -1 where the scene is not in that list.
        tags: float32 (clips, c) or None.
    """

    def __init__(self, store: AudioStore, tags: TagVectors | None, scenes: list[str] | None) -> None:
        """Put audio, scenes and tags together; ``scenes`` None takes the clips' own, in alphabetical order."""
        self.store, self.packed, self.device = store, store.packed, store.device
        self.frames = self.packed.one_length()
        self.labels = [_only_label(clip.labels, clip.id, self.packed.folder) for clip in self.packed.clips]
        self.names = scenes or sorted(set(self.labels))
        place = {name: number for number, name in enumerate(self.names)}
        self.scenes = torch.tensor([place.get(label, -1) for label in self.labels])
        self.tags = None if tags is None else torch.from_numpy(tags.of(self.packed.ids))

    def __len__(self) -> int:
        return len(self.packed)

    def tags_of(self, clips: Tensor) -> Tensor | None:
        """(batch, c) on the device, or None."""
        return None if self.tags is None else self.tags[clips].to(self.device)


class SceneTask:
    """One system in training; see ``tagasc.training.Trainable``."""

    def __init__(
        self,
        config: SceneTraining,
        trunk: TrunkConfig,
        system: System,
        train: SceneClips,
        validation: SceneClips,
        seed: int,
    ) -> None:
        """Build the network from ``seed``.

        Raises:
            UserError: fewer clips than a batch, too short clips, an unknown scene, or an impossible system.
        """
        self.config, self.trunk, self.system = config, trunk, system
        self.clips, self.validation, self.seed = train, validation, seed
        self.steps = len(train) // config.batch
        if self.steps == 0:
            raise UserError(
                f"{train.packed.folder} has {len(train)} clips, fewer than batch: {config.batch}; lower batch"
            )
        if (validation.scenes < 0).any():
            raise UserError(f"{validation.packed.folder} holds a scene that no training clip has; mend the split")
        rate = train.packed.sampling_rate
        # One frame more, since pre-emphasis drops the first.
        wanted = train.frames if config.crop_seconds is None else round(config.crop_seconds * rate) + 1
        self.frames = min(wanted, train.frames)
        if min(self.frames, validation.frames) - 1 < trunk.least_frames():
            raise UserError(
                f"{self.frames / rate:g} s at {rate} Hz are too short for {len(trunk.block_filters)} blocks, which need"
                f" {(trunk.least_frames() + 1) / rate:.2f} s; raise crop_seconds or shorten block_filters"
            )
        torch.manual_seed(seed)
        tags = 0 if train.tags is None else train.tags.shape[1]
        self.network = _network(trunk, system, len(train.names), tags, train.packed.channels).to(train.device)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), config.learning_rate, weight_decay=config.weight_decay, amsgrad=True
        )

    def train(self, epoch: int) -> dict[str, float]:
        """One epoch over shuffled crops."""
        self.network.train()
        draws = Draws(self.seed, epoch)
        order = draws.permutation(len(self.clips))[: self.steps * self.config.batch]
        losses = []
        batches = progress(order.split(self.config.batch), f"epoch {epoch}", total=self.steps)
        for step, clips in enumerate(batches):
            self._set_learning_rate((epoch - 1 + step / self.steps) / self.config.epochs)
            wave, tags, target = self._batch(clips, draws, epoch)
            with autocast(self.clips.device):
                _, logits = self.network(wave, tags)
            loss = F.cross_entropy(logits.float(), target)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return {"loss": mean_of(losses)}

    def validate(self) -> dict[str, float]:
        """The network's own (softmax) accuracy on whole validation clips."""
        right = [
            logits.argmax(1).cpu() == self.validation.scenes[clips]
            for clips, _, logits in outputs(self.network, self.validation, self.config.batch)
        ]
        accuracy = float(torch.cat(right).float().mean())
        return {"validation_accuracy": accuracy, "score": accuracy}

    def about(self) -> dict[str, Any]:
        """What is stored with the weights."""
        return plain(
            {
                "trunk": self.trunk,
                "system": self.system,
                "scenes": self.clips.names,
                "channels": self.clips.packed.channels,
                "tags": 0 if self.clips.tags is None else self.clips.tags.shape[1],
                "sampling_rate": self.clips.packed.sampling_rate,
            }
        )

    def _batch(self, clips: Tensor, draws: Draws, epoch: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Crop, pre-emphasise, and mix wave, tags and label with the same λ."""
        starts = draws.integers(torch.full((len(clips),), self.clips.frames - self.frames + 1))
        wave = preemphasis(self.clips.store.windows(clips, starts, self.frames))
        tags = self.clips.tags_of(clips)
        target = F.one_hot(self.clips.scenes[clips], len(self.clips.names)).float().to(wave.device)
        if self.config.mixup_alpha > 0 and epoch >= self.config.mixup_from_epoch:
            weight, order = draws.beta(self.config.mixup_alpha, 1), draws.permutation(len(clips))
            wave, target = mix(wave, order, weight), mix(target, order, weight)
            tags = None if tags is None else mix(tags, order, weight)
        return wave, tags, target

    def _set_learning_rate(self, done: float) -> None:
        share = 1.0 if self.config.schedule == "constant" else 0.5 * (1 + math.cos(math.pi * done))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * share


def load_network(path: Path) -> tuple[SceneNetwork, dict[str, Any]]:
    """Build a trained scene network from its weights file alone.

    Returns:
        the network in evaluation mode, and what is stored about it (see ``SceneTask.about``).
    """
    state, about = read_weights(path, "stage 5 (scenes)")
    try:
        trunk = from_values(TrunkConfig, about["trunk"], str(path))
        system = from_values(System, about["system"], str(path))
        network = _network(trunk, system, len(about["scenes"]), about["tags"], about["channels"])
        network.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"{path} does not hold the network that it describes ({str(error)[:80]}); train it again"
        ) from None
    return network.eval(), about


@torch.inference_mode()
def outputs(network: SceneNetwork, clips: SceneClips, batch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Run a network over whole clips in order; yield clip positions (batch,), codes and logits in float32."""
    network.eval()
    for positions in torch.arange(len(clips)).split(batch):
        wave = preemphasis(clips.store.windows(positions, torch.zeros_like(positions), clips.frames))
        with autocast(clips.device):
            code, logits = network(wave, clips.tags_of(positions))
        yield positions, code.float(), logits.float()


def _network(trunk: TrunkConfig, system: System, scenes: int, tags: int, channels: int) -> SceneNetwork:
    try:
        return SceneNetwork(trunk, system, scenes, tags, channels)
    except ValueError as error:
        raise UserError(f"this system cannot be built on this trunk: {error}") from None


def _only_label(labels: tuple[str, ...], clip: str, folder: Path) -> str:
    if len(labels) != 1:
        raise UserError(f"{folder}: clip {clip} has {len(labels)} scenes, must have one; mend the manifests")
    return labels[0]
