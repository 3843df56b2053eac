"""What the report says of the tagger: its curves, its lwlrap, and where it goes wrong."""

from pathlib import Path

import numpy as np

from tagasc.report import figures
from tagasc.report.markdown import Table, markdown_table
from tagasc.tagger.inference import TAGGER
from tagasc.tagger.lwlrap import lwlrap_by_class
from tagasc.tagger.tags import TagVectors
from tagasc.training.result import HISTORY
from tagasc.utils.files import read_json, read_npz

_STAGE = "stage 3 (tagger)"
_CONFUSIONS, _EXAMPLES = 20, 8


def tagger_section(tagger: Path, tags: Path, out: Path, watermark: str = "") -> list[str]:
    """Lines of Markdown on the tagger; its picture goes into ``out``.

    Args:
        tagger: folder of the tagger.
        tags: folder of the tag vectors.
        out: folder of the report.
        watermark: a word on the picture; may be empty.
    """
    lines = ["## Tagger", ""]
    if not (tagger / TAGGER).exists():
        return [*lines, f"{tagger.name}: not trained here.", "", *_on_scenes(tags)]
    scores = read_json(tagger / "scores.json", _STAGE)
    histories = {"/".join(path.parts[-3:-1]): path for path in sorted(tagger.glob(f"fold*/stage*/{HISTORY}"))}
    curves = {name: read_json(path, _STAGE) for name, path in histories.items()}
    figures.plot_tagger_curves(curves, out / "tagger.png", watermark)
    networks = f"{scores['networks']} network{'s' if scores['networks'] > 1 else ''}"
    passes = "one joint pass of all streams a step" if scores["joint_pass"] else "each stream its own forward pass"
    lines += [f"{tagger.name}: {networks} of {scores['parameters']:,} parameters; {passes}.", ""]
    rows = [
        (stage, name, f"{value:.3f}")
        for stage, found in scores["lwlrap"].items()
        for name, value in found.items()
        if value is not None
    ]
    lines += [
        markdown_table((("tagging corpus", "clips", "lwlrap"), rows)),
        *_on_scenes(tags),
        "![tagger](tagger.png)",
        "",
    ]
    if any("leaks" in name for _, name, _ in rows):
        lines += ["*leaks*: the pseudo-labels come from networks that were trained on these held-out clips.", ""]
    if any("chosen on these" in name for _, name, _ in rows):
        lines += ["*chosen on these*: the network is the one that was best on these very clips.", ""]
    for name, title in (("test", "test clips"), ("out_of_fold", "held-out curated clips")):
        path = tagger / "predictions" / f"stage{len(scores['lwlrap'])}_{name}.npz"
        if path.exists():
            lines += _details(path, title)
    return lines


def event_table(tags: TagVectors, truth: np.ndarray) -> Table:
    """A row a class: its labels, its lwlrap, and the class that most often stands above it where it is present."""
    pairs = confused_events(tags, truth)
    rows = []
    for place, (name, value) in enumerate(zip(tags.classes, lwlrap_by_class(truth, tags.values), strict=True)):
        worst = next((tags.classes[other] for _, present, other in pairs if present == place), "")
        rows.append((name, str(truth[:, place].sum()), "" if np.isnan(value) else f"{value:.3f}", worst))
    return ("class", "labels", "lwlrap", "most often below"), rows


def confused_events(tags: TagVectors, truth: np.ndarray) -> list[tuple[int, int, int]]:
    """Pairs of classes that are ranked the wrong way round: (clips, present class, absent class above it), most first.

    Args:
        tags: of clips.
        truth: bool (clips, classes).
    """
    counts = np.zeros((truth.shape[1], truth.shape[1]), int)
    for labels, values in zip(truth, tags.values, strict=True):
        for present in np.flatnonzero(labels):
            counts[present] += (values > values[present]) & ~labels
    pairs = [(int(counts[present, above]), present, above) for present, above in np.argwhere(counts).tolist()]
    return sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))


def example_table(tags: TagVectors, truth: np.ndarray, count: int = _EXAMPLES) -> Table:
    """A row a clip, evenly spread over all clips with labels: its labels, and what the tagger hears first."""
    labelled = np.flatnonzero(truth.any(axis=1))
    rows = []
    for clip in labelled[np.unique(np.linspace(0, len(labelled) - 1, count).round().astype(int))]:
        first = np.argsort(-tags.values[clip], kind="stable")[:3]
        heard = ", ".join(f"{tags.classes[n]} {tags.values[clip, n]:.2f}" for n in first)
        rows.append((tags.ids[clip], ", ".join(np.array(tags.classes)[truth[clip]]), heard))
    return ("clip", "labels", "heard"), rows


def _on_scenes(tags: Path) -> list[str]:
    """lwlrap on scene clips whose events are known."""
    if not (tags / "scores.json").exists():
        return []
    found = read_json(tags / "scores.json", "stage 4 (tags)")["lwlrap"]
    rows = [(f"scene clips, {name}", f"{value:.3f}") for name, value in found.items()]
    return [markdown_table((("tags of", "lwlrap"), rows))]


def _details(path: Path, title: str) -> list[str]:
    tags, truth = TagVectors.read(path), read_npz(path, ("truth",), _STAGE)["truth"]
    if not truth.any():
        return []
    names = tags.classes
    pairs = [(names[present], names[other], str(clips)) for clips, present, other in confused_events(tags, truth)]
    return [
        f"<details><summary>{title}: class by class, confusions, examples</summary>",
        "",
        markdown_table(event_table(tags, truth)),
        f"Worst confusions: on how many clips a class that is present is ranked below one that is not (first "
        f"{min(_CONFUSIONS, len(pairs))} of {len(pairs)} pairs).",
        "",
        markdown_table((("present", "ranked above it", "clips"), pairs[:_CONFUSIONS])),
        "Examples, evenly spread over the clips:",
        "",
        markdown_table(example_table(tags, truth)),
        "</details>",
        "",
    ]
