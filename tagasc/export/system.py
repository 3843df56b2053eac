"""The trained system that a bundle is made of: which run, its network, SVM, tagger and codes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
import torch
from sklearn.svm import SVC

from tagasc.audio.packed import PackedAudio, packed_splits
from tagasc.backend.codes import Codes
from tagasc.bundle.audio import Contract
from tagasc.scene.experiment import RunPaths, best_on_validation, scored_runs
from tagasc.scene.network import SceneNetwork
from tagasc.scene.systems import System
from tagasc.scene.training import load_scene_network
from tagasc.scene.trunk import TrunkConfig
from tagasc.tagger.experiment import TAGGER
from tagasc.tagger.inference import Ensemble, load_tagger
from tagasc.tagger.tags import TagVectors
from tagasc.training.result import find_history
from tagasc.utils import provenance
from tagasc.utils.cli import from_values
from tagasc.utils.errors import UserError
from tagasc.utils.files import digest, read_record


def choose_run(experiment: Path, names: list[str], wanted: str) -> RunPaths:
    """Choose the run to export; the test clips play no part.

    Args:
        experiment: folder of the experiment.
        names: every system that may be exported.
        wanted: ``auto``, the system that is best on validation; or NAME, or NAME/seedK. Without a seed, the seed with
            the highest validation accuracy is taken.

    Raises:
        UserError: there is no such run, or it is not scored.
    """
    scored = [run for run in scored_runs(experiment) if run.system in names]
    name, _, seed = wanted.partition("/seed")
    if wanted == "auto":
        name = best_on_validation(experiment, [name for name in names if any(run.system == name for run in scored)])
    runs = [run for run in scored if run.system == name and seed in ("", str(run.seed))]
    if not runs:
        known = ", ".join(dict.fromkeys(run.system for run in scored)) or "none; run stages 5 to 7"
        what = "a system" if wanted == "auto" else wanted
        raise UserError(f"{experiment} holds no scores of {what} that could be exported; scored are {known}")
    return max(runs, key=_validation_accuracy)


def _validation_accuracy(run: RunPaths) -> float:
    history = find_history(run.network)
    return history["epochs"][history["best_epoch"] - 1]["validation_accuracy"] if history else -1.0


@dataclass(frozen=True)
class Sources:
    """Where the parts of a system are.

    Attributes:
        run: the run.
        audio: folder of packed audio.
        corpus: name of the scene corpus.
        tags: folder of tag vectors.
        tags_from: tag source of stage 4.
    """

    run: RunPaths
    audio: Path
    corpus: str
    tags: Path
    tags_from: str

    @property
    def classifier(self) -> Path:
        """The SVM on the codes."""
        return self.run.svm / "svm.skops"

    def packed(self, split: str) -> Path:
        """Return the packed folder of a split."""
        return self.audio / f"{self.corpus}_{split}"

    def tag_vectors(self, split: str) -> TagVectors:
        """Read the tag vectors of a split."""
        return TagVectors.read(self.tags / f"{self.corpus}_{split}.npz")

    def files(self, uses_tags: bool) -> dict[str, Path]:
        """Return, by name, the files that the bundle depends on."""
        files = {"network": self.run.weights, "svm": self.classifier, "predictions": self.run.predictions}
        files |= {f"codes {split}": self.run.codes_of(split) for split in ("train", "validation", "test")}
        return files | ({"tags train": self.tags / f"{self.corpus}_train.npz"} if uses_tags else {})


@dataclass(frozen=True)
class TrainedSystem:
    """A system, loaded.

    Attributes:
        network: scene network.
        metadata: metadata of its weights file.
        trunk: shape of the trunk.
        fusion: use of the tags.
        svm: SVM on its codes.
        ensemble: the recipe's tagger; None if the system uses no tags, or those of another tagger.
        events: names of the events; empty without tags.
        tagger: what ``bundle.json`` says about the tagger.
        contract: the sound that it takes.
        train: training codes.
        validation: validation codes.
        mean_tags: mean tags of the training clips, float32 (events,).
        counts: clips by split.
    """

    network: SceneNetwork
    metadata: dict[str, Any]
    trunk: TrunkConfig
    fusion: System
    svm: SVC
    ensemble: Ensemble | None
    events: list[str]
    tagger: dict[str, Any]
    contract: Contract
    train: Codes
    validation: Codes
    mean_tags: np.ndarray
    counts: dict[str, int]


def load_system(sources: Sources) -> TrainedSystem:
    """Load a system.

    Raises:
        UserError: a part is missing, damaged, or belongs to another system than the rest.
    """
    run = sources.run
    network, metadata = load_scene_network(run.weights)
    network_of_codes = (read_record(run.codes_of("test")) or {}).get("inputs", {}).get("network")
    if network_of_codes != digest(run.weights):
        raise UserError(f"the codes of {run.title} are of another network; run stages 6 (codes) and 7 (svm) again")
    train, validation = Codes.read(run.codes_of("train")), Codes.read(run.codes_of("validation"))
    ensemble, events, tagger, mean = None, [], {"kind": "none", "source": "none"}, np.zeros(0, np.float32)
    if metadata["tags"]:
        vectors = sources.tag_vectors("train")
        if not vectors.has_names:
            raise UserError(
                f"{vectors.path} holds an embedding; a bundle takes probabilities of events only, so export a system of"
                " another tagger, or the baseline: --export-system baseline"
            )
        events, mean = vectors.classes, vectors.of(train.ids.tolist()).mean(axis=0)
        ensemble, tagger = _tagger(sources)
        if len(events) != metadata["tags"] or (ensemble is not None and ensemble.classes != events):
            raise UserError(f"{vectors.path} has other events than the tagger or the network; run stages 4 to 7 again")
    packed = PackedAudio(sources.packed("test"))
    form = (packed.sampling_rate, packed.channels, packed.one_length(), packed.samples.dtype.name)
    splits = packed_splits(sources.audio, sources.corpus)
    counts = {split: len(PackedAudio(folder)) for split, folder in splits.items()}
    svm = _svm(sources.classifier)
    trunk = from_values(TrunkConfig, metadata["trunk"], str(run.weights))
    fusion = from_values(System, metadata["system"], str(run.weights))
    parts = (network, metadata, trunk, fusion, svm, ensemble, events, tagger, Contract(*form))
    return TrainedSystem(*parts, train, validation, mean, counts)


def _svm(path: Path) -> SVC:
    provenance.require_whole(path, "stage 7 (svm)")
    try:
        svm = skops.io.load(path, trusted=[])
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run stage 7 (svm) to create it") from None
    except Exception as error:  # skops raises many types
        raise UserError(
            f"{path} cannot be read ({' '.join(str(error).split())[:100]}); run stage 7 (svm) again"
        ) from None
    if not isinstance(svm, SVC):
        raise UserError(f"{path} holds no SVM; run stage 7 (svm) again")
    return svm


def _tagger(sources: Sources) -> tuple[Ensemble | None, dict[str, Any]]:
    """Return the recipe's tagger, or None if the tags are from elsewhere, and its description."""
    record = read_record(sources.tags / f"{sources.corpus}_train.npz") or {}
    inputs = record.get("inputs", {})
    if "tagger" not in inputs:
        external = {"kind": "external", "source": Path(sources.tags_from).name, "sha256": inputs.get("tag source", "?")}
        kind, colon, name = sources.tags_from.partition(":")
        if colon:  # a name on the Hub is known elsewhere, a path is not
            external["source"] = sources.tags_from if kind in ("hf", "clap") else f"{kind}:{Path(name).name}"
        return None, external
    listing = Path(sources.tags_from) / TAGGER
    ensemble = load_tagger(listing.parent, torch.device("cpu"))
    if digest(listing) != inputs["tagger"]:
        raise UserError(
            f"the tags in {sources.tags} are of another tagger than {listing.parent}; run stages 4 to 7 again"
        )
    count = sum(value.numel() for network in ensemble.networks for value in network.parameters())
    about = {"kind": "own", "source": listing.parent.name, "sha256": inputs["tagger"]}
    return ensemble, about | {"networks": len(ensemble.networks), "parameters": count, "pads": list(ensemble.pads)}
