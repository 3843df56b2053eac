"""The report's figures of tags, attention and codes by scene."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from tagasc.report.figures import COLOURS, save_figure
from tagasc.report.statistics import mean_by_scene

_MARKERS = "os^Dv<>P"


def plot_scene_tags(
    means: np.ndarray, scenes: Sequence[str], events: Sequence[str], path: Path, watermark: str = ""
) -> None:
    """Plot mean tags, (scenes, events); the colours of an event range from 0 to its highest mean."""
    figure, axes = plt.subplots(figsize=(9, 0.32 * len(events) + 2), layout="constrained")
    axes.imshow((means / means.max(axis=0).clip(min=1e-12)).T, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (scene, event), value in np.ndenumerate(means):
        dark = value > 0.55 * means[:, event].max()
        text = f"{value:.2f}" if value >= 0.095 else f"{value:.3f}"
        axes.text(scene, event, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.set_xticks(range(len(scenes)), scenes, rotation=30, ha="right")
    axes.set_yticks(range(len(events)), [event.replace("_", " ") for event in events])
    axes.set_xlabel("number: mean tag; colour: relative to the event's highest mean")
    save_figure(figure, path, watermark)


def plot_attention(
    maps: np.ndarray, scene_indices: np.ndarray, scenes: Sequence[str], path: Path, watermark: str = ""
) -> None:
    """Plot the mean attention of each filter over all clips, and each scene's difference from it, by head.

    Args:
        maps: attention maps relative to uniform attention, (clips, heads, filters per head).
        scene_indices: scene of each clip as an index into ``scenes``, (clips,).
        scenes: names of the scenes.
        path: file to write.
        watermark: word in the corner; may be empty.
    """
    order = np.argsort(-maps.mean(axis=0), axis=1)
    by_filter = np.take_along_axis(maps, order[None], axis=2).reshape(len(maps), -1)
    heads, filters = maps.shape[1:]
    overall = by_filter.mean(axis=0)
    differences = mean_by_scene(by_filter, scene_indices, len(scenes)) - overall
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(9, 0.28 * len(scenes) + 3.2), layout="constrained", sharex=True, height_ratios=[1, 2]
    )
    above.bar(range(len(overall)), overall, width=1, color=COLOURS[0])
    above.axhline(1, color="grey", linestyle=":", linewidth=1)
    above.set_ylabel("mean attention\n(1: uniform)")
    # The 99th percentile, so that a single filter does not make all others pale.
    limit = max(float(np.percentile(np.abs(differences), 99)), 1e-6)
    image = below.imshow(differences, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="none")
    below.set_yticks(range(len(scenes)), scenes)
    below.set_xticks([filters * (n + 0.5) - 0.5 for n in range(heads)], [str(n + 1) for n in range(heads)])
    below.set_xlabel("head; filters within a head in decreasing order of mean attention")
    for axes in (above, below):
        for head in range(1, heads):
            axes.axvline(filters * head - 0.5, color="black", linewidth=0.7)
    figure.colorbar(image, ax=below, label="scene minus overall mean", extend="both")
    save_figure(figure, path, watermark)


def plot_code_map(
    codes: Mapping[str, np.ndarray], scene_indices: np.ndarray, scenes: Sequence[str], path: Path, watermark: str = ""
) -> None:
    """Plot the t-SNE of the same clips' codes, one panel per system.

    Args:
        codes: codes by title of the panel, (clips, code size).
        scene_indices: scene of each clip as an index into ``scenes``, (clips,).
        scenes: names of the scenes.
        path: file to write.
        watermark: word in the corner; may be empty.
    """
    figure, row = plt.subplots(1, len(codes), figsize=(9, 5.4), layout="constrained", squeeze=False)
    for axes, (title, values) in zip(row[0], codes.items(), strict=True):
        perplexity = min(30.0, (len(values) - 1) / 3)
        with threadpool_limits(1):  # on shared cores, the threads of its many short loops wait for each other
            points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(values)
        points = (points - points.min(axis=0)) / np.ptp(points, axis=0).clip(min=1e-12)
        for index, scene in enumerate(scenes):
            colour, marker = COLOURS[index % len(COLOURS)], _MARKERS[index % len(_MARKERS)]
            x, y = points[scene_indices == index].T
            axes.scatter(x, y, s=16, color=colour, marker=marker, alpha=0.75, linewidths=0, label=scene)
        axes.set(title=title, xticks=[], yticks=[], aspect="equal")
        axes.spines[:].set_visible(False)
    handles, labels = row[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, markerscale=1.8, fontsize=8)
    save_figure(figure, path, watermark)
