"""Write every file of a bundle; ``bundle.json`` last, with the hashes of the others."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tagasc.audio.packed import PackedAudio
from tagasc.bundle.folder import HEAD, MODEL, TAGGER, TRAINING
from tagasc.bundle.runner import Bundle
from tagasc.bundle.schema import DESCRIPTION, FORMAT, NAME, SCHEMA
from tagasc.export import description, parity
from tagasc.export.calibration import calibrate
from tagasc.export.card import card
from tagasc.export.example import synthesise
from tagasc.export.graph import write_model
from tagasc.export.program import write_program
from tagasc.export.scene_graph import SceneSystem
from tagasc.export.system import Sources, TrainedSystem
from tagasc.export.tagger_graph import tagger_model
from tagasc.report.results import SVM, SystemResult, read_results
from tagasc.training.result import read_training_record
from tagasc.utils import provenance
from tagasc.utils.files import digest_bytes, write_json, write_npz, write_text
from tagasc.utils.log import log

EXAMPLE, NETWORK, CLASSIFIER, CARD = "example.wav", "network.safetensors", "svm.skops", "card.md"
WRITTEN = ("*.onnx", "*.onnx.data", TRAINING, NETWORK, CLASSIFIER, EXAMPLE, CARD, NAME, DESCRIPTION, "predict.py",
           "requirements.txt", "LICENSE", "tagasc", "__pycache__", provenance.NAME)  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """Where a system comes from.

    Attributes:
        tagging_corpus: name of the tagging corpus, or none.
        note: sentence on the data.
        licences: file of the corpora's licences.
        journal: file of the commands typed so far; may be missing.
        record: provenance record of the bundle.
        size: parameters and multiply-accumulates of the network.
        clips: test clips on which ONNX is compared with PyTorch and scikit-learn.
    """

    tagging_corpus: str
    note: str
    licences: Path
    journal: Path
    record: dict[str, Any]
    size: dict[str, Any]
    clips: int


@dataclass(frozen=True)
class CheckedClips:
    """Test clips that went through a bundle.

    Attributes:
        packed: the clips.
        tags: their tags by stage 4, or None.
        own: numbers of the clips of which the bundle computed the tags.
        found: outputs of the bundle for them, by name.
    """

    packed: PackedAudio
    tags: np.ndarray | None
    own: list[int]
    found: dict[str, np.ndarray]


def write_bundle(
    folder: Path, sources: Sources, system: TrainedSystem, origin: Origin
) -> tuple[dict[str, Any], CheckedClips]:
    """Write a bundle into an empty folder; return its description, and the test clips that it was checked on.

    Raises:
        UserError: ONNX and PyTorch with scikit-learn give different answers.
    """
    run = sources.run
    probabilities = calibrate(system.svm, system.validation)
    _write_models(folder, system, probabilities["slope"])
    shutil.copyfile(run.weights, folder / NETWORK)
    shutil.copyfile(sources.classifier, folder / CLASSIFIER)
    train = system.train
    write_npz(folder / TRAINING, {}, ids=train.ids, scenes=train.scenes, codes=train.codes, tags=system.mean_tags)
    result = next(one for one in read_results(run.experiment, []) if one.name == run.system)
    about = _described(sources, system, origin, result) | {"probabilities": probabilities}
    bundle = Bundle(folder, about)
    checked = _check(sources, system, bundle, origin.clips)
    about["parity"] = _parity(sources, system, checked, result)
    about["example"] = _write_example(folder, bundle, system)
    write_program(folder)
    write_text(folder / CARD, card(about))
    write_json(folder / DESCRIPTION, SCHEMA)
    listed = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    about["files"] = {path.relative_to(folder).as_posix(): digest_bytes(path) for path in listed}
    write_json(folder / NAME, about)
    return about, checked


def _write_models(folder: Path, system: TrainedSystem, slope: float) -> None:
    contract, tags = system.contract, len(system.events)
    scale = system.metadata["tag_scale"]
    graphs = SceneSystem(system.network, system.svm, contract.channels, contract.frames, tags, scale, slope)
    write_model(folder / MODEL, graphs.model())
    if tags:
        write_model(folder / HEAD, graphs.head())
    if system.ensemble is not None:
        form = (contract.sampling_rate, contract.channels, contract.frames)
        write_model(folder / TAGGER, tagger_model(system.ensemble, *form))


def _described(sources: Sources, system: TrainedSystem, origin: Origin, result: SystemResult) -> dict[str, Any]:
    run, svm = sources.run, system.svm
    return {
        "format": FORMAT,
        "system": run.system,
        "seed": run.seed,
        "fusion": asdict(system.fusion) | {"tag_scale": system.metadata["tag_scale"]},
        "scenes": svm.classes_.tolist(),
        "events": system.events,
        "audio": description.audio(system.contract),
        "tagger": system.tagger,
        "network": origin.size,
        "svm": {"kernel": svm.kernel, "C": float(svm.C), "support_vectors": len(svm.support_vectors_)},
        "accuracy": description.accuracy(result, run),
        "data": description.data(sources.corpus, origin.tagging_corpus, origin.note, system.counts, origin.licences),
        "made": description.made(origin.record, read_training_record(run.network) or {}, origin.journal),
        "limits": description.limits(origin.note),
        "citation": description.CITATION,
    }


def _check(sources: Sources, system: TrainedSystem, bundle: Bundle, most: int) -> CheckedClips:
    every = PackedAudio(sources.packed("test"))
    packed = parity.some_clips(every, parity.spaced(len(every), most))
    tags = sources.tag_vectors("test").of(packed.ids) if system.events else None
    own = [] if system.ensemble is None else parity.tagged_clips(system.ensemble, len(packed))
    outputs = ("scene", "scores", "pairs", "code", "probabilities")
    return CheckedClips(packed, tags, own, parity.run_bundle(bundle, packed, tags, own, outputs))


def _parity(sources: Sources, system: TrainedSystem, checked: CheckedClips, result: SystemResult) -> dict[str, Any]:
    """Compare ONNX with PyTorch and scikit-learn on test clips, and with the recipe's predictions."""
    packed, tags, found = checked.packed, checked.tags, checked.found
    if checked.own:
        tags = tags.copy()
        tags[checked.own] = parity.reference_tags(parity.some_clips(packed, checked.own), system.ensemble)
    metadata = system.metadata
    codes = parity.reference(packed, system.network, metadata["scenes"], tags, metadata["tag_scale"])
    report = parity.compare(packed, system.svm, codes, tags, found)
    run = next(run for run in result.runs if run.seed == sources.run.seed)
    names = np.array([*result.clips.scene_names, ""])
    predicted = dict(zip(result.clips.ids.tolist(), names[run.predictions[SVM]].tolist(), strict=True))
    answers = system.svm.classes_[found["scene"]]
    equal = sum(predicted.get(clip) == answer for clip, answer in zip(packed.ids, answers, strict=True))
    text = f"Stage 7 predicted the same scene for {equal} of them."
    if equal < len(packed):
        text += " Codes or tags of the others were computed with another precision, or on another segment."
        log.warning("warning: %s: stage 7 predicted another scene for %d clips", sources.run.title, len(packed) - equal)
    tagged = {"tagger_clips": len(checked.own)} if checked.own else {}
    return {**report, **tagged, "split": f"the test split of {sources.corpus}", "recipe": text}


def _write_example(folder: Path, bundle: Bundle, system: TrainedSystem) -> dict[str, Any]:
    """Write a synthesised clip; return the answer that the bundle must give."""
    rate = bundle.contract.sampling_rate
    soundfile.write(folder / EXAMPLE, synthesise(bundle.contract), rate, subtype="PCM_16")
    external = bundle.uses_tags and not bundle.has_tagger
    answer = bundle.classify_file(folder / EXAMPLE, system.mean_tags if external else None)
    tags = {"tags": "the mean tags of the training clips, tags in training.npz"} if external else {}
    probabilities = [float(value) for value in answer.probabilities]
    return {"file": EXAMPLE, "scene": answer.scene, "probabilities": probabilities, **tags}
