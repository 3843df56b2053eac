"""Stage 2 of the tagger's training on one fold: a third, semi-supervised stream in addition to stage 1's two."""

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
        self.pseudo_labels, self.epochs, self.epochs_before = pseudo_labels, semi.epochs, self.config.epochs
        self.network.load_state_dict(start)
        if len(fold.noisy) < semi.noisy_folds:
            raise UserError(f"{fold.noisy.packed.folder} has fewer clips than noisy_folds; lower noisy_folds")
        splits = KFold(semi.noisy_folds, shuffle=True, random_state=self.config.fold_seed)
        kept, _ = list(splits.split(np.arange(len(fold.noisy))))[fold.number % semi.noisy_folds]
        self.noisy_indices = torch.from_numpy(kept)

    def streams(self, rng: EpochRng) -> list[DataStream]:
        """Return stage 1's streams and a third: half curated clips, half noisy ones with pseudo-labels."""
        half = self.config.batch // 2
        curated = self.shuffled_batches(self.training_indices, self.config.batch - half, rng)
        noisy = self.shuffled_batches(self.noisy_indices, half, rng)
        pools = (
            ClipPool(self.fold.curated, self.fold.curated.truth, curated),
            ClipPool(self.fold.noisy, self.pseudo_labels, noisy),
        )
        return [*super().streams(rng), DataStream(pools, self.network.curated, self._consistency)]

    def _consistency(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.semi.consistency * F.mse_loss(logits.sigmoid(), target)


def sharpen(probabilities: np.ndarray, sharpness: float) -> np.ndarray:
    """Raise (clips, classes) to a power and divide by the sum over classes; return float32, each row sums to 1."""
    probabilities = np.maximum(probabilities.astype(np.float64), 1e-30)  # so that a row of zeros can be divided
    raised = (probabilities / probabilities.max(axis=1, keepdims=True)) ** sharpness
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
