"""Training steps of a scene network, from stored samples to the optimiser's update, without waiting for the CPU.

Everything random or scheduled in an epoch is drawn beforehand and kept on the device, one row per step. On a GPU the
trunk is compiled. The whole step, from gathering the crops to Adam, is captured once as a CUDA graph and replayed:
with 24 clips per step, launching the kernels one by one takes longer than running them. ``tagasc.training.ladder``
says what happens where that fails.
"""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from tagasc.scene.config import SceneTraining
from tagasc.scene.corpus import SceneClips
from tagasc.scene.network import SceneNetwork
from tagasc.training.augment import mix
from tagasc.training.cuda_graph import CudaGraph
from tagasc.training.ladder import Rung, on_rung
from tagasc.utils.log import progress

WIDE = 128  # filters; measured at 64 and 128


@dataclass(frozen=True)
class EpochPlan:
    """Random draws and learning rates of an epoch, one row per step.

    Attributes:
        clip_indices: int64 (steps, batch), index of each clip.
        crop_starts: int64 (steps, batch), first frame of each crop.
        mixup_order: int64 (steps, batch), index in the batch of each clip's mixup partner.
        mixup_weight: float32 (steps, 1), λ of mixup; 1 mixes nothing.
        learning_rate: float64 (steps, 1), learning rate.
    """

    clip_indices: Tensor
    crop_starts: Tensor
    mixup_order: Tensor
    mixup_weight: Tensor
    learning_rate: Tensor

    def __len__(self) -> int:
        return len(self.clip_indices)

    def columns(self) -> list[Tensor]:
        """Return the tensors, in the order of the attributes."""
        return [getattr(self, field.name) for field in fields(self)]


class SceneStep:
    """The training step, which ``epoch`` runs once for each row of a plan.

    Attributes:
        optimizer: Adam with amsgrad.
        centres: (scenes, code size), fixed centres of the centre loss.
    """

    def __init__(
        self, network: SceneNetwork, clips: SceneClips, config: SceneTraining, frames: int, rung: Rung = "plain"
    ) -> None:
        """Prepare training of a network on clips of the same device.

        Args:
            network: network to train.
            clips: training clips.
            config: training settings.
            frames: length of a crop, frames.
            rung: whether to compile the network's trunk, and whether to capture the step as well.
        """
        network.compiled, self._captures = rung != "plain", rung == "captured"
        self.network, self.clips, self.config, self.frames = network, clips, config, frames
        self.centres = torch.randn(len(clips.names), network.output.in_features).to(clips.device)
        self._gpu = clips.device.type == "cuda"
        # On a CPU, the backward pass of wide convolutions takes up to twice as long channels-last as contiguous.
        wide = not self._gpu and network.trunk.stem.out_features >= WIDE
        network.trunk.set_memory_format(torch.contiguous_format if wide else torch.channels_last)
        # A captured optimiser reads its learning rate and step count from the device.
        self._rate = torch.zeros((), device=clips.device) if self._gpu else config.learning_rate
        self.optimizer = torch.optim.Adam(
            network.parameters(),
            config.learning_rate,
            weight_decay=config.weight_decay,
            amsgrad=True,
            **self._on_gpu(),
        )
        self._graph = CudaGraph()
        self._targets = F.one_hot(clips.scenes, len(clips.names)).float().to(clips.device)
        self._row = torch.zeros(1, dtype=torch.int64, device=clips.device)
        self._loss = torch.zeros((), dtype=torch.float64, device=clips.device)
        self._columns: list[Tensor] = []
        self._samples: Tensor | None = None

    def epoch(self, plan: EpochPlan, title: str) -> float:
        """Run every step of a plan and return the mean loss; all plans must have the same number of steps."""
        self._begin(plan)
        if self.clips.store.on_gpu:
            for _ in progress(range(len(plan)), title, total=len(plan)):
                self._run()
        else:
            batches = self.clips.store.batches(plan.clip_indices, plan.crop_starts, self.frames)
            for samples in progress(batches, title, total=len(plan)):
                self._samples = self._staged(samples)
                self._run()
        return float(self._loss) / len(plan)

    def _run(self) -> None:
        graph = self._graph if self._captures else None
        with on_rung("captured" if graph and graph.captures else "compiled" if self.network.compiled else "plain"):
            if graph:
                graph(self._step)
            else:
                self._step()

    def loss(
        self, samples: Tensor, tags: Tensor | None, target: Tensor, mixing: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Compute the loss of one batch: cross-entropy, plus the centre loss if the settings weigh it.

        Args:
            samples: (batch, frames, channels) as stored.
            tags: (batch, c), or None.
            target: (batch, scenes), rows sum to 1.
            mixing: order (batch,) and weight λ (1,) of mixup [27], for wave, tags and target; None mixes nothing.
        """
        if mixing is not None:
            target = mix(target, *mixing)
        code, logits = self.network(samples, tags, mixing)
        loss = F.cross_entropy(logits, target)
        if self.config.centre_loss:
            loss = loss + self.config.centre_loss * centre_loss(code, target, self.centres)
        return loss

    def _step(self) -> None:
        indices, starts, order, weight, rate = (column.index_select(0, self._row)[0] for column in self._columns)
        samples = self._samples
        if samples is None:
            samples = self.clips.store.samples(indices, starts, self.frames)
        tags = None if self.clips.tags is None else self.clips.tags.index_select(0, indices)
        mixing = (order, weight) if self._mixes else None
        self._set_learning_rate(rate)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(samples, tags, self._targets.index_select(0, indices), mixing)
        loss.backward()
        self.optimizer.step()
        self._loss += loss.detach()
        self._row += 1

    def _begin(self, plan: EpochPlan) -> None:
        columns = plan.columns()
        if self._columns:
            for column, values in zip(self._columns, columns, strict=True):
                column.copy_(values)
        else:
            self._columns = [column.to(self.clips.device, copy=True) for column in columns]
            self._adapt_optimizer_state()
        self._loss.zero_()
        self._row.zero_()
        # A captured step is the same in every epoch; λ = 1 mixes nothing, at little cost.
        self._mixes = self.config.mixup_alpha > 0 and (self._captures or bool((plan.mixup_weight < 1).any()))

    def _staged(self, samples: Tensor) -> Tensor:
        """Copy the samples into the tensor that a captured step reads."""
        if not self._captures:
            return samples
        return samples.clone() if self._samples is None else self._samples.copy_(samples)

    def _set_learning_rate(self, rate: Tensor) -> None:
        if self._gpu:
            self._rate.copy_(rate[0])
            return
        for group in self.optimizer.param_groups:
            group["lr"] = float(rate)

    def _adapt_optimizer_state(self) -> None:
        """Adapt the optimiser state of a checkpoint, possibly from another kind of device, to this device.

        Fused Adam needs its averages in the memory format of the weights; a checkpoint keeps that of its own device.
        """
        for group in self.optimizer.param_groups:
            group.update({"lr": self._rate, "fused": None, "capturable": False} | self._on_gpu())
        for parameter, state in self.optimizer.state.items():
            state |= {name: torch.empty_like(parameter).copy_(value) for name, value in state.items() if name != "step"}
            state["step"] = state["step"].to(parameter.device if self._gpu else "cpu")

    def _on_gpu(self) -> dict[str, bool]:
        return {"fused": True, "capturable": True} if self._gpu else {}


def centre_loss(code: Tensor, target: Tensor, centres: Tensor) -> Tensor:
    """Average the squared distance between code and scene centre; mixed targets weigh the distances to their scenes.

    Args:
        code: (batch, code size), codes.
        target: (batch, scenes), rows sum to 1.
        centres: (scenes, code size), fixed centres.
    """
    distances = (code.unsqueeze(1) - centres).square().sum(dim=2)
    return (target * distances).sum(dim=1).mean()
