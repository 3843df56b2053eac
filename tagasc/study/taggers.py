"""The report's section on taggers: figures of each, and each system's accuracy by tagger."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tagasc.report.comparison import Difference, accuracy_intervals, compute_differences
from tagasc.report.markdown import Table, escape, format_interval, format_mean, format_points, markdown_table
from tagasc.report.results import BASELINE, SystemResult
from tagasc.scene.systems import TAGS_ONLY
from tagasc.study.ears import Ear, common_baseline, other_settings

MAX_SYSTEMS = 20
_LONGEST = 300  # characters of a value that another program wrote
_NAMED = ("kind", "name", "source")  # what stage 4 calls the source
_IN_COLUMNS = (*_NAMED, "sampling_rate", "parameters", "audio_seconds", "seconds", "clips")


def taggers_section(ears: Sequence[Ear], outdated: Sequence[str] = ()) -> list[str]:
    """Compare the taggers; with one ear, give its figures alone.

    Args:
        ears: the experiments.
        outdated: lines on outdated results of the ears.
    """
    if not ears:
        return []
    figures = [markdown_table(figures_table(ears)), *_records(ears), ""]
    if len(ears) == 1:
        return ["## Source of the tags", "", *figures]
    lines = ["## Comparison of taggers", "", *figures]
    baseline, owner = common_baseline(ears)
    lines += [
        f"Accuracy on test by system and tagger, mean ± standard deviation over seeds. Differences are in percentage"
        f" points, to the baseline and to the same system with {escape(ears[0].name)}, with 95 % confidence intervals"
        " over locations. They are not corrected for their number, and do not include the variance over trainings.",
        "",
        markdown_table(systems_table(ears, baseline)),
    ]
    if baseline is not None:
        lines += [f"The baseline uses no tags; it is that of {escape(owner)}.", ""]
    return [*lines, *caveats(ears, outdated), choice(ears), ""]


def caveats(ears: Sequence[Ear], outdated: Sequence[str]) -> list[str]:
    """List what makes a comparison of these ears unfair: outdated results, and other settings than the first ear's."""
    lines = []
    for title, items in (
        ("**Outdated**, because an input has changed; run their stages again:", outdated),
        ("**Not trained with the same settings:**", other_settings(ears)),
    ):
        lines += [title, "", *(f"- {escape(item)}" for item in items), ""] if items else []
    return lines


def choice(ears: Sequence[Ear]) -> str:
    """Name the tagger to choose: that of the tag system which is best on validation."""
    best = [(ear, ear.best) for ear in ears if ear.best is not None]
    if not best:
        return "No system with tags was trained, so validation chooses no tagger."
    ear, system = max(best, key=lambda pair: pair[1].validation_by_seed().mean())
    reached = format_mean(system.validation_by_seed())
    return (
        f"Validation chooses **{escape(ear.name)}**, with {escape(system.name)}: {reached} % of the validation clips by"
        " softmax, the highest of all. The test clips play no part in this choice."
    )


def figures_table(ears: Sequence[Ear]) -> Table:
    """Tabulate what is known about each tagger; omit columns that are empty for all."""
    columns: dict[str, list[str]] = {
        "tagger": [ear.name for ear in ears],
        "source": [_text(" ".join(_plain(ear.source[key]) for key in _NAMED if key in ear.source)) for ear in ears],
        "values": [f"{len(ear.vectors.classes):,} {'events' if ear.vectors.has_names else 'values'}" for ear in ears],
        "taken as": [ear.scale for ear in ears],
        "rate, Hz": [_number(ear.source.get("sampling_rate")) for ear in ears],
        "parameters": [_number(ear.source.get("parameters")) for ear in ears],
        "audio s per s": [_speed(ear.source) for ear in ears],
        "lwlrap on scene clips": [
            ", ".join(f"{split} {value:.3f}" for split, value in ear.lwlrap.items()) for ear in ears
        ],
    }
    filled = {title: values for title, values in columns.items() if any(values)}
    return list(filled), list(zip(*filled.values(), strict=True))


def systems_table(ears: Sequence[Ear], baseline: SystemResult | None) -> Table:
    """Tabulate the baseline, then each system with each tagger, tags alone last."""
    first, titles = ears[0], ("95 % CI (locations)",)
    header = ("system", "tagger", "seeds", "SVM %", *titles, "minus baseline", *titles, f"minus {first.name}", *titles,
              "validation %")  # fmt: skip
    rows = []
    if baseline is not None:
        rows.append((BASELINE, "", *_accuracy_cells(baseline), *[""] * 4, _validation(baseline)))
    for name in _systems(ears):
        for ear in (ear for ear in ears if name in ear.by_name):
            result, other = ear.by_name[name], first.by_name.get(name)
            to_first = None if ear is first or other is None else difference(result, other)
            to_baseline = None if baseline is None else difference(result, baseline)
            cells = (*_difference_cells(to_baseline), *_difference_cells(to_first))
            rows.append((result.title, ear.name, *_accuracy_cells(result), *cells, _validation(result)))
    return header, rows


def difference(result: SystemResult, base: SystemResult) -> Difference:
    """Subtract one system from another, perhaps of another experiment, on test."""
    return compute_differences([result], base, "test")[result.name]


def _systems(ears: Sequence[Ear]) -> list[str]:
    """Choose the systems to show: at most ``MAX_SYSTEMS``, by validation, in the order of the results."""
    by_system: dict[str, list[float]] = {}
    for ear in ears:
        for result in ear.tag_systems:
            by_system.setdefault(result.name, []).append(float(result.validation_by_seed().mean()))
    kept = sorted(by_system, key=lambda name: -np.mean(by_system[name]))[:MAX_SYSTEMS]
    alone = [TAGS_ONLY] if any(TAGS_ONLY in ear.by_name for ear in ears) else []
    return [name for name in by_system if name in kept] + alone


def _records(ears: Sequence[Ear]) -> list[str]:
    """Show the rest of what stage 4 wrote about each source, such as what was done with short and long clips."""
    lines, shown = [], set()
    for ear in ears:
        rest = {key: value for key, value in ear.source.items() if key not in _IN_COLUMNS and value not in (None, "")}
        if rest and ear.tags not in shown:
            shown.add(ear.tags)
            text = "; ".join(f"{_text(str(key))}: {_text(_plain(value))}" for key, value in rest.items())
            lines.append(f"- {escape(ear.tags.name)}: {escape(text)}")
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _text(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else ""


def _speed(source: dict[str, Any]) -> str:
    audio, seconds = source.get("audio_seconds"), source.get("seconds")
    known = all(isinstance(value, int | float) and value > 0 for value in (audio, seconds))
    return f"{audio / seconds:,.0f}" if known else ""


def _accuracy_cells(result: SystemResult) -> tuple[str, str, str]:
    interval = accuracy_intervals([result], "test")[result.name]
    return str(len(result.runs)), format_mean(result.accuracy_by_seed("test")), format_interval(interval)


def _difference_cells(value: Difference | None) -> tuple[str, str]:
    return ("", "") if value is None else (format_points(value.mean), format_interval(value.by_location, "+.1f"))


def _validation(result: SystemResult) -> str:
    return format_mean(result.validation_by_seed())
