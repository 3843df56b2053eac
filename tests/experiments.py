"""Fake experiments: the folders that stages 4 to 7 write, with random predictions, made in seconds."""

import csv
import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score

from tagasc.backend.codes import Codes
from tagasc.scene.network import SceneNetwork
from tagasc.scene.systems import read_systems
from tagasc.scene.trunk import TrunkConfig
from tagasc.training.result import WEIGHTS
from tagasc.training.weights import save_weights
from tagasc.utils.cli import to_json
from tagasc.utils.files import write_npz
from tests.helpers import ROOT

SCENES = ("airport", "bus", "metro", "metro_station", "park", "public_square", "shopping_mall", "street_pedestrian",
          "street_traffic", "tram")  # fmt: skip
RECORD = {
    "step": "fake",
    "config": {},
    "inputs": {},
    "date": "2026-11-24T12:00:00+00:00",
    "commit": "0" * 40,
    "versions": {"python": "3.11", "torch": "2.14"},
    "machine": {"system": "Fake", "processors": 2},
}


@dataclass
class Fake:
    """A recipe's folder with scored systems.

    Attributes:
        folder: folder of the recipe, to be filled.
        clips: test clips; the split unused has a fifth as many.
        scenes: names of the scenes.
        events: tags per clip.
        epochs: epochs of each network.
        by_location: clips per location.
        filters: filters of the network's last block.
    """

    folder: Path
    clips: int = 60
    scenes: tuple[str, ...] = SCENES[:4]
    events: int = 8
    epochs: int = 3
    by_location: int = 4
    filters: int = 64

    def __post_init__(self) -> None:
        self.experiment = self.folder / "exp/table1-tiny"
        self.tags, self.tagger = self.folder / "dump/tags/tiny", self.folder / "exp/tagger/tiny"
        self.random = np.random.default_rng(0)
        self.records = {n: s for t in read_systems(ROOT / "egs/systems.yaml").values() for n, s in t.items()}
        count = self.clips + self.clips // 5
        group = np.arange(count) // self.by_location
        self.scene_indices = group % len(self.scenes)
        self.locations = np.array([f"city-{number}" for number in group])
        self.splits = np.where(np.arange(count) < self.clips, "test", "unused")
        self.ids = np.array([f"clip-{number:05d}-{self.scenes[n]}" for number, n in enumerate(self.scene_indices)])
        self.hard = self.random.random(len(set(group)))[group]  # clips of one location are alike
        self.write_tags()

    def write_tags(self) -> None:
        typical = self.random.random((len(self.scenes), self.events)) ** 4
        values = (typical[self.scene_indices] * self.random.random((len(self.scene_indices), self.events)))[
            self.splits == "test"
        ]
        classes = np.array([f"Event_{number}" for number in range(self.events)])
        ids = self.ids[self.splits == "test"]
        write_npz(self.tags / "tau2019_test.npz", {}, ids=ids, classes=classes, values=values.astype(np.float32))

    def add(self, name: str, seed: int = 1, accuracy: float = 0.7, validation: float = 0.6, **options: object) -> None:
        """Add one scored run; ``options``: paper (True, or the folder "paper"), codes, final, weights."""
        run = f"{name}/seed{seed}"
        if name != "tags_only":
            self._network(self.experiment / "scene" / run, name, validation, bool(options.get("weights")))
        self._scores(self.experiment / "svm" / run, accuracy, name != "tags_only")
        if options.get("final"):
            self._scores(self.experiment / "final/svm" / run, accuracy + 0.02, True)
        for prefix in ("", "paper") if options.get("paper") == "paper" else [""] if options.get("paper") else []:
            self._paper(self.experiment / prefix / "scene" / run, prefix, accuracy)
        if options.get("codes"):
            test = self.splits == "test"
            codes = self.random.normal(size=(self.clips, 8)) + 2 * np.eye(len(self.scenes), 8)[self.scene_indices[test]]
            names = np.array(self.scenes)[self.scene_indices[test]]
            codes = Codes(self.ids[test], codes.astype(np.float32), names, names, self.locations[test])
            codes.write(self.experiment / "codes" / run / "test.npz", RECORD)

    def write_fields(
        self, test: list[dict], train: list[dict], validation: list[dict], corpus: str = "tau2019"
    ) -> None:
        """Write cut manifests of which the report reads the supervisions' fields; those of test clips in order."""
        for split, rows in (("test", test), ("train", train), ("validation", validation)):
            path = self.folder / f"data/{corpus}/{corpus}_cuts_{split}.jsonl.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            ids = self.ids if split == "test" else [f"{split}-{n}" for n in range(len(rows))]
            with gzip.open(path, "wt", encoding="utf-8") as file:
                for clip, custom in zip(ids, rows, strict=False):
                    recording = {"sources": [{"source": f"/corpus/audio/{clip}.wav"}]}
                    cut = {"id": clip, "recording": recording, "supervisions": [{"id": clip, "custom": custom}]}
                    file.write(json.dumps(cut) + "\n")

    def options(self, *more: object) -> list[object]:
        """Return the options of ``steps/report.py``."""
        folders = {"recipe": self.folder, "experiment": self.experiment, "tagger": self.tagger, "tags": self.tags}
        return [item for name, value in folders.items() for item in (f"--{name}", value)] + list(more)

    def report(self) -> str:
        return (self.folder / "exp/report/RESULTS.md").read_text(encoding="utf-8")

    def _network(self, folder: Path, name: str, validation: float, weights: bool) -> None:
        rows = [
            {
                "epoch": n,
                "loss": 2 / n + 0.1 * self.random.random(),
                "validation_accuracy": validation * n / self.epochs,
            }
            for n in range(1, self.epochs + 1)
        ]
        history = {"parameters": 714058 + len(name), "threads": 2, "best_epoch": self.epochs, "epochs": rows}
        _json(folder / "history.json", history)
        _json(folder / "provenance.json", RECORD)
        if weights:
            torch.manual_seed(0)
            trunk, system = TrunkConfig(8, (8, self.filters), True, code_size=8), self.records[name]
            network = SceneNetwork(trunk, system, len(self.scenes), self.events, 2)
            metadata = {"trunk": trunk, "system": system, "scenes": self.scenes, "channels": 2, "tags": self.events}
            metadata["tag_scale"] = "probability"
            save_weights(folder / WEIGHTS, network.state_dict(), to_json(metadata))

    def _scores(self, folder: Path, accuracy: float, network: bool) -> None:
        classifiers, names = {}, np.array(self.scenes)
        columns = {
            "clip": self.ids,
            "split": self.splits,
            "scene": names[self.scene_indices],
            "location": self.locations,
        }
        for classifier in ("svm", "svm_standardised", *(("softmax",) if network else ())):
            correct = 0.5 * self.hard + 0.5 * self.random.random(len(self.scene_indices)) < accuracy
            other = (self.scene_indices + 1 + (self.random.random(len(self.scene_indices)) < 0.3)) % len(names)
            columns[classifier] = names[np.where(correct, self.scene_indices, other)]
            classifiers[classifier] = {"scores": {}}
            if classifier != "softmax":
                classifiers[classifier] |= {
                    "chosen": {"kernel": "rbf", "C": 1.0, "validation_accuracy": 0.6},
                    "tried": [],
                }
            for split in ("test", "test+unused"):
                mask = np.isin(self.splits, split.split("+"))
                true, predictions = columns["scene"][mask], columns[classifier][mask]
                scores = {
                    "accuracy": float((true == predictions).mean()),
                    "class_averaged": balanced_accuracy_score(true, predictions),
                }
                classifiers[classifier]["scores"][split] = {"clips": int(mask.sum()), **scores}
        _json(folder / "scores.json", {"classifiers": classifiers})
        _json(folder / "provenance.json", RECORD)
        with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))

    def _paper(self, folder: Path, prefix: str, accuracy: float) -> None:
        epochs = [
            {"epoch": n, "kernel": kernel, "test": accuracy + 0.001 * n + bonus, "test+unused": accuracy + bonus}
            for n in range(1, self.epochs + 1)
            for kernel, bonus in (("rbf", 0.01), ("sigmoid", 0.0))
        ]
        trained_on = "train+validation" if prefix else "train"
        _json(folder / "test_by_epoch.json", {"trained_on": trained_on, "C": 1.0, "epochs": epochs})


def _json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
