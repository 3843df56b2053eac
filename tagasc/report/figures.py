"""The report's figures of accuracies and learning curves."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from tagasc.report.comparison import Difference
from tagasc.report.paper_tables import Grid
from tagasc.report.results import BASELINE, SystemResult
from tagasc.report.statistics import Interval
from tagasc.scene.systems import TAGS_ONLY
from tagasc.utils.files import write_bytes

matplotlib.use("Agg")

plt.rcParams.update({"figure.dpi": 130, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
plt.rcParams["text.parse_math"] = False  # a $ in a name is a $

MAX_COLOURED = 8  # curves that colours can distinguish
MAX_TALL_ROWS = 20  # more rows than this are drawn lower
COLOURS = matplotlib.color_sequences["petroff10"]  # distinguishable with colour-vision deficiency


def plot_accuracies(
    results: Sequence[SystemResult],
    intervals: Mapping[str, Interval],
    to_baseline: Mapping[str, Difference],
    path: Path,
    watermark: str = "",
) -> None:
    """Plot each system's accuracy on test and its difference to the baseline, with confidence intervals."""
    many = len(results) > MAX_TALL_ROWS
    panels = 2 if any(result.name in to_baseline for result in results) else 1
    height = (0.2 if many else 0.42) * len(results) + 1.2
    figure, axes = plt.subplots(1, panels, figsize=(9, height), layout="constrained", sharey=True, squeeze=False)
    left, right, size = axes[0][0], axes[0][-1], 5 if many else 8
    for row, result in enumerate(results):
        values = 100 * result.accuracy_by_seed("test")
        left.plot(values, [row] * len(values), "o", color=_colour(result), alpha=0.35, markersize=0.6 * size)
        _plot_interval(left, row, result, values.mean(), intervals[result.name], size)
        if result.name in to_baseline:
            difference = to_baseline[result.name]
            _plot_interval(right, row, result, 100 * difference.mean, difference.by_location, size)
    _mark_chance(left, 100 / len(results[0].clips.scene_names))
    left.set_xlabel("accuracy on test, %")
    if panels == 2:
        right.axvline(0, color="black", linewidth=0.8, zorder=0)
        right.set_xlabel("minus baseline, percentage points")
        right.tick_params(axis="y", length=0)
        _limit_to_ranked(right, results, to_baseline)
    for panel in axes[0]:
        for row in range(1, len(results)):
            if _group(results[row]) != _group(results[row - 1]):
                panel.axhline(row - 0.5, color="lightgrey", linewidth=0.8, zorder=0)
        panel.grid(axis="x", color="0.93")
        panel.set_axisbelow(True)
    left.set_yticks(range(len(results)), [result.title for result in results], fontsize=8 if many else 9)
    left.set_ylim(len(results) - 0.4, -0.9)
    caption = "lines: 95 % confidence intervals over locations; pale dots: seeds; hollow: uses the true label"
    figure.supxlabel(caption, fontsize=8)
    save_figure(figure, path, watermark)


def plot_confusions(results: Sequence[SystemResult], split: str, path: Path, watermark: str = "") -> None:
    """Plot the systems' confusion matrices next to each other."""
    scenes = results[0].clips.scene_names
    size = (4 * len(results) + 1, 4.5)
    figure, row = plt.subplots(1, len(results), figsize=size, layout="constrained", squeeze=False)
    for number, (result, axes) in enumerate(zip(results, row[0], strict=True)):
        shares = 100 * result.confusion_shares(split)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        for (true, predicted), share in np.ndenumerate(shares):
            if share >= 0.5:
                colour = "white" if share > 55 else "black"
                axes.text(predicted, true, f"{share:.0f}", ha="center", va="center", fontsize=7, color=colour)
        axes.set_xticks(range(len(scenes)), scenes, rotation=45, ha="right")
        axes.set_yticks(range(len(scenes)), scenes if number == 0 else [""] * len(scenes))
        axes.set_title(result.name)
        axes.set_xlabel("predicted scene (% of the true scene's clips)")
    row[0][0].set_ylabel("true scene")
    save_figure(figure, path, watermark)


def plot_curves(
    results: Sequence[SystemResult], highlighted: Sequence[SystemResult], path: Path, watermark: str = ""
) -> None:
    """Plot training loss and validation accuracy of each run; if there are many, only ``highlighted`` in colour."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
    trained = [result for result in results if result.parameters]
    coloured = trained if len(trained) <= MAX_COLOURED else list(highlighted)
    for result in sorted(trained, key=coloured.__contains__):
        bright = result in coloured
        colour = COLOURS[coloured.index(result) % len(COLOURS)] if bright else "0.8"
        for number, run in enumerate(run for run in result.runs if run.history):
            epochs = run.history["epochs"]
            style = {"color": colour, "linewidth": 1.2 if bright else 0.5, "zorder": 2 if bright else 1}
            style["label"] = result.title if bright and number == 0 else None
            left.plot([e["epoch"] for e in epochs], [e["loss"] for e in epochs], **style)
            right.plot([e["epoch"] for e in epochs], [100 * e["validation_accuracy"] for e in epochs], **style)
            if bright:
                best = epochs[run.history["best_epoch"] - 1]
                right.plot(best["epoch"], 100 * best["validation_accuracy"], "o", color=colour, markersize=5, zorder=3)
    if len(coloured) < len(trained):
        right.plot([], [], color="0.8", linewidth=1, label=f"{len(trained) - len(coloured)} others")
    _label_curves(left, right, "validation accuracy, % (dot: best epoch)")
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    save_figure(figure, path, watermark)


def plot_heat_maps(
    grids: Mapping[str, Grid], results: Mapping[str, SystemResult], split: str, path: Path, watermark: str = ""
) -> None:
    """Plot accuracy by heads and layers; colour is the difference to the baseline, hatched cells were not run."""
    baseline = results.get(BASELINE)
    values = {
        title: 100 * np.array([[_mean_accuracy(results.get(name), split) for name in row] for row in grid.names])
        for title, grid in grids.items()
    }
    every = np.concatenate([table.ravel() for table in values.values()])
    centre = np.nanmean(every) if baseline is None else 100 * _mean_accuracy(baseline, split)
    limit = np.nanmax(np.abs(every - centre))
    figure, row = plt.subplots(1, len(grids), figsize=(9, 4), layout="constrained", squeeze=False)
    for axes, (title, grid) in zip(row[0], grids.items(), strict=True):
        differences = values[title] - centre
        image = axes.imshow(differences, cmap="RdBu", vmin=-max(limit, 0.1), vmax=max(limit, 0.1), aspect="auto")
        for cell, difference in np.ndenumerate(differences):
            text = f"{values[title][cell]:.1f}" + ("" if baseline is None else f"\n{difference:+.1f}")
            _annotate(axes, cell, text, difference, limit)
        axes.set_xticks(range(len(grid.columns)), grid.columns)
        axes.set_yticks(range(len(grid.rows)), grid.rows)
        axes.set(title=title, xlabel="layers that transform the tags", ylabel="heads")
    label = "percentage points above the " + ("mean" if baseline is None else "baseline")
    figure.colorbar(image, ax=row[0].tolist(), label=label, shrink=0.9)
    save_figure(figure, path, watermark)


def plot_tagger_curves(histories: dict[str, dict[str, Any]], path: Path, watermark: str = "") -> None:
    """Plot the tagger's training loss and validation lwlrap, one curve per fold and stage."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for number, (name, history) in enumerate(histories.items()):
        epochs, style = history["epochs"], {"color": f"C{number % 10}", "linewidth": 1.2}
        left.plot([e["epoch"] for e in epochs], [e["loss"] for e in epochs], label=name, **style)
        right.plot([e["epoch"] for e in epochs], [e["validation_lwlrap"] for e in epochs], **style)
        ends = [e for e in epochs if e["score"] > 0]
        right.plot([e["epoch"] for e in ends], [e["score"] for e in ends], "o", color=style["color"], markersize=4)
    _label_curves(left, right, "validation lwlrap (dots: ends of cycles)")
    left.legend(fontsize=8, frameon=False)
    save_figure(figure, path, watermark)


def save_figure(figure: plt.Figure, path: Path, watermark: str = "") -> None:
    """Write a figure atomically, with a word in its corner, and close it."""
    if watermark:
        figure.suptitle(watermark, x=0.995, ha="right", fontsize=8, color="grey")
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:])
    plt.close(figure)
    write_bytes(path, content.getbuffer())


def _label_curves(loss: plt.Axes, score: plt.Axes, label: str) -> None:
    loss.set(xlabel="epoch", ylabel="training loss", yscale="log")
    loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    loss.yaxis.set_minor_locator(NullLocator())
    loss.yaxis.set_major_formatter("{x:g}")
    score.set(xlabel="epoch", ylabel=label)
    for axes in (loss, score):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _mean_accuracy(result: SystemResult | None, split: str) -> float:
    return float("nan") if result is None else float(result.accuracy_by_seed(split).mean())


def _annotate(axes: plt.Axes, cell: tuple[int, int], text: str, difference: float, limit: float) -> None:
    """Write into a cell of a heat map; hatch it if it was not run."""
    row, column = cell
    colour = "white" if abs(difference) > 0.6 * limit else "black"
    if np.isnan(difference):
        axes.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="///", edgecolor="0.8", lw=0))
        text, colour = "not run", "0.3"
    axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)


def _plot_interval(
    axes: plt.Axes, row: int, result: SystemResult, value: float, interval: Interval, size: float
) -> None:
    """Draw a dot and a line; the dot is hollow if the system uses the true label."""
    colour, hollow = _colour(result), {"markerfacecolor": "white"} if result.uses_the_label else {}
    axes.plot([100 * bound for bound in interval], [row, row], color=colour, linewidth=size / 4)
    axes.plot(value, row, "o", color=colour, markersize=size, **hollow)


def _limit_to_ranked(axes: plt.Axes, results: Sequence[SystemResult], to_baseline: Mapping[str, Difference]) -> None:
    """Limit the axis to the ranked systems and the controls near them; mark others by an arrow with their value."""
    every = [to_baseline[result.name] for result in results if result.name in to_baseline]
    ranked = [to_baseline[result.name] for result in results if result.is_ranked and result.name in to_baseline]
    low, high = _limits(ranked or every)
    low, high = _limits([difference for difference in every if low < 100 * difference.mean < high])
    axes.set_xlim(low, high)
    for row, result in enumerate(results):
        mean = 100 * to_baseline[result.name].mean if result.name in to_baseline else 0
        if not low < mean < high:
            edge, text = (0.99, f"{mean:+.0f} →") if mean > 0 else (0.01, f"← {mean:+.0f}")
            axes.annotate(
                text,
                (edge, row),
                xycoords=("axes fraction", "data"),
                ha="right" if mean > 0 else "left",
                va="center",
                fontsize=8,
                color="0.25",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )


def _limits(differences: Sequence[Difference]) -> tuple[float, float]:
    """Return limits around 0 and all intervals, in percentage points."""
    edges = [100 * edge for each in differences for edge in (each.mean, *each.by_location) if not np.isnan(edge)]
    low, high = min(0, *edges), max(0, *edges)
    margin = 0.15 * (high - low) + 0.5
    return low - margin, high + margin


def _mark_chance(axes: plt.Axes, chance: float) -> None:
    axes.axvline(chance, color="grey", linestyle=":", linewidth=1)
    axes.annotate("chance", (chance, -0.65), (4, 0), textcoords="offset points", color="grey", va="center", fontsize=8)


def _group(result: SystemResult) -> str:
    """Return the group of a system in the figure: the first word of its name, or "control"."""
    if result.name == TAGS_ONLY or "@" in result.name:
        return "control"
    return result.name.partition("_")[0].rstrip("0123456789")


def _colour(result: SystemResult) -> str:
    if result.name == BASELINE:
        return "black"
    return COLOURS[0] if result.is_ranked else COLOURS[1]
