"""How a scene network is trained; the values of the paper's experiment are in ``egs/dcase2019/conf/scene.yaml``."""

from dataclasses import dataclass
from math import inf
from typing import Literal

from tagasc.tagger.tags import TagScale
from tagasc.utils.errors import SettingError


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
        weights = (self.weight_decay, self.mixup_alpha, self.centre_loss)
        if not 0 < self.learning_rate < inf or not all(0 <= weight < inf for weight in weights):
            raise SettingError("learning_rate must be positive; weight_decay, mixup_alpha, centre_loss not negative")
        if self.crop_seconds is not None and not 0 < self.crop_seconds < inf:
            raise SettingError("crop_seconds must be positive, or null for whole clips")
