"""What ``bundle.json`` says about a system: form of sound and answers, origin, results, licences and limits."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tagasc.bundle.audio import Contract
from tagasc.report.results import SVM, SystemResult
from tagasc.report.statistics import bootstrap
from tagasc.scene.experiment import RunPaths
from tagasc.utils.errors import UserError
from tagasc.utils.yaml_files import read_yaml

CITATION = (
    "J. Jung, H. Shim, J. Kim, S. Kim, H.-J. Yu: Acoustic Scene Classification using Audio Tagging, 2020; implemented"
    " by tagasc (CITATION.cff)"
)
CONVERSIONS = [
    "Other sampling rates are resampled (Kaiser-windowed sinc).",
    "Other channels: the mean of all channels, in each channel.",
    "Up to 10 % longer: cut at the end. Up to 10 % shorter: followed by silence, as in training.",
    "Shorter: repeated until it fills a clip. Such answers are less reliable, below a few seconds much less.",
    "Longer: windows of this length, one after the other or at --hop; the answer is the highest mean probability.",
]
_LIMITS = [
    "It knows these scenes only: anything else gets one of their names, often with a high probability.",
    "Accuracy was measured on clips of the corpus named here; it will be lower for other devices, cities and seasons.",
    "Probabilities are calibrated for that corpus, with scenes as frequent as there.",
    "Not for decisions about people.",
]


def audio(contract: Contract) -> dict[str, Any]:
    """Describe the sound that a bundle takes, and what happens to other sound."""
    return {
        "sampling_rate": contract.sampling_rate,
        "channels": contract.channels,
        "frames": contract.frames,
        "seconds": contract.seconds,
        "sample_format": contract.sample_format,
        "conversions": CONVERSIONS,
    }


def accuracy(result: SystemResult, run: RunPaths) -> dict[str, Any]:
    """Describe the accuracy on the test clips: of the exported seed, by scene, and of all seeds of the system.

    The interval is a percentile bootstrap over recording locations; None for fewer than ten.
    """
    chosen = next(one for one in result.runs if one.seed == run.seed)
    clips, test = result.clips, result.clips.in_split("test")
    truth = clips.scene_indices[test]
    correct = (chosen.predictions[SVM][test] == truth).astype(float)
    interval = bootstrap(correct, clips.locations[test])
    scores = chosen.classifiers[SVM]["scores"]["test"]
    return {
        "test": scores["accuracy"],
        "class_averaged": scores["class_averaged"],
        "clips": int(test.sum()),
        "locations": len(set(clips.locations[test].tolist())),
        "interval_95": None if np.isnan(interval[0]) else [float(bound) for bound in interval],
        "by_scene": {name: float(correct[truth == number].mean()) for number, name in enumerate(clips.scene_names)},
        "by_seed": {str(one.seed): one.classifiers[SVM]["scores"]["test"]["accuracy"] for one in result.runs},
    }


def data(corpus: str, tagging_corpus: str, note: str, counts: dict[str, int], licences: Path) -> dict[str, Any]:
    """Describe what the system was trained on, and under which licences.

    Args:
        corpus: name of the scene corpus.
        tagging_corpus: name of the tagging corpus; empty or none: the tags are from elsewhere.
        note: the recipe's sentence on the data.
        counts: clips by split.
        licences: ``egs/licences.yaml``.
    """
    known = read_yaml(licences, "give the file of licences")
    if not isinstance(known, dict) or not all(isinstance(text, str) for text in known.values()):
        raise UserError(f"{licences} must hold a text for each corpus")
    synthetic = "synthetic" in note.lower()
    names = [corpus] + ([] if tagging_corpus in ("", "none") else [tagging_corpus])
    unknown = "licence unknown to the recipe; ask whoever gave you the data before you hand this on"
    listed = [f"synthetic: {known['synthetic']}"] if synthetic else [f"{n}: {known.get(n, unknown)}" for n in names]
    return {
        "scenes": f"{corpus}, synthetic" if synthetic else corpus,
        "events": " ".join(names[1:]) + (", synthetic" if synthetic and names[1:] else ""),
        "note": note,
        "clips": counts,
        "licences": ["code: Apache-2.0 (LICENSE)", *listed],
    }


def limits(note: str) -> list[str]:
    """Return what the system is not good for."""
    text = "It was trained on synthetic sounds: its answers on real recordings mean nothing."
    return ([text] if "synthetic" in note.lower() else []) + _LIMITS


def made(record: dict[str, Any], training: dict[str, Any], journal: Path) -> dict[str, Any]:
    """Describe how the bundle was made: commits, dates, versions, machine and the commands typed."""
    commands = journal.read_text(encoding="utf-8", errors="replace").splitlines() if journal.exists() else []
    return {
        "commit": record["commit"],
        "tree_changed": record["commit"].endswith("with changes"),
        "date": record["date"],
        "versions": record["versions"],
        "machine": record["machine"],
        "trained": {name: training.get(name, "unknown") for name in ("commit", "date", "command")},
        "commands": commands,
    }


def counted(scenes: Sequence[str]) -> str:
    """Count clips by scene, in words."""
    return ", ".join(f"{name} {count}" for name, count in sorted(Counter(scenes).items()))
