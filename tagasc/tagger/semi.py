"""Trains the tagger on one fold, stage 2: a third, semi-supervised stream beside the two of stage 1."""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.model_selection import KFold
from torch import Tensor

from tagasc.tagger.config import SemiTraining
from tagasc.tagger.training import ClipPool, DataStream, FoldSetup, TaggerTrainer
from tagasc.training.augment import EpochRng
from tagasc.utils.errors import UserError


class SemiTrainer(TaggerTrainer):
    """Stage 2 on one fold; see ``tagasc.training.loop.Trainer``."""

    def __init__(self, fold: FoldSetup, semi: SemiTraining, pseudo_labels: Tensor, start: dict[str, Tensor]) -> None:
        """Take the network up where stage 1 left it.

        Args:
            fold: the fold, with noisy clips.
            semi: what stage 2 adds.
            pseudo_labels: float32 (noisy clips, classes), their pseudo-labels.
            start: stage 1's last weights of the same fold.

        Raises:
            UserError: fewer clips than a batch or than folds.
        """
        super().__init__(fold)
        self.semi = self.slicing = semi
        self.pseudo_labels, self.epochs, self.epochs_before = pseudo_labels, semi.epochs, self.config.epochs
        self.network.load_state_dict(start)
        if len(fold.noisy) < semi.noisy_folds:
            raise UserError(f"{fold.noisy.packed.folder} has fewer clips than noisy_folds; lower noisy_folds")
        split = KFold(semi.noisy_folds, shuffle=True, random_state=self.config.fold_seed)
        parts = list(split.split(np.arange(len(fold.noisy))))
        self.kept_noisy = torch.from_numpy(parts[fold.number % semi.noisy_folds][0])

    def streams(self, rng: EpochRng) -> list[DataStream]:
        """Stage 1's streams, and the third: half curated clips with their labels, half noisy with pseudo-labels."""
        noisy = self.config.batch // 2
        hard = self.shuffled_batches(self.training_indices, self.config.batch - noisy, rng)
        soft = self.shuffled_batches(self.kept_noisy, noisy, rng)
        pools = (
            ClipPool(self.fold.curated, self.fold.curated.truth, hard),
            ClipPool(self.fold.noisy, self.pseudo_labels, soft),
        )
        return [*super().streams(rng), DataStream(pools, self.network.curated, self._consistency)]

    def _consistency(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.semi.consistency * F.mse_loss(logits.sigmoid(), target)


def sharpen(probabilities: np.ndarray, sharpness: float) -> np.ndarray:
    """Raise (clips, classes) to a power and divide by the sum over the classes: float32, each row sums to 1."""
    probabilities = np.maximum(probabilities.astype(np.float64), 1e-30)  # of a class no model has ever heard
    raised = (probabilities / probabilities.max(axis=1, keepdims=True)) ** sharpness
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
