"""A tagger's experiment: options, folder layout, clips and provenance records.

``exp/tagger/<tagger>`` holds:

- ``fold<k>/stage1``: snapshots, best weights and history of stage 1 (curated and noisy clips, two heads);
- ``fold<k>/pseudo_labels.npz``: soft labels of the noisy clips, from stage 1's snapshots;
- ``fold<k>/stage2``: the semi-supervised stage, from stage 1's last snapshot;
- ``predictions/stage<n>_<clips>.npz``, ``scores.json``: tags of held-out and test clips, and their lwlrap;
- ``tagger.json``: the weights files that the tagger consists of.

Four programs of ``steps/`` write them: train_tagger, make_pseudo_labels, train_tagger_semi, score_tagger.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tagasc.audio.packed import PackedAudio, require_index
from tagasc.tagger.clips import TaggedClips, label_matrix
from tagasc.tagger.config import InferenceConfig, PseudoLabelConfig, SemiTraining, TaggerTraining
from tagasc.tagger.features import MelConfig
from tagasc.tagger.network import TaggerConfig
from tagasc.training.result import TRAINING_FILES
from tagasc.utils import provenance
from tagasc.utils.device import Precision, choose_device, precision_on
from tagasc.utils.errors import PartialFailure, UserError
from tagasc.utils.log import log
from tagasc.utils.sweep import clear_once, sweep

TAGGER, SCORES = "tagger.json", "scores.json"
STAGE = "stage 3 (tagger)"
_STAGE1_SETTINGS = ("model", "mel", "training", "noisy", "seed", "compile")
_SETTINGS = (*_STAGE1_SETTINGS, "pseudo_labels", "semi", "inference")


def fold_folder(tagger: Path, fold: int) -> Path:
    """Return the folder of a fold's trainings."""
    return tagger / f"fold{fold}"


def stage_folder(tagger: Path, fold: int, stage: int) -> Path:
    """Return the folder of one training."""
    return fold_folder(tagger, fold) / f"stage{stage}"


def pseudo_labels_file(tagger: Path, fold: int) -> Path:
    """Return the file of a fold's pseudo-labels."""
    return fold_folder(tagger, fold) / "pseudo_labels.npz"


def snapshot_file(folder: Path, number: int) -> Path:
    """Return the file of the weights at the end of cycle ``number``, counted from 1, of the training in ``folder``."""
    return folder / f"snapshot{number}.safetensors"


def snapshot_files(folder: Path, epochs: int, cycle: int) -> list[Path]:
    """Return the files of all snapshots of a training; its last cycle may be shorter than the others."""
    return [snapshot_file(folder, number + 1) for number in range(-(-epochs // cycle))]


def predictions_folder(tagger: Path) -> Path:
    """Return the folder of the tags that the scores were computed from."""
    return tagger / "predictions"


def predictions_file(tagger: Path, stage: int, clips: Literal["out_of_fold", "test"]) -> Path:
    """Return the file of one stage's tags of held-out curated clips, or of test clips."""
    return predictions_folder(tagger) / f"stage{stage}_{clips}.npz"


@dataclass(frozen=True)
class TaggerOptions:
    """Options of the four programs that train a tagger.

    Args:
        audio: folder of packed audio, with ``<corpus>_curated``, ``_noisy`` and optionally ``_test`` clips.
        out: folder of the tagger.
        corpus: name of the tagging corpus.
        model: shape of the network.
        mel: the spectrogram.
        training: settings of stage 1, and those that both stages share.
        pseudo_labels: settings of the noisy clips' soft targets.
        semi: settings that stage 2 adds.
        inference: settings of the trained tagger's use.
        folds: folds to train, counted from 0 and separated by spaces, or all.
        stages: 1 (curated and noisy clips) or 2 (also the semi-supervised stage).
        noisy: use the noisy clips.
        seed: random seed of initialisation, order and augmentation.
        compile: compile the trunk with torch.compile; sums then differ in the last bits.
        device: auto, cpu, cuda, or cuda:N.
        precision: precision of networks: float32 (never TF32), bfloat16, or auto (bfloat16 on a GPU that has it).
        deterministic: reproducible bit for bit on a GPU; slower.
        force: redo finished results.
    """

    audio: Path
    out: Path
    corpus: str = "fsdkaggle2019"
    model: TaggerConfig = TaggerConfig()
    mel: MelConfig = MelConfig()
    training: TaggerTraining = TaggerTraining()
    pseudo_labels: PseudoLabelConfig = PseudoLabelConfig()
    semi: SemiTraining = SemiTraining()
    inference: InferenceConfig = InferenceConfig()
    folds: str = "0"
    stages: Literal[1, 2] = 1
    noisy: bool = True
    seed: int = 1
    compile: bool = False
    device: str = "auto"
    precision: Precision = "auto"
    deterministic: bool = False
    force: bool = False


class TaggerExperiment:
    """Folder, folds and clips of a tagger in training.

    Attributes:
        options: the programs' options.
        folder: the tagger's folder.
        folds: numbers of the folds, counted from 0.
        stages: number of stages, 1 without noisy clips.
        device: device of the training.
        packed: folders of packed audio, by split.
    """

    def __init__(self, options: TaggerOptions) -> None:
        """Check the options and the packed audio.

        Raises:
            UserError: a fold does not exist, the seed is negative, or a split is not packed.
        """
        if options.seed < 0:
            raise UserError(f"--seed {options.seed} must not be negative")
        self.options, self.folder = options, options.out
        self.folds = parse_folds(options.folds, options.training.folds)
        self.stages = options.stages if options.noisy else 1
        self.device = choose_device(options.device, options.deterministic, options.precision)
        self.packed = {split: options.audio / f"{options.corpus}_{split}" for split in ("curated", "noisy", "test")}
        for split in self._training_splits():
            if not self.packed[split].is_dir():
                without = ", or give --noisy false to train without them" if split == "noisy" else ""
                raise UserError(f"{self.packed[split]} does not exist; run stage 2 (pack){without}")

    @cached_property
    def curated(self) -> TaggedClips:
        """The curated clips; their labels are the vocabulary."""
        clips = TaggedClips(self.packed["curated"], None, self.options.mel, self.device)
        if self.packed["test"].is_dir():
            label_matrix(PackedAudio(self.packed["test"]), clips.classes, labelled=False)  # fail before training
        return clips

    @cached_property
    def noisy(self) -> TaggedClips | None:
        """The noisy clips; None if they are not used."""
        if not self.options.noisy:
            return None
        return TaggedClips(self.packed["noisy"], self.curated.classes, self.options.mel, self.device)

    @cached_property
    def test(self) -> TaggedClips | None:
        """The test clips; None if there are none. Some may have no labels."""
        if not self.packed["test"].is_dir():
            return None
        return TaggedClips(self.packed["test"], self.curated.classes, self.options.mel, self.device, labelled=False)

    def snapshot_files(self, fold: int, stage: int) -> list[Path]:
        """Return the files of all snapshots of one training."""
        epochs = self.options.training.epochs if stage == 1 else self.options.semi.epochs
        return snapshot_files(stage_folder(self.folder, fold, stage), epochs, self.options.training.cycle)

    def has_semi(self, part: str) -> bool:
        """Return whether the tagger has a semi-supervised stage; if not, log that ``part`` is skipped."""
        if self.stages == 1:
            reason = "one stage (--stages 1)" if self.options.noisy else "no noisy clips (--noisy false)"
            log.info("%s skipped: %s", part, reason)
        return self.stages == 2

    def for_each_fold(self, part: str, work: Callable[[int], bool]) -> None:
        """Run one part on every fold; processes that run the same part share the folds.

        Args:
            part: name of the part in the log.
            work: function of the fold's number that runs the part; returns False if there was nothing to do.

        Raises:
            UserError: a fold failed, so the tagger cannot be complete.
        """
        names = [f"fold{fold}.{part}" for fold in self.folds]
        try:
            sweep(names, lambda number: work(self.folds[number]), self.folder / "log")
        except PartialFailure as error:
            raise UserError(str(error)) from None

    def clear(self, folders: list[Path]) -> None:
        """Remove trainings; processes that share them remove them only once."""
        clear_once(folders, self.folder / "log", ["stage1", "stage2", "pseudo_labels.npz", *TRAINING_FILES])

    def training_record(self, program: str, fold: int, **inputs: Path) -> dict[str, Any]:
        """Return the provenance record of one training; only stage 2 has further ``inputs``."""
        config = {**self._settings(_STAGE1_SETTINGS), "fold": fold}
        if inputs:
            config["semi"] = self.options.semi
        return provenance.record(program, config, {**self._indexes(self._training_splits()), **inputs})

    def scores_record(self, weights: dict[str, str]) -> dict[str, Any]:
        """Return the provenance record of scores and tagger; ``weights`` are hashes of weights files, by name."""
        config = {**self._settings(_SETTINGS), "folds": self.folds, "stages": self.stages, "weights": weights}
        test = ["test"] if self.packed["test"].is_dir() else []
        return provenance.record("score_tagger", config, self._indexes([*self._training_splits(), *test]))

    def _training_splits(self) -> list[str]:
        return ["curated", "noisy"] if self.options.noisy else ["curated"]

    def _indexes(self, splits: list[str]) -> dict[str, Path]:
        return {split: require_index(self.packed[split]) for split in splits}

    def _settings(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: getattr(self.options, name) for name in names} | {"precision": precision_on(self.device)}


def parse_folds(text: str, count: int) -> list[int]:
    """Return the numbers of the folds in ``text``, ascending; ``count`` is the number of all folds.

    Raises:
        UserError: ``text`` is not a list of folds.
    """
    names = text.split()
    if names == ["all"]:
        return list(range(count))
    if not names or not all(name.isdecimal() and int(name) < count for name in names):
        raise UserError(f"--folds {text!r} must be numbers in 0..{count - 1}, separated by spaces, or all")
    return sorted({int(name) for name in names})


def require(path: Path, program: str) -> Path:
    """Return ``path``.

    Raises:
        UserError: it does not exist; the message names the ``program`` that creates it.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; run steps/{program} to create it")
    return path
