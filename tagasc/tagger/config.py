"""Settings of the tagger's training and inference.

The defaults are the published ones (Akiyama & Sato [13]) but for ``pseudo_labels.models`` and ``inference.models``.
"""

from dataclasses import dataclass
from math import inf
from typing import Literal

from tagasc.utils.errors import SettingError


@dataclass(frozen=True)
class TaggerTraining:
    """Settings of stage 1, and those that both stages share.

    Args:
        epochs: epochs of stage 1; an epoch is one pass over the fold's curated training clips.
        cycle: epochs from one restart of the learning rate's cosine to the next.
        batch: clips per step and stream.
        learning_rate: highest learning rate of Adam.
        least_learning_rate: lowest learning rate.
        crop_frames: spectrogram frames of a random crop; shorter clips are zero-padded at a random position.
        mixup_alpha: λ ~ Beta(alpha, alpha) per clip; its partner is any clip of the stream, with a crop of its own.
        gain: range of the factor on the power spectrogram, uniform.
        mask_half_width: range of the frequency mask's half-width in mel bands, uniform.
        probability: probability of each of the three augmentations.
        noisy_loss: loss of the noisy head. released: as in the released code of [13], which applies the sigmoid
            twice, so that labels weigh less the more the network contradicts them; bce: binary cross-entropy.
        folds: number of folds over the curated clips.
        fold_seed: seed of the shuffle before folding.
        leave_out: ids of curated clips to exclude from training.
        joint_pass: pass all streams through the trunk together; batch normalisation then pools their statistics, unlike
            the published system.
    """

    epochs: int = 512
    cycle: int = 64
    batch: int = 64
    learning_rate: float = 1e-3
    least_learning_rate: float = 1e-6
    crop_frames: int = 512
    mixup_alpha: float = 1.0
    gain: tuple[float, float] = (0.9, 1.1)
    mask_half_width: tuple[int, int] = (8, 31)
    probability: float = 0.5
    noisy_loss: Literal["released", "bce"] = "released"
    folds: int = 5
    fold_seed: int = 42
    leave_out: tuple[str, ...] = ()
    joint_pass: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.cycle < 1 or self.batch < 2 or self.crop_frames < 1:
            raise SettingError("epochs, cycle and crop_frames must be at least 1, batch at least 2")
        if not 0 < self.least_learning_rate <= self.learning_rate < inf:
            raise SettingError(
                "learning_rate and least_learning_rate must be positive, the latter not above the former"
            )
        if self.folds < 2:
            raise SettingError("folds must be at least 2")
        if not 0 <= self.probability <= 1 or not 0 < self.mixup_alpha < inf:
            raise SettingError("probability must lie in 0..1, mixup_alpha be positive")
        if not 0 <= self.mask_half_width[0] <= self.mask_half_width[1] or not 0 < self.gain[0] <= self.gain[1] < inf:
            raise SettingError("mask_half_width and gain must be ranges: lower end first, not negative")


@dataclass(frozen=True)
class SemiTraining:
    """Settings that stage 2 adds.

    Args:
        epochs: epochs of stage 2.
        consistency: weight of the mean squared error to the soft targets.
        noisy_folds: parts of the noisy clips; fold k's third stream leaves out the k-th.
        slice_part: range of the share that slicing keeps, along time, uniform; the rest is silent. A clip shorter than
            the crop is sliced itself and what is kept gets a new random position; of a longer clip the crop is sliced.
        slice_probability: probability of slicing a crop, in every stream.
    """

    epochs: int = 448
    consistency: float = 20.0
    noisy_folds: int = 5
    slice_part: tuple[float, float] = (0.25, 1.0)
    slice_probability: float = 0.5

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.noisy_folds < 2 or not 0 <= self.consistency < inf:
            raise SettingError("epochs must be at least 1, noisy_folds at least 2, consistency not negative")
        if not 0 < self.slice_part[0] <= self.slice_part[1] <= 1 or not 0 <= self.slice_probability <= 1:
            raise SettingError("slice_part must be a range within 0..1, lower end first, slice_probability in 0..1")


@dataclass(frozen=True)
class PseudoLabelConfig:
    """Settings of the noisy clips' soft targets.

    Args:
        models: own: the fold's own snapshots; all: those of all folds, which leaks, because the others were trained on
            the fold's held-out clips.
        sharpness: exponent of the probabilities, applied before they are divided by their sum.
    """

    models: Literal["own", "all"] = "own"
    sharpness: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.sharpness < inf:
            raise SettingError("sharpness must be positive")


@dataclass(frozen=True)
class InferenceConfig:
    """Settings of a trained tagger's use.

    Args:
        models: mean: the mean over all snapshots of all folds; best: the single best network out-of-fold.
        pads: silent spectrogram frames before and after a clip; several are averaged.
    """

    models: Literal["mean", "best"] = "mean"
    pads: tuple[int, ...] = (8, 64)

    def __post_init__(self) -> None:
        if not self.pads or min(self.pads) < 0:
            raise SettingError("pads must be one or more numbers of frames, not negative")
