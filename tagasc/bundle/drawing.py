"""Drawings of a page as SVG: sound over time, bars of probabilities and influences, attention."""

import base64
from collections.abc import Sequence
from html import escape

import numpy as np

from tagasc.bundle.explain import Attention
from tagasc.bundle.output import clock
from tagasc.bundle.picture import png, position
from tagasc.bundle.runner import Answer

LEFT, WIDTH = 232, 900  # of the drawings' time axis, px
_ROW, _SPECTROGRAM, _AXIS = 17, 190, 22
_MOST_COLUMNS = 450  # of the events over time
_COLOURS = (
    "#4e79a7",
    "#f28e2b",
    "#59a14f",
    "#e15759",
    "#76b7b2",
    "#b07aa1",
    "#9c755f",
    "#edc948",
    "#ff9da7",
    "#79706e",
)
_FOR, _AGAINST, _NEUTRAL = "#2a7f62", "#b5473c", "#8a8f98"
_TICKS = (100, 300, 1000, 3000, 10000)  # Hz


def text(x: float, y: float, value: str, anchor: str = "start", extra: str = "") -> str:
    """Return a line of text, escaped."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(value)}</text>'


def bar(x: float, y: float, width: float, height: float, colour: str, title: str = "", extra: str = "") -> str:
    """Return a filled rectangle with a tooltip."""
    shape = f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" fill="{colour}"{extra}>'
    return f"{shape}<title>{escape(title)}</title></rect>" if title else f"{shape[:-1]}/>"


def svg(width: float, height: float, parts: Sequence[str], label: str, name: str = "") -> str:
    """Return a drawing with a description for those who do not see it."""
    identity = f' id="{name}"' if name else ""
    return (
        f'<svg{identity} viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )


def scene_colour(scene: int) -> str:
    """Return the colour of a scene."""
    return _COLOURS[scene % len(_COLOURS)]


def over_time(
    answer: Answer, picture: tuple[np.ndarray, float], tags: np.ndarray | None, spans: Sequence[tuple[float, float]]
) -> str:
    """Draw spectrogram, scenes and events of a recording on one time axis.

    Args:
        answer: the answer for the recording.
        picture: spectrogram and highest frequency; see ``tagasc.bundle.picture``.
        tags: probability of each event in each span, (spans, events), or None.
        spans: start and end of each span, s.
    """
    level, highest = picture
    scale = WIDTH / answer.seconds
    data = base64.b64encode(png(level)).decode("ascii")
    parts = [
        f'<image x="{LEFT}" y="0" width="{WIDTH}" height="{_SPECTROGRAM}" preserveAspectRatio="none"'
        f' href="data:image/png;base64,{data}"/>'
    ]
    for tick in (tick for tick in _TICKS if tick < highest):
        y = _SPECTROGRAM * (1 - position(tick, highest))
        parts.append(f'<line x1="{LEFT - 4}" x2="{LEFT}" y1="{y:.1f}" y2="{y:.1f}" class="axis"/>')
        parts.append(text(LEFT - 7, y + 4, f"{tick / 1000:g} kHz", "end"))
    y = _SPECTROGRAM + 6
    if len(answer.windows) > 1:
        parts += _scene_row(answer, scale, y)
        y += _ROW + 5
    if tags is not None:
        rows, y = _event_rows(answer, tags, spans, scale, y)
        parts += rows
    parts += _time_axis(answer.seconds, scale, y)
    parts.append(f'<line id="cursor" x1="{LEFT}" x2="{LEFT}" y1="0" y2="{y}" class="cursor"/>')
    label = f"spectrogram and events of {answer.name}"
    attributes = f' data-seconds="{answer.seconds:.6f}" data-left="{LEFT}" data-width="{WIDTH}"'
    return svg(LEFT + WIDTH + 20, y + _AXIS, parts, label, "time").replace("<svg", f"<svg{attributes}", 1)


def _scene_row(answer: Answer, scale: float, y: float) -> list[str]:
    parts = [text(LEFT - 7, y + 12, "scene", "end", ' class="strong"')]
    for start, end, scene, probability in answer.timeline():
        title = f"{clock(start)} to {clock(end)}: {scene} {probability:.2f}"
        colour, width = scene_colour(list(answer.scenes).index(scene)), (end - start) * scale
        parts.append(bar(LEFT + start * scale, y, width - 0.5, _ROW, colour, title))
        if width > 7 * len(scene):
            parts.append(text(LEFT + start * scale + 4, y + 12.5, scene, extra=' class="inside"'))
    return parts


def _event_rows(
    answer: Answer, tags: np.ndarray, spans: Sequence[tuple[float, float]], scale: float, y: float
) -> tuple[list[str], float]:
    highest = np.maximum(tags.max(axis=0), np.max([window.tags for window in answer.windows], axis=0))
    shown, parts = np.argsort(-highest, kind="stable")[:8], []
    groups = np.array_split(np.arange(len(spans)), min(len(spans), _MOST_COLUMNS))
    for event in shown:
        name = answer.event_names[event]
        parts.append(text(LEFT - 7, y + 12, name.replace("_", " "), "end"))
        parts.append(bar(LEFT, y, WIDTH, _ROW - 3, "#eef0f3"))
        for group in groups:
            start, end, value = spans[group[0]][0], spans[group[-1]][1], float(tags[group, event].max())
            if value >= 0.02:
                opacity = f' fill-opacity="{value**0.7:.2f}"'
                title = f"{name} {value:.2f}, {clock(start)} to {clock(end)}"
                parts.append(
                    bar(LEFT + start * scale, y, (end - start) * scale + 0.3, _ROW - 3, "#22543d", title, opacity)
                )
        y += _ROW
    return parts, y


def _time_axis(seconds: float, scale: float, y: float) -> list[str]:
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)
    step = next((step for step in steps if seconds / step <= 12), steps[-1])
    parts = []
    for number in range(int(seconds / step + 1e-9) + 1):
        x = LEFT + number * step * scale
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 4}" class="axis"/>')
        shown = f"{number * step:g} s" if seconds < 60 else clock(number * step)
        parts.append(text(x, y + 16, shown, "middle"))
    return parts


def probability_bars(scenes: Sequence[str], probabilities: np.ndarray, chosen: int) -> str:
    """Draw the probability of each scene, the answer first."""
    order = sorted(range(len(scenes)), key=lambda n: (n != chosen, -probabilities[n]))
    parts, width = [], 260
    for row, scene in enumerate(order):
        y, value = row * _ROW, float(probabilities[scene])
        name = ' class="strong"' if scene == chosen else ""
        parts.append(text(LEFT - 7, y + 12, scenes[scene].replace("_", " "), "end", name))
        colour = _FOR if scene == chosen else _NEUTRAL
        parts += [
            bar(LEFT, y + 1, value * width, _ROW - 4, colour),
            text(LEFT + value * width + 5, y + 12, f"{value:.2f}"),
        ]
    return svg(LEFT + width + 50, len(order) * _ROW + 2, parts, "probability of each scene")


def influence_bars(rows: Sequence[tuple[str, float, float, float]]) -> str:
    """Draw what spoke for (right) and against (left) an answer.

    Args:
        rows: name of the event, tag, mean training tag, change of the margin; for each event.
    """
    largest = max((abs(change) for *_, change in rows), default=0) or 1
    half, middle = 95, LEFT + 95
    parts = [f'<line x1="{middle}" x2="{middle}" y1="0" y2="{len(rows) * _ROW}" class="axis"/>']
    for number, (name, tag, mean, change) in enumerate(rows):
        y, width = number * _ROW, half * abs(change) / largest
        x, colour = (middle, _FOR) if change > 0 else (middle - width, _AGAINST)
        title = f"tag {tag:.3f}, mean over training clips {mean:.3f}"
        parts.append(text(LEFT - 7, y + 12, name.replace("_", " "), "end"))
        parts.append(bar(x, y + 1, width, _ROW - 4, colour, title))
        parts.append(text(middle + half + 8, y + 12, f"{change:+.2f}   tag {tag:.2f}, usually {mean:.2f}"))
    return svg(LEFT + 2 * half + 200, len(rows) * _ROW + 2, parts, "events for and against the answer")


def attention_strips(attention: Attention, seconds: float) -> str:
    """Draw the attention of each head's filters, and the filters' response over time.

    Whichever is more, heads or filters in a head, runs from left to right.
    """
    weights, usual = attention.weights, attention.usual
    names = ("head", "filter") if len(weights) <= weights.shape[1] else ("filter", "head")
    turned = names[0] == "filter"
    grids = [grid.T if turned else grid for grid in (weights, usual)]
    rows, columns = grids[0].shape
    width, height, most = 300.0, min(14.0, 160 / rows), max(2.0, float(weights.max()))
    parts = []
    for row in range(rows):
        if row % -(-12 // int(height)) == 0:
            parts.append(text(LEFT - 7, row * height + 10, f"{names[0]} {row + 1}", "end"))
        for column in range(columns):
            value, expected = (float(grid[row, column]) for grid in grids)
            place = f"{names[0]} {row + 1}, {names[1]} {column + 1}"
            title = f"{place}: {value:.2f} of uniform, for the mean tags {expected:.2f}"
            colour = f"hsl(24 70% {96 - 62 * min(1.0, value / most):.0f}%)"
            x, cell = LEFT + column * width / columns, width / columns - 0.5
            parts.append(bar(x, row * height, cell, height - 1, colour, title))
    y = rows * height + 12
    parts.append(text(LEFT + width, y, f"{names[1]}s 1 to {columns}", "end"))
    return svg(LEFT + width + 60, y + 78, [*parts, *_response(attention.response, seconds, width, y + 8)],
               "attention of each filter, by head")  # fmt: skip


def _response(response: np.ndarray, seconds: float, width: float, y: float) -> list[str]:
    """Draw how much more, or less, the filters respond over time, on a logarithmic scale around none."""
    log = np.log2(np.clip(response, 1e-6, None))
    extent = max(0.05, float(np.abs(log).max()))
    steps = [(n / len(log), (n + 1) / len(log), y + 28 - 22 * value / extent) for n, value in enumerate(log)]
    points = " ".join(f"{LEFT + x * width:.1f},{level:.1f}" for start, end, level in steps for x in (start, end))
    return [
        text(LEFT - 7, y + 25, "response", "end"),
        text(LEFT - 7, y + 40, "over time", "end"),
        f'<line x1="{LEFT}" x2="{LEFT + width:.0f}" y1="{y + 28}" y2="{y + 28}" class="axis"/>',
        f'<polyline points="{points}" fill="none" stroke="{_FOR}" stroke-width="2"/>',
        text(LEFT + width + 6, y + 32, f"±{2**extent - 1:.0%}"),
        text(LEFT, y + 66, "0 s"),
        text(LEFT + width, y + 66, f"{seconds:g} s", "end"),
    ]
