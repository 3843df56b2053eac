"""Stage 2 of the tagger's training on one fold: a third, semi-supervised stream in addition to stage 1's two."""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.model_selection import KFold
from torch import Tensor

from tagasc.tagger.clips import ClipPool
from tagasc.tagger.config import SemiTraining
from tagasc.tagger.training import DataStream, FoldSetup, TaggerTrainer
from tagasc.training.augment import EpochRng
from tagasc.utils.errors import UserError


class SemiTrainer(TaggerTrainer):
    """Trainer of stage 2 on one fold; see ``tagasc.training.loop.Trainer``."""

    def __init__(self, fold: FoldSetup, semi: SemiTraining, pseudo_labels: Tensor, start: dict[str, Tensor]) -> None:
        """Start from the last weights of stage 1.

        Args:
            fold: the fold, with noisy clips.
            semi: settings of stage 2.
            pseudo_labels: float32 (noisy clips, classes), targets of the noisy clips.
            start: stage 1's last weights of the same fold.

        Raises:
            UserError: there are fewer clips than a batch or than folds.
        """
        super().__init__(fold)
        self.semi = self.slicing = semi
        self.epochs, self.epochs_before = semi.epochs, self.config.epochs
        self.network.load_state_dict(start)
        if len(fold.noisy) < semi.noisy_folds:
            raise UserError(f"{fold.noisy.packed.folder} has fewer clips than noisy_folds; lower noisy_folds")
        splits = KFold(semi.noisy_folds, shuffle=True, random_state=self.config.fold_seed)
        kept, _ = list(splits.split(np.arange(len(fold.noisy))))[fold.number % semi.noisy_folds]
        count = len(fold.curated)
        target = torch.cat([fold.curated.truth, pseudo_labels])
        self.noisy_indices = count + torch.from_numpy(kept)
        members = torch.cat([self.training_indices, self.noisy_indices])
        self.pool = ClipPool((fold.curated, fold.noisy), target, members)

    def streams(self, rng: EpochRng) -> list[DataStream]:
        """Return stage 1's streams and a third, of curated clips and noisy ones with pseudo-labels.

        Its clips are drawn with replacement, on average half of them curated, as by the released code's weights.
        """
        count = self.steps * self.config.batch
        halves = self.training_indices, self.noisy_indices
        drawn = [half[rng.integers(torch.full((count,), len(half)))] for half in halves]
        batches = torch.where(rng.chance(0.5, count), *drawn).split(self.config.batch)
        return [*super().streams(rng), DataStream(self.pool, batches, self.network.curated, self._consistency)]

    def _consistency(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.semi.consistency * F.mse_loss(logits.sigmoid(), target)


def sharpen(probabilities: np.ndarray, sharpness: float) -> np.ndarray:
    """Raise (clips, classes) to a power and divide by the sum over classes; return float32, each row sums to 1."""
    probabilities = np.maximum(probabilities.astype(np.float64), 1e-30)  # so that a row of zeros can be divided
    raised = (probabilities / probabilities.max(axis=1, keepdims=True)) ** sharpness
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
