"""The report's pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from tagasc.files import whole_file
from tagasc.metrics import location_bootstrap
from tagasc.report import SystemResult, scenes_of

plt.rcParams.update({"figure.dpi": 130, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})


def accuracies(results: Sequence[SystemResult], split: str, path: Path, note: str) -> None:
    """Accuracy of each system with its interval over locations; a dot a seed."""
    figure, axes = plt.subplots(figsize=(7, 0.45 * len(results) + 1.3), layout="constrained")
    for row, result in enumerate(results):
        run = result.runs[0]
        low, high = location_bootstrap(result.right(split), run.predictions["location"][run.of(split)])
        values = 100 * result.accuracies(split)
        axes.plot([100 * low, 100 * high], [row, row], color="C0", linewidth=2)
        axes.plot(values, [row] * len(values), "o", color="C0", alpha=0.35, markersize=5)
        axes.plot(values.mean(), row, "o", color="C0", markersize=8)
    chance = 100 / len(scenes_of(results))
    axes.axvline(chance, color="grey", linestyle=":", linewidth=1)
    axes.annotate("chance", (chance, -0.65), (4, 0), textcoords="offset points", color="grey", va="center", fontsize=8)
    axes.set_yticks(range(len(results)), [result.name for result in results])
    axes.set_ylim(len(results) - 0.4, -0.9)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"accuracy on {split}, % (line: 95 % interval over locations){note}")
    _save(figure, path)


def confusions(results: Sequence[SystemResult], split: str, path: Path) -> None:
    """Confusion matrices side by side."""
    scenes = scenes_of(results)
    figure, row = plt.subplots(
        1, len(results), figsize=(4.6 * len(results) + 0.8, 4.8), layout="constrained", squeeze=False
    )
    for number, (result, axes) in enumerate(zip(results, row[0], strict=True)):
        shares = 100 * result.confusion(split, scenes)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        for (true, named), share in np.ndenumerate(shares):
            if share >= 0.5:
                axes.text(
                    named,
                    true,
                    f"{share:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if share > 55 else "black",
                )
        axes.set_xticks(range(len(scenes)), scenes, rotation=45, ha="right")
        axes.set_yticks(range(len(scenes)), scenes if number == 0 else [""] * len(scenes))
        axes.set_title(result.name)
        axes.set_xlabel("recognised as (% of the scene's clips)")
    row[0][0].set_ylabel("true scene")
    _save(figure, path)


def curves(results: Sequence[SystemResult], path: Path) -> None:
    """Training loss and validation accuracy by epoch; a line a run."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for number, result in enumerate(results):
        for first, run in zip([True] + [False] * len(result.runs), result.runs, strict=False):
            epochs = run.history["epochs"]
            style = {
                "color": f"C{number % 10}",
                "alpha": 0.8,
                "linewidth": 1.2,
                "label": result.name if first else None,
            }
            left.plot([e["epoch"] for e in epochs], [e["loss"] for e in epochs], **style)
            right.plot([e["epoch"] for e in epochs], [100 * e["validation_accuracy"] for e in epochs], **style)
            best = epochs[run.history["best_epoch"] - 1]
            right.plot(best["epoch"], 100 * best["validation_accuracy"], "o", color=f"C{number % 10}", markersize=5)
    left.set(xlabel="epoch", ylabel="training loss", yscale="log")
    right.set(xlabel="epoch", ylabel="validation accuracy, % (dot: kept epoch)")
    if len(results) <= 12:
        right.legend(fontsize=8, frameon=False)
    _save(figure, path)


def tagger_curves(histories: dict[str, dict[str, Any]], path: Path) -> None:
    """The tagger's loss and validation lwlrap by epoch; a line for each stage of each fold."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for number, (name, history) in enumerate(histories.items()):
        epochs, style = history["epochs"], {"color": f"C{number % 10}", "linewidth": 1.2}
        left.plot([e["epoch"] for e in epochs], [e["loss"] for e in epochs], label=name, **style)
        right.plot([e["epoch"] for e in epochs], [e["validation_lwlrap"] for e in epochs], **style)
        ends = [e for e in epochs if e["score"] > 0]
        right.plot([e["epoch"] for e in ends], [e["score"] for e in ends], "o", color=style["color"], markersize=4)
    left.set(xlabel="epoch", ylabel="training loss", yscale="log")
    right.set(xlabel="epoch", ylabel="validation lwlrap (dots: cycles' ends)")
    left.legend(fontsize=8, frameon=False)
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    with whole_file(path) as beside:
        figure.savefig(beside)
    plt.close(figure)
