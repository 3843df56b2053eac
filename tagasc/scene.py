"""Trains a scene network (paper, section 2.1; settings of the released code of [21] where the paper is silent)."""

import math
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tagasc.audio import AudioStore, JoinedStore, preemphasis
from tagasc.augment import Draws, mix
from tagasc.command import from_values, plain
from tagasc.console import progress
from tagasc.errors import SettingError, UserError
from tagasc.models.fusion import System
from tagasc.models.scene import SceneNetwork, folded
from tagasc.models.trunk import STRIDE, TrunkConfig
from tagasc.packed import Clip
from tagasc.tags import TagScale
from tagasc.training import autocast, mean_of, read_weights

CACHED_VALUES = 1_500_000  # of one layer's output; measured on 1 MB of L2 a core and 32 MB of L3


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
        centre_loss: weight of the squared distance of each code to its scene's centre; the released code's centres
            never learn, so neither do these. 0 leaves it out.
        tag_scale: how tags enter network and SVM; the paper takes them as probabilities.
    """

    epochs: int = 90
    batch: int = 24
    learning_rate: float = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: float = 1e-3
    crop_seconds: float | None = 5.0
    mixup_alpha: float = 0.1
    mixup_from_epoch: int = 7
    centre_loss: float = 0.0
    tag_scale: TagScale = "probability"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2:
            raise SettingError("epochs must be at least 1, batch at least 2")
        if self.learning_rate <= 0 or min(self.weight_decay, self.mixup_alpha, self.centre_loss) < 0:
            raise SettingError("learning_rate must be positive; weight_decay, mixup_alpha, centre_loss not negative")
        if self.crop_seconds is not None and self.crop_seconds <= 0:
            raise SettingError("crop_seconds must be positive, or null for whole clips")


class SceneClips:
    """Clips with scenes and, if given, tag vectors; of one packed folder or of several, one after another.

    Attributes:
        store: the audio.
        labels: the scene of each clip.
        names: the scenes.
        scenes: int64 (clips,), positions in ``names``; -1 where the scene is not in that list.
        tags: float32 (clips, c) or None.
    """

    def __init__(self, stores: Sequence[AudioStore], names: list[str] | None = None) -> None:
        """Take the clips of ``stores``; ``names`` None takes the clips' own scenes, in alphabetical order.

        Raises:
            UserError: clips of several lengths, or a clip with no or several scenes.
        """
        self.store, self.device = JoinedStore(stores), stores[0].device
        self.packed = stores[0].packed
        self.clips = [clip for store in stores for clip in store.packed.clips]
        self.frames = self.packed.one_length()
        if any(store.packed.one_length() != self.frames for store in stores):
            raise UserError(f"{self.packed.folder} and its other splits differ in clip length; pack with --seconds")
        where = [store.packed.folder for store in stores for _ in store.packed.clips]
        self.labels = [_only_label(clip, folder) for clip, folder in zip(self.clips, where, strict=True)]
        self.names = names or sorted(set(self.labels))
        place = {name: number for number, name in enumerate(self.names)}
        self.scenes = torch.tensor([place.get(label, -1) for label in self.labels])
        self.tags: Tensor | None = None

    def __len__(self) -> int:
        return len(self.clips)

    def tagged(self, values: np.ndarray | None) -> "SceneClips":
        """The same clips with these tag vectors, (clips, c), or with none."""
        clips = copy(self)
        clips.tags = None if values is None else torch.from_numpy(values).to(self.device)
        return clips

    def tags_of(self, clips: Tensor) -> Tensor | None:
        """(batch, c) on the device, or None."""
        return None if self.tags is None else self.tags[clips.to(self.device)]


def crop_frames(crop_seconds: float | None, clips: SceneClips) -> int:
    """Frames of a training crop, one more than its seconds, since pre-emphasis drops the first; None: whole clips."""
    whole = clips.frames
    return whole if crop_seconds is None else min(round(crop_seconds * clips.packed.sampling_rate) + 1, whole)


@dataclass(frozen=True)
class Windows:
    """Equally long windows of clips.

    Attributes:
        clips: int64 (windows,), positions of the clips.
        starts: int64 (windows,), each window's first frame.
        frames: length of the windows.
    """

    clips: Tensor
    starts: Tensor
    frames: int


class SceneTask:
    """One system in training; see ``tagasc.training.Trainable``."""

    def __init__(
        self,
        config: SceneTraining,
        trunk: TrunkConfig,
        system: System,
        train: SceneClips,
        validation: SceneClips | None,
        seed: int,
    ) -> None:
        """Build the network from ``seed``; without ``validation`` the last epoch is the one kept.

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
        if validation is not None and (validation.scenes < 0).any():
            raise UserError(f"{validation.packed.folder} holds a scene that no training clip has; mend the split")
        rate, self.frames = train.packed.sampling_rate, crop_frames(config.crop_seconds, train)
        shortest = self.frames if validation is None else min(self.frames, validation.frames)
        if shortest - 1 < trunk.least_frames():
            raise UserError(
                f"{self.frames / rate:g} s at {rate} Hz are too short for {len(trunk.block_filters)} blocks, which need"
                f" {(trunk.least_frames() + 1) / rate:.2f} s; raise crop_seconds or shorten block_filters"
            )
        torch.manual_seed(seed)
        tags = 0 if train.tags is None else train.tags.shape[1]
        self.network = _network(trunk, system, len(train.names), tags, train.packed.channels).to(train.device)
        self.centres = torch.randn(len(train.names), self.network.output.in_features).to(train.device)
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
                code, logits = self.network(wave, tags)
            loss = F.cross_entropy(logits.float(), target)
            if self.config.centre_loss:
                loss = loss + self.config.centre_loss * centre_loss(code.float(), target, self.centres)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return {"loss": mean_of(losses)}

    def validate(self) -> dict[str, float]:
        """The network's own (softmax) accuracy on whole validation clips, if there are any."""
        if self.validation is None:
            return {}
        right = [
            logits.argmax(1).cpu() == self.validation.scenes[clips]
            for clips, _, logits in outputs(self.network, self.validation)
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
                "tag_scale": self.config.tag_scale,
                "crop_seconds": self.config.crop_seconds,
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
def outputs(network: SceneNetwork, clips: SceneClips, window: Windows | None = None) -> Iterator[tuple[Tensor, ...]]:
    """Run a network over clips in order; yield clip positions (batch,), codes and logits in float32.

    Args:
        network: in any mode; it is left as it is.
        clips: what to run over.
        window: which part of which clips; None is every clip, whole.
    """
    evaluated = folded(network)
    window = window or Windows(torch.arange(len(clips)), torch.zeros(len(clips), dtype=torch.int64), clips.frames)
    parts = torch.arange(len(window.clips)).split(_inference_batch(network, window.frames, clips.device))
    for part in parts:
        positions = window.clips[part]
        wave = preemphasis(clips.store.windows(positions, window.starts[part], window.frames))
        with autocast(clips.device):
            code, logits = evaluated(wave, clips.tags_of(positions))
        yield positions, code.float(), logits.float()


def codes_and_logits(
    network: SceneNetwork, clips: SceneClips, window: Windows | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (clips, code size) and logits (clips, scenes), float32, of clips or windows in order; see ``outputs``."""
    rows = list(outputs(network, clips, window))
    return tuple(torch.cat([row[part] for row in rows]).cpu().numpy() for part in (1, 2))


def centre_loss(code: Tensor, target: Tensor, centres: Tensor) -> Tensor:
    """Mean over the batch of the squared distance to the scene's centre; a mixed label weighs its scenes' distances.

    Args:
        code: (batch, code size).
        target: (batch, scenes), rows sum to 1.
        centres: (scenes, code size), fixed.
    """
    distances = (code.unsqueeze(1) - centres).square().sum(dim=2)
    return (target * distances).sum(dim=1).mean()


def _inference_batch(network: SceneNetwork, frames: int, device: torch.device) -> int:
    """Clips at a time: many on a GPU; on a CPU so few that a layer's output, some megabytes, stays in its cache."""
    if device.type == "cuda":
        return 128
    values = frames // STRIDE * network.trunk.stem.out_features
    return max(1, min(32, CACHED_VALUES // values))


def _network(trunk: TrunkConfig, system: System, scenes: int, tags: int, channels: int) -> SceneNetwork:
    try:
        return SceneNetwork(trunk, system, scenes, tags, channels)
    except ValueError as error:
        raise UserError(f"this system cannot be built on this trunk: {error}") from None


def _only_label(clip: Clip, folder: Path) -> str:
    if len(clip.labels) != 1:
        raise UserError(f"{folder}: clip {clip.id} has {len(clip.labels)} scenes, must have one; mend the manifests")
    return clip.labels[0]
