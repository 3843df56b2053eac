"""Training settings of a scene network. The paper gives the input, whole clips (Table 1, section 4.2), and mixup.

The defaults are those of the released code of [21], without its centre loss.
"""

from dataclasses import dataclass
from math import inf
from typing import Literal

from tagasc.tagger.tags import TagScale
from tagasc.utils.errors import SettingError


@dataclass(frozen=True)
class SceneTraining:
    """Training settings of a scene network.

    Args:
        epochs: number of epochs.
        batch: clips per step; the incomplete last batch of an epoch is dropped.
        learning_rate: learning rate of Adam with amsgrad.
        schedule: constant, or cosine decay to 0.
        weight_decay: L2 penalty, added to the gradient.
        crop_seconds: length of the random crops, seconds; null trains on whole clips.
        mixup_alpha: λ ~ Beta(alpha, alpha), one per batch; 0 turns mixup off.
        mixup_from_epoch: first epoch with mixup, counted from 1.
        centre_loss: weight of the squared distance between each code and the centre of its scene; 0 turns it off. The
            centres are fixed, as in the released code.
        tag_scale: scale of the tags in network and SVM; the paper uses probabilities. Embeddings allow no other value,
            and are standardised.
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
        weights = (self.weight_decay, self.mixup_alpha, self.centre_loss)
        if not 0 < self.learning_rate < inf or not all(0 <= weight < inf for weight in weights):
            raise SettingError("learning_rate must be positive; weight_decay, mixup_alpha, centre_loss not negative")
        if self.crop_seconds is not None and not 0 < self.crop_seconds < inf:
            raise SettingError("crop_seconds must be positive, or null for whole clips")
