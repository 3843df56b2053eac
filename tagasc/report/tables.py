"""The report's tables of what was measured."""

from collections.abc import Mapping, Sequence

import numpy as np

from tagasc.report.comparison import Difference
from tagasc.report.markdown import NOT_RUN, Table, format_interval, format_mean, format_points
from tagasc.report.results import BASELINE, SOFTMAX, STANDARDISED, SVM, SystemResult
from tagasc.report.statistics import Interval, bootstrap
from tagasc.scene.controls import CONTROLS
from tagasc.scene.systems import TAGS_ONLY


def accuracy_table(results: Sequence[SystemResult], split: str, intervals: Mapping[str, Interval]) -> Table:
    """A row a system: every accuracy there is. Columns that no system has are left out."""
    columns = {
        "system": [result.title for result in results],
        "parameters": [f"{result.parameters:,}" if result.parameters else "" for result in results],
        "seeds": [str(len(result.runs)) for result in results],
        "SVM %": [format_mean(result.accuracy_by_seed(split)) for result in results],
        "95 % interval": [format_interval(intervals[result.name]) for result in results],
        "class-averaged %": [format_mean(result.accuracy_by_seed(split, kind="class_averaged")) for result in results],
        "SVM, standardised codes %": [format_mean(result.accuracy_by_seed(split, STANDARDISED)) for result in results],
        "softmax %": [format_mean(result.accuracy_by_seed(split, SOFTMAX)) for result in results],
        "final fit %": [format_mean(result.final_by_seed(split)) for result in results],
        "selected on test %": [_selected(result, split) for result in results],
        "trained on": [_trained_on(result) for result in results],
        "validation %": [format_mean(result.validation_by_seed()) for result in results],
    }
    kept = {title: values for title, values in columns.items() if any(values)}
    return list(kept), list(zip(*kept.values(), strict=True))


def brief_table(
    results: Sequence[SystemResult],
    split: str,
    intervals: Mapping[str, Interval],
    to_baseline: Mapping[str, Difference],
) -> Table:
    """A row a system: the accuracy and its difference to the baseline, for a terminal."""
    header = ("system", "seeds", "accuracy %", "95 % interval", "minus baseline", "95 % interval")
    return header, [
        (
            result.title,
            str(len(result.runs)),
            format_mean(result.accuracy_by_seed(split)),
            format_interval(intervals[result.name]),
            *_difference_cells(to_baseline.get(result.name)),
        )
        for result in results
    ]


def top_systems(results: Sequence[SystemResult], rows: int) -> list[SystemResult]:
    """The baseline and the systems best on validation, at most ``rows``, in the order given; all, if they are few."""
    if len(results) <= rows:
        return list(results)
    ranked = sorted(
        (result for result in results if result.is_ranked),
        key=lambda result: (result.name != BASELINE, -result.validation_by_seed().mean()),
    )
    kept = {result.name for result in ranked[:rows]}
    return [result for result in results if result.name in kept]


def difference_table(
    to_baseline: Mapping[str, Difference], names: Sequence[str], corrected: Mapping[str, float]
) -> Table:
    """A row a named system; ``corrected`` holds Holm's p by system."""
    header = (
        "system",
        "minus baseline",
        "95 %, over locations",
        "95 %, over clips",
        "p, locations swapped",
        "Holm's p",
        "McNemar's p (treats clips as independent)",
    )
    return header, [
        (
            name,
            format_points(to_baseline[name].mean),
            format_interval(to_baseline[name].by_location, "+.1f"),
            format_interval(to_baseline[name].by_clip, "+.1f"),
            _p(to_baseline[name].p),
            _p(corrected[name]),
            "" if to_baseline[name].mcnemar_p is None else _p(to_baseline[name].mcnemar_p),
        )
        for name in names
    ]


def control_table(
    shown: Sequence[SystemResult],
    system: SystemResult,
    split: str,
    to_baseline: Mapping[str, Difference],
    to_system: Mapping[str, Difference],
) -> Table:
    """Baseline, the tag system, its controls and tags alone; "not run" where a control was not."""
    header = (
        "system",
        "its tags",
        "SVM %",
        "softmax %",
        "minus baseline",
        "95 %, over locations",
        f"{system.name} minus it",
        "95 %, over locations",
    )
    meanings = {
        BASELINE: "none",
        system.name: "the clip's own",
        **{f"{system.name}@{kind}": meaning for kind, meaning in CONTROLS.items()},
        TAGS_ONLY: "the clip's own, into an SVM without any network",
    }
    found = {result.name: result for result in shown}
    rows = []
    for name, meaning in meanings.items():
        if name not in found:
            rows.append((name, meaning, NOT_RUN, *[""] * 5))
            continue
        result = found[name]
        accuracies = format_mean(result.accuracy_by_seed(split)), format_mean(result.accuracy_by_seed(split, SOFTMAX))
        gap = to_system[name].negated() if name in to_system else None
        rows.append((name, meaning, *accuracies, *_difference_cells(to_baseline.get(name)), *_difference_cells(gap)))
    return header, rows


def scene_table(results: Sequence[SystemResult], split: str) -> Table:
    """A row a scene: accuracy of each system on that scene's clips, mean over seeds; of two, also their difference."""
    clips = results[0].clips
    here = clips.in_split(split)
    truth, locations = clips.scene_indices[here], clips.locations[here]
    by_clip = {result.name: result.accuracy_by_clip(split) for result in results}
    rows = []
    for n, scene in enumerate(clips.scene_names):
        of_scene = [values[truth == n] for values in by_clip.values()]
        row = [
            scene,
            str((truth == n).sum()),
            *(f"{100 * values.mean():.1f}" if len(values) else "" for values in of_scene),
        ]
        if len(results) == 2 and len(of_scene[0]):
            gain = of_scene[1] - of_scene[0]
            row += [format_points(gain.mean()), format_interval(tuple(bootstrap(gain, locations[truth == n])), "+.1f")]
        rows.append(row)
    more = (f"{results[1].name} minus {results[0].name}", "95 %, over locations") if len(results) == 2 else ()
    return ("scene", "clips", *by_clip, *more), [
        [*row, *[""] * (2 + len(by_clip) + len(more) - len(row))] for row in rows
    ]


def distinctive_events(
    values: np.ndarray, classes: list[str], scene_indices: np.ndarray, scenes: list[str], count: int = 3
) -> Table:
    """A row a scene: the events whose mean tag lies farthest above the other scenes', in standard deviations.

    In brackets the mean tag in the scene and in the others.
    """
    deviation, rows = values.std(axis=0).clip(min=1e-12), []
    for number, scene in enumerate(scenes):
        here, elsewhere = values[scene_indices == number].mean(axis=0), values[scene_indices != number].mean(axis=0)
        distance = (here - elsewhere) / deviation
        chosen = [n for n in np.argsort(-distance, kind="stable")[:count] if distance[n] > 0]
        said = [f"{classes[n]} {distance[n]:+.1f} sd ({here[n]:.3f}, else {elsewhere[n]:.3f})" for n in chosen]
        rows.append((scene, "; ".join(said)))
    return ("scene", "events that distinguish it"), rows


def chosen_table(results: Sequence[SystemResult]) -> Table:
    """A row a run: what validation chose."""
    rows = []
    for result in results:
        for run in result.runs:
            epochs = f"{run.history['best_epoch']} of {len(run.history['epochs'])}" if run.history else ""
            svm = run.classifiers[SVM]
            chosen = svm["chosen"]
            accuracy = f"{100 * svm['scores']['test']['accuracy']:.2f}"
            rows.append((result.title, str(run.seed), epochs, chosen["kernel"], f"{chosen['C']:g}", accuracy))
    return ("system", "seed", "epoch", "kernel", "C", "test accuracy %"), rows


def _difference_cells(difference: Difference | None) -> tuple[str, str]:
    return (
        ("", "")
        if difference is None
        else (format_points(difference.mean), format_interval(difference.by_location, "+.1f"))
    )


def _p(value: float) -> str:
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _selected(result: SystemResult, split: str) -> str:
    values = format_mean(result.selected_by_seed(split))
    return values if values or not result.parameters else NOT_RUN


def _trained_on(result: SystemResult) -> str:
    return " or ".join(sorted({run.test_by_epoch["trained_on"] for run in result.runs if run.test_by_epoch}))
