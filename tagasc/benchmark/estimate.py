"""Estimates the duration of a recipe's stages from the speeds measured on this machine."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tagasc.audio.manifests import cut_manifests, read_sources
from tagasc.audio.packed import PackedAudio, packed_splits
from tagasc.benchmark.audio import PACKED
from tagasc.benchmark.backend import CHOSEN, SCORED
from tagasc.benchmark.measure import Speed
from tagasc.benchmark.scene import CODES, WHOLE
from tagasc.benchmark.tagger import STEP, TAGS
from tagasc.scene.config import SceneTraining
from tagasc.tagger.config import SemiTraining, TaggerTraining
from tagasc.tagger.training import steps_per_epoch
from tagasc.utils.errors import SettingError
from tagasc.utils.log import log


@dataclass(frozen=True)
class Workload:
    """The amount of work of a recipe; the defaults are the paper's experiment.

    Args:
        train: training clips of the scene corpus, including the validation clips.
        validation: clips held out of ``train``.
        test: official test clips.
        unused: scene clips in neither split.
        seconds: length of a scene clip, seconds.
        sampling_rate: sampling rate of the scene clips, Hz.
        curated: curated tagging clips.
        noisy: noisy tagging clips.
        tagging_test: test clips of the tagging corpus.
        tagging_rate: sampling rate of the tagging clips, Hz.
        tagging_seconds: mean length of a tagging clip, seconds; FSDKaggle2019 lasts 103 hours in all.
        protocol: ours; both also scores each epoch as the paper does; paper does so for a second training.
        final_fit: all adds a training on all training clips.
        own_tagger: whether the tagger is trained here; the cost of an external one is unknown.
        gpus: GPUs that share the tagger's folds.
        at_once: scene networks in parallel, on GPUs or cores.
    """

    train: int = 9185
    validation: int = 1378
    test: int = 4185
    unused: int = 1030
    seconds: float = 10.0
    sampling_rate: int = 48000
    curated: int = 4970
    noisy: int = 19815
    tagging_test: int = 4481
    tagging_rate: int = 44100
    tagging_seconds: float = 12.7
    protocol: Literal["ours", "both", "paper"] = "both"
    final_fit: Literal["none", "all"] = "none"
    own_tagger: bool = True
    gpus: int = 1
    at_once: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.validation <= self.train - 2:  # an SVM needs two scenes
            raise SettingError("train must exceed validation by 2 or more, validation not be negative")
        if self.test < 1 or min(self.unused, self.curated, self.noisy, self.tagging_test) < 0:
            raise SettingError("test must be at least 1; unused, curated, noisy and tagging_test not negative")
        if not 0 < self.seconds < math.inf or not 0 < self.tagging_seconds < math.inf:
            raise SettingError("seconds and tagging_seconds must be positive")
        if min(self.sampling_rate, self.tagging_rate, self.gpus, self.at_once) < 1:
            raise SettingError("sampling_rate, tagging_rate, gpus and at_once must be at least 1")

    @property
    def scene_clips(self) -> int:
        """Number of all scene clips."""
        return self.train + self.test + self.unused


@dataclass(frozen=True)
class TaggerCost:
    """The settings that determine the tagger's cost; ``pads`` is the number of passes at inference."""

    training: TaggerTraining = TaggerTraining()
    semi: SemiTraining = SemiTraining()
    folds: int = 5
    stages: int = 2
    pads: int = 2

    def snapshots(self, stage: int) -> int:
        """Return the number of networks that a fold keeps from a stage."""
        return math.ceil((self.training.epochs if stage == 1 else self.semi.epochs) / self.training.cycle)


@dataclass(frozen=True)
class Throughput:
    """Clips a second of each part of the work.

    Attributes:
        packed: packing, 10-s stereo clips at 48 kHz.
        step: training of the tagger, clips of all streams.
        tags: tagging, 10-s clips with one model and one pad.
        whole: training of the scene network, crops, data path included.
        codes: computation of codes, whole scene clips.
        chosen: choice of an SVM, training clips.
        scored: scoring of an epoch as in the paper, training clips.
    """

    packed: float
    step: float
    tags: float
    whole: float
    codes: float
    chosen: float
    scored: float

    @classmethod
    def of(cls, measured: Iterable[Speed]) -> "Throughput":
        """Pick the benchmark's speeds by name; of several with one name, the last."""
        speeds = {speed.what: speed.clips_per_second for speed in measured}
        names = (PACKED, STEP, TAGS, WHOLE, CODES, CHOSEN, SCORED)
        return cls(*([value for what, value in speeds.items() if what.startswith(name)][-1] for name in names))


def stages(
    work: Workload, networks: int, throughput: Throughput, scene: SceneTraining, tagger: TaggerCost
) -> dict[str, float | None]:
    """Estimate the seconds of each stage of run.sh, by name; None for stages that are not estimated.

    Not included: start of programs, checkpoints, the tagger's validation, the final fit's SVMs, and waiting. Parallel
    networks are assumed not to slow each other down.

    Args:
        work: amount of work.
        networks: number of scene networks.
        throughput: measured speeds.
        scene: training of the scene networks.
        tagger: cost of the tagger.
    """
    tagged = work.scene_clips * work.seconds / 10 * tagger.folds * tagger.snapshots(tagger.stages) * tagger.pads
    at_once = min(work.at_once, networks)
    coded = networks * work.scene_clips * (2 if work.final_fit == "all" else 1)
    return {
        "download": None,
        "manifests": None,
        "pack": _ten_seconds(work) / throughput.packed,
        "tagger": _tagger(work, throughput, tagger) / min(work.gpus, tagger.folds) if work.own_tagger else None,
        "tags": tagged / throughput.tags if work.own_tagger else None,
        "scenes": networks * _network(work, throughput, scene) / at_once,
        "codes": coded / throughput.codes / at_once,
        "svm": 2 * networks * (work.train - work.validation) / throughput.chosen,  # unscaled and standardised
        "report": None,
    }


def epoch_scores(work: Workload, networks: int, throughput: Throughput, scene: SceneTraining) -> float:
    """Estimate the seconds of the SVMs of the paper's protocol, which run on the CPU during stage 5."""
    fitted = {"ours": 0, "both": work.train - work.validation, "paper": work.train}[work.protocol]
    return networks * scene.epochs * fitted / throughput.scored


@dataclass(frozen=True)
class SplitSize:
    """Size of a split: number of clips, their seconds in all, and their sampling rate in Hz."""

    clips: int
    seconds: float
    sampling_rate: int


def count(work: Workload, corpus: str, tagging_corpus: str, data: Path | None, audio: Path | None) -> Workload:
    """Return ``work`` with the counts of the clips that are there.

    Args:
        work: settings, and the counts for a corpus that has no clips yet.
        corpus: name of the scene corpus.
        tagging_corpus: name of the tagging corpus; counted only if the tagger is trained here.
        data: folder of the corpora's manifests (stage 1), counted first.
        audio: folder of packed audio (stage 2), counted where there are no manifests.
    """
    scenes = _splits(corpus, {"train", "validation", "test"}, data, audio)
    sounds = _splits(tagging_corpus, {"curated"}, data, audio) if work.own_tagger else {}
    missing = [name for name, splits in ((corpus, scenes), (tagging_corpus, sounds)) if splits is None]
    if missing and (data or audio):
        log.info(
            "no manifests or packed audio of %s; using the clip counts of the paper's corpora", " and ".join(missing)
        )
    if scenes:
        work = replace(
            work,
            train=scenes["train"].clips + scenes["validation"].clips,
            validation=scenes["validation"].clips,
            test=scenes["test"].clips,
            unused=scenes["unused"].clips if "unused" in scenes else 0,
            seconds=_mean_seconds(scenes),
            sampling_rate=scenes["train"].sampling_rate,
        )
    if not work.own_tagger:
        return replace(work, curated=0, noisy=0, tagging_test=0)
    if sounds:
        work = replace(
            work,
            curated=sounds["curated"].clips,
            noisy=sounds["noisy"].clips if "noisy" in sounds and work.noisy else 0,
            tagging_test=sounds["test"].clips if "test" in sounds else 0,
            tagging_rate=sounds["curated"].sampling_rate,
            tagging_seconds=_mean_seconds(sounds),
        )
    return work


def _splits(corpus: str, needed: set[str], data: Path | None, audio: Path | None) -> dict[str, SplitSize] | None:
    """Count a corpus's splits in its manifests, or else in packed audio; None if a needed split is missing."""
    manifests = cut_manifests(data / corpus) if data else {}
    listed = {split: path for (name, split), path in manifests.items() if name == corpus}
    if needed <= listed.keys():
        return {split: _listed(path) for split, path in listed.items()}
    folders = packed_splits(audio, corpus) if audio else {}
    if needed <= folders.keys():
        return {split: _packed(PackedAudio(folder)) for split, folder in folders.items()}
    return None


def _listed(path: Path) -> SplitSize:
    clips = read_sources(path)
    rate = clips[0].sampling_rate
    return SplitSize(len(clips), sum(clip.frames for clip in clips) / rate, rate)


def _packed(audio: PackedAudio) -> SplitSize:
    return SplitSize(len(audio), len(audio.samples) / audio.sampling_rate, audio.sampling_rate)


def _mean_seconds(splits: dict[str, SplitSize]) -> float:
    return sum(split.seconds for split in splits.values()) / sum(split.clips for split in splits.values())


def _ten_seconds(work: Workload) -> float:
    """Return the amount of all audio, in 10-s stereo clips at 48 kHz."""
    scenes = work.scene_clips * work.seconds * work.sampling_rate * 2
    tagging = (work.curated + work.noisy + work.tagging_test) * work.tagging_seconds * work.tagging_rate
    return (scenes + tagging) / (10 * 48000 * 2)


def _tagger(work: Workload, throughput: Throughput, tagger: TaggerCost) -> float:
    """Estimate the seconds of all folds: stage 1, pseudo-labels, stage 2, and scores on held-out and test clips."""
    training = tagger.training
    curated = work.curated * (training.folds - 1) // training.folds
    drawn = steps_per_epoch(curated, training.batch) * training.batch  # by each of the other streams
    trained, tagged = training.epochs * (curated + (drawn if work.noisy else 0)), 0
    if tagger.stages == 2:
        trained += tagger.semi.epochs * (curated + 2 * drawn)
        tagged += work.noisy * tagger.snapshots(1)  # pseudo-labels, without pads
    scored = (work.tagging_test + work.curated // training.folds) * tagger.snapshots(tagger.stages)
    tagged += scored * tagger.pads
    return tagger.folds * (trained / throughput.step + tagged * work.tagging_seconds / 10 / throughput.tags)


def _network(work: Workload, throughput: Throughput, training: SceneTraining) -> float:
    """Estimate the seconds of a system's trainings: crops, and codes of validation (paper's protocol: of all clips)."""
    kept, tests = work.train - work.validation, work.test + work.unused
    trainings = [
        (kept, work.validation + (kept + tests if work.protocol == "both" else 0))
    ]  # clips trained on, clips coded
    if work.protocol == "paper":
        trainings.append((work.train, work.train + tests))
    if work.final_fit == "all":
        trainings.append((work.train, 0))  # at most: validation may choose an earlier epoch
    crops = sum(clips // training.batch * training.batch for clips, _ in trainings)
    return training.epochs * (crops / throughput.whole + sum(coded for _, coded in trainings) / throughput.codes)
