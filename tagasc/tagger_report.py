"""What the report says of the tagger."""

from pathlib import Path

from tagasc import pictures
from tagasc.files import read_json
from tagasc.report import markdown
from tagasc.training import HISTORY, WEIGHTS


def tagger_section(tagger: Path, tags: Path, out: Path) -> list[str]:
    """Lines of Markdown on the tagger; its picture goes into ``out``.

    Args:
        tagger: folder of the tagger.
        tags: folder of the tag vectors.
        out: folder of the report.
    """
    lines = ["## Tagger", ""]
    if not (tagger / WEIGHTS).exists():
        return [*lines, f"{tagger.name}: not trained here.", ""]
    pictures.tagger_curve(read_json(tagger / HISTORY, "stage 3 (tagger)"), out / "tagger.png")
    scores = read_json(tagger / "scores.json", "stage 3 (tagger)")
    on_scenes = tags / "scores.json"
    rows = [
        (f"tagging corpus, {name}", f"{value:.3f}") for name, value in scores["lwlrap"].items() if value is not None
    ]
    if on_scenes.exists():
        found = read_json(on_scenes, "stage 4 (tags)")["lwlrap"]
        rows += [(f"scene clips, {name}", f"{value:.3f}") for name, value in found.items()]
    lines += [f"{tagger.name}, {scores['parameters']:,} parameters.", "", markdown((("clips", "lwlrap"), rows))]
    lines += ["![tagger](tagger.png)", ""]
    if scores["test_by_class"]:
        by_class = [(name, "" if value is None else f"{value:.3f}") for name, value in scores["test_by_class"].items()]
        lines += [
            "<details><summary>test lwlrap by class</summary>",
            "",
            markdown((("class", "lwlrap"), by_class)),
            "</details>",
            "",
        ]
    return lines
