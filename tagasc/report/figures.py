"""The report's pictures of what was measured."""

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
from tagasc.utils.files import atomic_file

matplotlib.use("Agg")

plt.rcParams.update({"figure.dpi": 130, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})

FEW = 8  # so many lines can be told apart by colour
FEW_ROWS = 20
COLOURS = matplotlib.color_sequences["petroff10"]  # told apart with colour-blind eyes too


def plot_accuracies(
    results: Sequence[SystemResult],
    intervals: Mapping[str, Interval],
    to_baseline: Mapping[str, Difference],
    path: Path,
    watermark: str = "",
) -> None:
    """Accuracy on test of each system with its interval, a pale dot a seed, and its difference to the baseline."""
    many = len(results) > FEW_ROWS
    panels = 2 if any(result.name in to_baseline for result in results) else 1
    height = (0.2 if many else 0.42) * len(results) + 1.2
    figure, row = plt.subplots(1, panels, figsize=(9, height), layout="constrained", sharey=True, squeeze=False)
    left, right, size = row[0][0], row[0][-1], 5 if many else 8
    for place, result in enumerate(results):
        values = 100 * result.accuracy_by_seed("test")
        left.plot(values, [place] * len(values), "o", color=_colour(result), alpha=0.35, markersize=0.6 * size)
        _plot_interval(left, place, result, values.mean(), intervals[result.name], size)
        if result.name in to_baseline:
            _plot_interval(
                right, place, result, 100 * to_baseline[result.name].mean, to_baseline[result.name].by_location, size
            )
    _mark_chance(left, 100 / len(results[0].clips.scene_names))
    left.set_xlabel("accuracy on test, %")
    if panels == 2:
        right.axvline(0, color="black", linewidth=0.8, zorder=0)
        right.set_xlabel("minus baseline, points")
        right.tick_params(axis="y", length=0)
        _focus(right, results, to_baseline)
    for axes in row[0]:
        for place in range(1, len(results)):
            if _group(results[place]) != _group(results[place - 1]):
                axes.axhline(place - 0.5, color="lightgrey", linewidth=0.8, zorder=0)
        axes.grid(axis="x", color="0.93")
        axes.set_axisbelow(True)
    left.set_yticks(range(len(results)), [result.title for result in results], fontsize=8 if many else 9)
    left.set_ylim(len(results) - 0.4, -0.9)
    figure.supxlabel("lines: 95 % intervals over locations", fontsize=8)
    save_figure(figure, path, watermark)


def plot_confusions(results: Sequence[SystemResult], split: str, path: Path, watermark: str = "") -> None:
    """Confusion matrices side by side."""
    scenes = results[0].clips.scene_names
    figure, row = plt.subplots(
        1, len(results), figsize=(4 * len(results) + 1, 4.5), layout="constrained", squeeze=False
    )
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
        axes.set_xlabel("recognised as (% of the scene's clips)")
    row[0][0].set_ylabel("true scene")
    save_figure(figure, path, watermark)


def plot_curves(
    results: Sequence[SystemResult], shown: Sequence[SystemResult], path: Path, watermark: str = ""
) -> None:
    """Training loss and validation accuracy by epoch; a line a run; where they are many, all but ``shown`` grey."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
    trained = [result for result in results if result.parameters]
    coloured = trained if len(trained) <= FEW else list(shown)
    for result in sorted(trained, key=coloured.__contains__):
        bright = result in coloured
        colour = COLOURS[coloured.index(result) % len(COLOURS)] if bright else "0.8"
        for number, run in enumerate(result.runs):
            epochs = run.history["epochs"]
            style = {"color": colour, "linewidth": 1.2 if bright else 0.5, "zorder": 2 if bright else 1}
            style["label"] = result.title if bright and number == 0 else None
            left.plot([e["epoch"] for e in epochs], [e["loss"] for e in epochs], **style)
            right.plot([e["epoch"] for e in epochs], [100 * e["validation_accuracy"] for e in epochs], **style)
            if bright:
                best = epochs[run.history["best_epoch"] - 1]
                right.plot(best["epoch"], 100 * best["validation_accuracy"], "o", color=colour, markersize=5, zorder=3)
    if len(coloured) < len(trained):
        right.plot([], [], color="0.8", linewidth=1, label=f"the {len(trained) - len(coloured)} others")
    _label_curves(left, right, "validation accuracy, % (dot: kept epoch)")
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    save_figure(figure, path, watermark)


def plot_heat_maps(
    grids: Mapping[str, Grid], results: Mapping[str, SystemResult], split: str, path: Path, watermark: str = ""
) -> None:
    """Accuracy by heads × layers; colour is the difference to the baseline, hatched what was not run."""
    base = results.get(BASELINE)
    origin = None if base is None else base.accuracy_by_seed(split).mean()
    values = {
        title: np.array([[_mean_accuracy(results.get(name), split) for name in row] for row in layout.names])
        for title, layout in grids.items()
    }
    every = np.concatenate([table.ravel() for table in values.values()])
    reach = 100 * np.nanmax(np.abs(every - (origin if origin is not None else np.nanmean(every))))
    centre = 100 * (origin if origin is not None else np.nanmean(every))
    figure, row = plt.subplots(1, len(grids), figsize=(9, 4), layout="constrained", squeeze=False)
    for axes, (title, layout) in zip(row[0], grids.items(), strict=True):
        shown = 100 * values[title] - centre
        image = axes.imshow(shown, cmap="RdBu", vmin=-max(reach, 0.1), vmax=max(reach, 0.1), aspect="auto")
        for (r, c), difference in np.ndenumerate(shown):
            _annotate(axes, r, c, centre, difference, base is not None, abs(difference) > 0.6 * reach)
        axes.set_xticks(range(len(layout.columns)), layout.columns)
        axes.set_yticks(range(len(layout.rows)), layout.rows)
        axes.set(title=title, xlabel="layers that transform the tags", ylabel="heads")
    label = "points above or below the " + ("baseline" if base is not None else "mean")
    figure.colorbar(image, ax=row[0].tolist(), label=label, shrink=0.9)
    save_figure(figure, path, watermark)


def plot_tagger_curves(histories: dict[str, dict[str, Any]], path: Path, watermark: str = "") -> None:
    """The tagger's loss and validation lwlrap by epoch; a line for each stage of each fold."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for number, (name, history) in enumerate(histories.items()):
        epochs, style = history["epochs"], {"color": f"C{number % 10}", "linewidth": 1.2}
        left.plot([e["epoch"] for e in epochs], [e["loss"] for e in epochs], label=name, **style)
        right.plot([e["epoch"] for e in epochs], [e["validation_lwlrap"] for e in epochs], **style)
        ends = [e for e in epochs if e["score"] > 0]
        right.plot([e["epoch"] for e in ends], [e["score"] for e in ends], "o", color=style["color"], markersize=4)
    _label_curves(left, right, "validation lwlrap (dots: cycles' ends)")
    left.legend(fontsize=8, frameon=False)
    save_figure(figure, path, watermark)


def save_figure(figure: plt.Figure, path: Path, watermark: str = "") -> None:
    """Write a picture whole or not at all, with a note in its corner, and forget the figure."""
    if watermark:
        figure.suptitle(watermark, x=0.995, ha="right", fontsize=8, color="grey")
    with atomic_file(path) as beside:
        figure.savefig(beside)
    plt.close(figure)


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


def _annotate(
    axes: plt.Axes, row: int, column: int, centre: float, difference: float, compared: bool, dark: bool
) -> None:
    if np.isnan(difference):
        axes.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="///", edgecolor="0.8", lw=0))
        text, colour = "not run", "0.3"
    else:
        text, colour = f"{centre + difference:.1f}", "white" if dark else "black"
        text += f"\n{difference:+.1f}" if compared else ""
    axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)


def _plot_interval(axes: plt.Axes, row: int, result: SystemResult, value: float, bounds: Interval, size: float) -> None:
    """A dot and a line; the dot is hollow where the true label was used."""
    colour, hollow = _colour(result), {"markerfacecolor": "white"} if result.uses_the_label else {}
    axes.plot([100 * bound for bound in bounds], [row, row], color=colour, linewidth=size / 4)
    axes.plot(value, row, "o", color=colour, markersize=size, **hollow)


def _focus(axes: plt.Axes, results: Sequence[SystemResult], to_baseline: Mapping[str, Difference]) -> None:
    """Limits that hold every ranked system and the controls near them; an arrow and a figure where one lies beyond."""
    every = [to_baseline[result.name] for result in results if result.name in to_baseline]
    ranked = [to_baseline[result.name] for result in results if result.is_ranked and result.name in to_baseline]
    low, high = _limits(ranked or every)
    low, high = _limits([one for one in every if low < 100 * one.mean < high])
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
    """Around 0 and all intervals, in points."""
    edges = [100 * edge for one in differences for edge in (one.mean, *one.by_location) if not np.isnan(edge)]
    low, high = min(0, *edges), max(0, *edges)
    margin = 0.15 * (high - low) + 0.5
    return low - margin, high + margin


def _mark_chance(axes: plt.Axes, chance: float) -> None:
    axes.axvline(chance, color="grey", linestyle=":", linewidth=1)
    axes.annotate("chance", (chance, -0.65), (4, 0), textcoords="offset points", color="grey", va="center", fontsize=8)


def _group(result: SystemResult) -> str:
    """What stands together in a picture: systems by the first word of their names, controls, tags alone."""
    if result.name == TAGS_ONLY or "@" in result.name:
        return "control"
    return result.name.partition("_")[0].rstrip("0123456789")


def _colour(result: SystemResult) -> str:
    if result.name == BASELINE:
        return "black"
    return COLOURS[0] if result.is_ranked else COLOURS[1]
