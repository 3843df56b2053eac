"""The report's sections on groups of test clips, by any field of a supervision: device, city, a column of a table.

A group is *unseen* if no training or validation clip has its value. Unseen groups are marked and summed apart, because
a mean over all groups hides how well a system generalises. ``output.csv`` has the form that DCASE asks for.
"""

import csv
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tagasc.audio.manifests import clip_fields
from tagasc.backend.codes import Codes
from tagasc.report.comparison import Comparison
from tagasc.report.markdown import Table, escape, format_interval, format_mean, format_points, markdown_table
from tagasc.report.results import SOFTMAX, ScoredClips, SystemResult
from tagasc.report.statistics import bootstrap
from tagasc.scene.training import load_scene_network
from tagasc.utils.errors import UserError
from tagasc.utils.files import write_text

AUTO = "auto"
MAX_GROUPS = 30  # of a field, to be shown without being asked for
OUTPUT = "output.csv"
_IDENTIFYING = ("joined", "location", "segment", "source", "usage")  # fields that tell recordings apart, no groups
_TRAINING = ("train", "validation")

Fields = dict[str, dict[str, str]]  # fields by clip


@dataclass(frozen=True)
class Grouping:
    """Test clips by the values of one field.

    Attributes:
        field: name of the field.
        values: value of each test clip, str (clips,).
        seen: values that a training or validation clip has.
    """

    field: str
    values: np.ndarray
    seen: frozenset[str]

    @property
    def groups(self) -> list[str]:
        """Values of the test clips in alphabetical order."""
        return sorted(set(self.values.tolist()))

    def title(self, group: str) -> str:
        """Return a group's name, marked if it is unseen."""
        return group if group in self.seen else f"{group} (unseen)"

    def masks(self) -> dict[str, np.ndarray]:
        """Return masks of the test clips: of each group, and of all seen and all unseen ones if there are both."""
        masks = {self.title(group): self.values == group for group in self.groups}
        seen = np.isin(self.values, sorted(self.seen))
        return masks | ({"all seen": seen, "all unseen": ~seen} if 0 < seen.sum() < len(seen) else {})


class ClipFields:
    """Fields of the supervisions of a corpus, from its cut manifests."""

    def __init__(self, manifests: Path, corpus: str) -> None:
        """Name the manifests; nothing is read yet.

        Args:
            manifests: folder of the manifests (stage 1).
            corpus: name of the corpus.
        """
        self._manifests, self._corpus = manifests, corpus

    def of_split(self, split: str) -> Fields:
        """Read a split's fields by clip.

        Raises:
            UserError: the manifest is missing or damaged.
        """
        return clip_fields(self._manifests / f"{self._corpus}_cuts_{split}.jsonl.gz")

    def of_test(self, clips: ScoredClips) -> list[dict[str, str]]:
        """Return the fields of the test clips, in their order.

        Raises:
            UserError: the manifests list other clips.
        """
        fields, ids = self.of_split("test"), clips.ids[clips.in_split("test")].tolist()
        missing = [clip for clip in ids if clip not in fields]
        if missing:
            raise UserError(
                f"{self._manifests} lists no test clip {missing[0]}, which was scored; run stages 1 to 7 again"
            )
        return [fields[clip] for clip in ids]

    def groupings(self, clips: ScoredClips, names: str) -> list[Grouping]:
        """Group the test clips.

        Args:
            clips: scored clips.
            names: fields, separated by spaces; ``auto`` takes those of 2 to ``MAX_GROUPS`` values.

        Raises:
            UserError: a clip lacks a field that is named.
        """
        test = self.of_test(clips)
        for name in () if names == AUTO else names.split():
            if not all(name in fields for fields in test):
                known = ", ".join(sorted(_texts(test[0])))
                raise UserError(f"no field {name!r} in {self._manifests}; known are {known}: change --groups")
        chosen = _automatic(test) if names == AUTO else names.split()
        if not chosen:
            return []
        trained = [fields for split in _TRAINING for fields in self.of_split(split).values()]
        return [
            Grouping(
                name,
                np.array([str(fields[name]) for fields in test]),
                frozenset(str(fields[name]) for fields in trained if name in fields),
            )
            for name in chosen
        ]


def _texts(fields: dict) -> list[str]:
    """Return the names of the fields that are texts and do not identify a recording."""
    return [name for name, value in fields.items() if isinstance(value, str) and name not in _IDENTIFYING]


def _automatic(test: list[dict]) -> list[str]:
    """Return the fields that all test clips have, with 2 to ``MAX_GROUPS`` values."""
    common = [name for name in _texts(test[0]) if all(name in fields for fields in test)]
    return sorted(name for name in common if 2 <= len({fields[name] for fields in test}) <= MAX_GROUPS)


def group_sections(comparison: Comparison, manifests: Path, corpus: str, names: str = AUTO) -> list[str]:
    """Show the accuracy by group of each field, and write ``output.csv``.

    Args:
        comparison: results.
        manifests: folder of the manifests (stage 1).
        corpus: name of the corpus.
        names: fields, separated by spaces, or ``auto``.
    """
    fields = ClipFields(manifests, corpus)
    lines = _or_reason("## Accuracy by group", lambda: _groups(comparison, fields, names))
    return lines + _or_reason(f"## {OUTPUT}", lambda: _output(comparison, fields))


def _or_reason(title: str, section: Callable[[], list[str]]) -> list[str]:
    """Return a section, or its title and the line that says why it is missing."""
    try:
        return section()
    except UserError as error:
        return [title, "", f"Not shown: {escape(str(error))}", ""]


def _groups(comparison: Comparison, fields: ClipFields, names: str) -> list[str]:
    shown, lines = comparison.baseline_and_best, []
    for grouping in fields.groupings(comparison.best.clips, names):
        name, unseen = escape(grouping.field), [group for group in grouping.groups if group not in grouping.seen]
        lines += [
            f"## Accuracy by {name}",
            "",
            f"{escape(' and '.join(result.name for result in shown))}: accuracy on test in %, mean ± standard deviation"
            " over seeds, with intervals over locations."
            + (" *unseen*: no training or validation clip has this value." if unseen else ""),
            "",
            markdown_table(group_table(shown, grouping)),
            f"<details><summary>{escape(comparison.best.name)}: accuracy in % by scene and {name}</summary>",
            "",
            markdown_table(scene_by_group_table(comparison.best, grouping)),
            "</details>",
            "",
        ]
    return lines


def group_table(results: list[SystemResult], grouping: Grouping) -> Table:
    """Tabulate each system's accuracy by group, mean ± deviation over seeds; for two systems also their difference."""
    clips = results[0].clips
    locations = clips.locations[clips.in_split("test")]
    header = [grouping.field, "clips", "locations"]
    for result in results:
        header += [f"{result.name} %", "95 % CI"]
    if len(results) == 2:
        header += [f"{results[1].name} minus {results[0].name}", "95 % CI (locations)"]
    correct, rows = [result.correct_by_seed("test") for result in results], []
    for title, mask in grouping.masks().items():
        units, by_clip = locations[mask], [values[:, mask].mean(axis=0) for values in correct]
        row = [title, str(mask.sum()), str(len(set(units)))]
        for values, mean in zip(correct, by_clip, strict=True):
            row += [format_mean(values[:, mask].mean(axis=1)), format_interval(tuple(bootstrap(mean, units)))]
        if len(results) == 2:
            difference = by_clip[1] - by_clip[0]
            interval = tuple(bootstrap(difference, units))
            row += [format_points(difference.mean()), format_interval(interval, "+.1f")]
        rows.append(row)
    return header, rows


def scene_by_group_table(result: SystemResult, grouping: Grouping) -> Table:
    """Tabulate a system's accuracy by scene (rows) and group (columns), mean over seeds, as DCASE's tables do."""
    clips, by_clip = result.clips, result.accuracy_by_clip("test")
    truth = clips.scene_indices[clips.in_split("test")]
    masks = {"all": np.ones(len(truth), bool), **grouping.masks()}
    scenes = {name: truth == index for index, name in enumerate(clips.scene_names)} | {"all scenes": masks["all"]}
    share = lambda mask: f"{100 * by_clip[mask].mean():.1f}" if mask.any() else ""
    return ("scene", *masks), [
        (name, *(share(scene & mask) for mask in masks.values())) for name, scene in scenes.items()
    ]


def _output(comparison: Comparison, fields: ClipFields) -> list[str]:
    """Write DCASE's file of predictions, and describe it."""
    best = comparison.best
    run, clips = best.runs[0], best.clips
    network, metadata = load_scene_network(run.paths.weights)
    path = run.paths.codes_of("test")
    codes = Codes.read(path)
    same_clips = np.array_equal(codes.ids, clips.ids[clips.in_split("test")])
    if not same_clips or codes.codes.shape[1] != network.output.in_features:
        raise UserError(f"{path} does not belong to what was scored; run stages 6 (codes) and 7 (svm) again")
    with torch.inference_mode():
        probabilities = network.output(torch.from_numpy(codes.codes)).softmax(dim=1).numpy()
    names = _file_names(codes.ids.tolist(), [each["source"] for each in fields.of_test(clips)])
    write_text(comparison.out / OUTPUT, output_table(names, probabilities, metadata["scenes"]))
    accuracy = run.classifiers.get(SOFTMAX, {}).get("scores", {}).get("test", {}).get("accuracy")
    reached = "" if accuracy is None else f", which reaches {100 * accuracy:.1f} %"
    return [
        f"## {OUTPUT}",
        "",
        f"The probabilities of {escape(best.name)}, seed {run.seed}, for the test clips, in the form of DCASE's"
        f" submissions: its network's softmax{reached}. The SVM gives no probabilities; its predictions are in"
        f" `{escape(os.path.relpath(run.paths.predictions, run.paths.experiment))}` of the experiment.",
        "",
    ]


def output_table(names: list[str], probabilities: np.ndarray, scenes: list[str]) -> str:
    """Return DCASE's table of predictions: filename, scene_label, and a probability for each scene; tab-separated.

    Args:
        names: file name of each clip.
        probabilities: float (clips, scenes).
        scenes: names of the scenes.
    """
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(("filename", "scene_label", *scenes))
    for name, row in zip(names, probabilities, strict=True):
        writer.writerow((name, scenes[int(row.argmax())], *(f"{value:.6f}" for value in row)))
    return text.getvalue()


def _file_names(ids: list[str], sources: list[str]) -> list[str]:
    """Return the files' paths from the folder above the one that holds them all, such as audio/tram-1.wav."""
    folder = os.path.dirname(os.path.commonpath([os.path.dirname(source) for source in sources]))
    whole = len(set(sources)) == len(ids)
    return [os.path.relpath(source, folder) for source in sources] if whole else ids
