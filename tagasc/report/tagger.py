"""The report's section on the tagger: learning curves, lwlrap, confusions and examples."""

from pathlib import Path

import numpy as np

from tagasc.report import figures
from tagasc.report.markdown import Table, escape, markdown_table
from tagasc.tagger.inference import TAGGER
from tagasc.tagger.lwlrap import lwlrap_by_class
from tagasc.tagger.tags import TagVectors
from tagasc.training.result import find_history
from tagasc.utils import provenance
from tagasc.utils.files import read_json, read_npz

_STAGE = "stage 3 (tagger)"
_PAIRS, _EXAMPLES = 20, 8


def tagger_section(tagger: Path, tags: Path, out: Path, watermark: str = "") -> list[str]:
    """Describe the tagger in lines of Markdown; write its figure into ``out``.

    Args:
        tagger: folder of the tagger.
        tags: folder of the tag vectors.
        out: folder of the report.
        watermark: word in the corner of the figure; may be empty.

    Raises:
        UserError: a file of the tagger is damaged or lost.
    """
    lines = ["## Tagger", ""]
    if not (tagger / TAGGER).exists():
        return [*lines, f"{escape(tagger.name)}: not trained here.", "", *_lwlrap_on_scenes(tags)]
    provenance.require_present(tagger, _STAGE)
    scores = read_json(tagger / "scores.json", _STAGE)
    folders = {"/".join(path.parts[-2:]): path for path in sorted(tagger.glob("fold*/stage*"))}
    curves = {name: curve for name, path in folders.items() if (curve := find_history(path))}
    figures.plot_tagger_curves(curves, out / "tagger.png", watermark)
    networks = f"{scores['networks']} network{'s' if scores['networks'] > 1 else ''}"
    passes = "one joint forward pass per step" if scores["joint_pass"] else "a separate forward pass for each stream"
    lines += [f"{escape(tagger.name)}: {networks} of {scores['parameters']:,} parameters; {passes}.", ""]
    rows = [
        (stage, clips, f"{value:.3f}")
        for stage, by_clips in scores["lwlrap"].items()
        for clips, value in by_clips.items()
        if value is not None
    ]
    header = ("training", "clips of the tagging corpus", "lwlrap")
    lines += [markdown_table((header, rows)), *_lwlrap_on_scenes(tags), "![tagger](tagger.png)", ""]
    if any("leaks" in clips for _, clips, _ in rows):
        lines += ["*leaks*: the networks that made the pseudo-labels were trained on these held-out clips.", ""]
    if any("chosen on these" in clips for _, clips, _ in rows):
        lines += ["*chosen on these*: the network was selected by its lwlrap on these clips.", ""]
    for name, title in (("test", "test clips"), ("out_of_fold", "held-out curated clips")):
        path = tagger / "predictions" / f"stage{len(scores['lwlrap'])}_{name}.npz"
        if path.exists():  # without test clips there are no tags of them
            lines += _details(path, title)
    return lines


def event_table(tags: TagVectors, truth: np.ndarray) -> Table:
    """Tabulate the classes: labels, lwlrap, and the absent class most often ranked above it."""
    pairs = confused_events(tags, truth)
    rows = []
    for index, (name, value) in enumerate(zip(tags.classes, lwlrap_by_class(truth, tags.values), strict=True)):
        worst = next((tags.classes[absent] for _, present, absent in pairs if present == index), "")
        rows.append((name, str(truth[:, index].sum()), "" if np.isnan(value) else f"{value:.3f}", worst))
    return ("class", "labels", "lwlrap", "most often ranked above it"), rows


def confused_events(tags: TagVectors, truth: np.ndarray) -> list[tuple[int, int, int]]:
    """Count pairs of classes ranked in the wrong order: (clips, present class, absent class above it), most first.

    Args:
        tags: predicted tags of the clips.
        truth: labels, bool (clips, classes).
    """
    counts = np.zeros((truth.shape[1], truth.shape[1]), int)
    for labels, values in zip(truth, tags.values, strict=True):
        for present in np.flatnonzero(labels):
            counts[present] += (values > values[present]) & ~labels
    pairs = [(int(counts[present, absent]), present, absent) for present, absent in np.argwhere(counts).tolist()]
    return sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))


def example_table(tags: TagVectors, truth: np.ndarray, count: int = _EXAMPLES) -> Table:
    """Tabulate labels and highest tags of ``count`` labelled clips, evenly spaced in the data set."""
    labelled = np.flatnonzero(truth.any(axis=1))
    rows = []
    for clip in labelled[np.unique(np.linspace(0, len(labelled) - 1, count).round().astype(int))]:
        top = np.argsort(-tags.values[clip], kind="stable")[:3]
        predicted = ", ".join(f"{tags.classes[n]} {tags.values[clip, n]:.2f}" for n in top)
        rows.append((tags.ids[clip], ", ".join(np.array(tags.classes)[truth[clip]]), predicted))
    return ("clip", "labels", "highest tags"), rows


def _lwlrap_on_scenes(tags: Path) -> list[str]:
    """Tabulate lwlrap on scene clips whose events are known."""
    if not (tags / "scores.json").exists():
        return []
    scores = read_json(tags / "scores.json", "stage 4 (tags)")["lwlrap"]
    rows = [(f"scene clips, {split}", f"{value:.3f}") for split, value in scores.items()]
    return [markdown_table((("tags of", "lwlrap"), rows))]


def _details(path: Path, title: str) -> list[str]:
    """List classes, confusions and examples of one set of clips."""
    tags, truth = TagVectors.read(path, _STAGE), read_npz(path, ("truth",), _STAGE)["truth"]
    if not truth.any():
        return []
    names = tags.classes
    pairs = [(names[present], names[absent], str(clips)) for clips, present, absent in confused_events(tags, truth)]
    return [
        f"<details><summary>{title}: classes, confusions, examples</summary>",
        "",
        markdown_table(event_table(tags, truth)),
        "Most frequent confusions: number of clips on which a present class is ranked below an absent class (first "
        f"{min(_PAIRS, len(pairs))} of {len(pairs)} pairs).",
        "",
        markdown_table((("present class", "absent class above it", "clips"), pairs[:_PAIRS])),
        "Examples, evenly spaced in the data set:",
        "",
        markdown_table(example_table(tags, truth)),
        "</details>",
        "",
    ]
