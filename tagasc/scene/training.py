"""Training of a scene network (sections 2.1 and 4.2), and reading a trained one from its weights file.

Where the paper is silent, the settings of ``egs/dcase2019`` are those of the released code of [21].
"""

import math
from pathlib import Path
from typing import Any

import torch

from tagasc.scene.config import SceneTraining
from tagasc.scene.corpus import SceneClips, crop_frames
from tagasc.scene.inference import codes_and_logits
from tagasc.scene.network import SceneNetwork
from tagasc.scene.step import EpochPlan, SceneStep
from tagasc.scene.systems import System
from tagasc.scene.trunk import TrunkConfig
from tagasc.training.augment import EpochRng
from tagasc.training.ladder import Rung
from tagasc.training.weights import read_weights
from tagasc.utils.cli import from_values, to_json
from tagasc.utils.errors import UserError


class SceneTrainer:
    """Training of one system with one seed; a ``tagasc.training.loop.Trainer``.

    ``tagasc.training.loop.fit`` keeps the epoch with the highest ``score`` of ``validate``, the first among equals.
    """

    def __init__(
        self,
        config: SceneTraining,
        trunk: TrunkConfig,
        system: System,
        train: SceneClips,
        validation: SceneClips | None,
        seed: int,
        rung: Rung = "plain",
    ) -> None:
        """Initialise the network from ``seed``.

        Args:
            config: training settings.
            trunk: shape of the trunk.
            system: use of the tags.
            train: training clips.
            validation: clips that choose the epoch to keep; None keeps the last epoch.
            seed: random seed of initialisation, order, crops and mixup.
            rung: how the steps run; only a GPU can capture them.

        Raises:
            UserError: fewer clips than a batch, clips that are too short, an unknown scene, or an impossible system.
        """
        self.config, self.trunk, self.system = config, trunk, system
        self.clips, self.validation, self.seed = train, validation, seed
        self.steps_per_epoch = len(train) // config.batch
        if self.steps_per_epoch == 0:
            raise UserError(
                f"{train.packed.folder} has {len(train)} clips, fewer than batch: {config.batch}; lower batch"
            )
        for clips in filter(None, (train, validation)):  # the training clips may include those of validation
            if (clips.scenes < 0).any():
                unknown = clips.labels[int((clips.scenes < 0).nonzero()[0])]
                raise UserError(
                    f"{clips.packed.folder.parent}: no training clip has the scene {unknown}; fix the split"
                )
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
        self.step = SceneStep(self.network, train, config, self.frames, rung)
        self.optimizer = self.step.optimizer

    def train(self, epoch: int) -> dict[str, float]:
        """Train one epoch on random crops of the shuffled clips."""
        self.network.train()
        return {"loss": self.step.epoch(self.plan(epoch), f"epoch {epoch}")}

    def plan(self, epoch: int) -> EpochPlan:
        """Draw an epoch's order of clips, crop starts, mixup partners and weights, and set its learning rates."""
        rng, batch = EpochRng(self.seed, epoch), self.config.batch
        steps = self.steps_per_epoch
        indices = rng.permutation(len(self.clips))[: steps * batch].reshape(steps, batch)
        mixed = self.config.mixup_alpha > 0 and epoch >= self.config.mixup_from_epoch
        starts, order, weight = [], [], []
        for _ in range(steps):
            starts.append(rng.integers(torch.full((batch,), self.clips.frames - self.frames + 1)))
            weight.append(rng.beta(self.config.mixup_alpha, 1) if mixed else torch.ones(1))
            order.append(rng.permutation(batch) if mixed else torch.arange(batch))
        progress = [(epoch - 1 + step / steps) / self.config.epochs for step in range(steps)]
        rates = torch.tensor([[self._learning_rate(share)] for share in progress], dtype=torch.float64)
        return EpochPlan(indices, torch.stack(starts), torch.stack(order), torch.stack(weight), rates)

    def validate(self) -> dict[str, float]:
        """Compute the accuracy of the output layer (softmax) on whole validation clips, if there are any."""
        if self.validation is None:
            return {}
        _, logits = codes_and_logits(self.network, self.validation)
        accuracy = float((torch.from_numpy(logits).argmax(1) == self.validation.scenes).float().mean())
        return {"validation_accuracy": accuracy, "score": accuracy}

    def metadata(self) -> dict[str, Any]:
        """Return the metadata saved with the weights, enough to rebuild the network."""
        return to_json(
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

    def _learning_rate(self, progress: float) -> float:
        factor = 1.0 if self.config.schedule == "constant" else 0.5 * (1 + math.cos(math.pi * progress))
        return self.config.learning_rate * factor


def load_scene_network(path: Path) -> tuple[SceneNetwork, dict[str, Any]]:
    """Build a trained scene network from its weights file alone.

    Returns:
        network in evaluation mode, metadata of ``SceneTrainer.metadata``.

    Raises:
        UserError: the file is missing, damaged, or does not fit its metadata.
    """
    state, metadata = read_weights(path, "stage 5 (scenes)")
    try:
        trunk = from_values(TrunkConfig, metadata["trunk"], str(path))
        system = from_values(System, metadata["system"], str(path))
        network = _network(trunk, system, len(metadata["scenes"]), metadata["tags"], metadata["channels"])
        network.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"{path}: weights and metadata do not match ({str(error)[:80]}); train it again (stage 5)"
        ) from None
    return network.eval(), metadata


def _network(trunk: TrunkConfig, system: System, scenes: int, tags: int, channels: int) -> SceneNetwork:
    try:
        return SceneNetwork(trunk, system, scenes, tags, channels)
    except ValueError as error:
        raise UserError(f"this system cannot be built on this trunk: {error}") from None
