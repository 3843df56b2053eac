"""The report's tables of scenes, systems and differences."""

from collections.abc import Mapping, Sequence

import numpy as np

from tagasc.report.comparison import Difference
from tagasc.report.markdown import NOT_RUN, Table, format_interval, format_mean, format_points
from tagasc.report.results import BASELINE, SOFTMAX, STANDARDISED, SVM, SystemResult
from tagasc.report.statistics import Interval, bootstrap
from tagasc.scene.controls import CONTROLS
from tagasc.scene.systems import TAGS_ONLY

_MINUS_BASELINE = ("minus baseline", "95 % CI (locations)")


def accuracy_table(
    results: Sequence[SystemResult], split: str, intervals: Mapping[str, Interval], selected: bool = True
) -> Table:
    """Tabulate every accuracy of every system; omit columns that are empty for all systems.

    Args:
        results: the systems.
        split: set of clips, test or test+unused.
        intervals: confidence interval by system.
        selected: whether there is a column of accuracies selected on test (the paper's protocol).
    """
    columns = {
        "system": [result.title for result in results],
        "parameters": [f"{result.parameters:,}" if result.parameters else "" for result in results],
        "seeds": [str(len(result.runs)) for result in results],
        "SVM %": [format_mean(result.accuracy_by_seed(split)) for result in results],
        "95 % CI (locations)": [format_interval(intervals[result.name]) for result in results],
        "class-averaged %": [format_mean(result.accuracy_by_seed(split, kind="class_averaged")) for result in results],
        "SVM, standardised codes %": [format_mean(result.accuracy_by_seed(split, STANDARDISED)) for result in results],
        "softmax %": [format_mean(result.accuracy_by_seed(split, SOFTMAX)) for result in results],
        "final fit %": [format_mean(result.final_by_seed(split)) for result in results],
        "selected on test %": [_selected_on_test(result, split) if selected else "" for result in results],
        "trained on": [_trained_on(result) for result in results],
        "validation %": [format_mean(result.validation_by_seed()) for result in results],
    }
    filled = {title: values for title, values in columns.items() if any(values)}
    return list(filled), list(zip(*filled.values(), strict=True))


def brief_table(
    results: Sequence[SystemResult],
    split: str,
    intervals: Mapping[str, Interval],
    to_baseline: Mapping[str, Difference],
) -> Table:
    """Tabulate accuracies and differences to the baseline for the terminal."""
    header = ("system", "seeds", "accuracy %", "95 % CI", "minus baseline", "95 % CI")
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
    """Keep the baseline and the best systems on validation, ``rows`` at most, in the given order.

    If there are at most ``rows`` results, all are kept, controls and tags alone included.
    """
    if len(results) <= rows:
        return list(results)
    ranked = sorted(
        (result for result in results if result.is_ranked),
        key=lambda result: (result.name != BASELINE, -result.validation_by_seed().mean()),
    )
    top = {result.name for result in ranked[:rows]}
    return [result for result in results if result.name in top]


def difference_table(
    to_baseline: Mapping[str, Difference], names: Sequence[str], corrected: Mapping[str, float]
) -> Table:
    """Tabulate differences to the baseline of the named systems; ``corrected`` is Holm's p by system."""
    header = (
        "system",
        *_MINUS_BASELINE,
        "95 % CI (clips)",
        "p (permutation)",
        "p (Holm)",
        "p (McNemar, clips independent)",
    )
    return header, [
        (
            name,
            *_difference_cells(to_baseline[name]),
            format_interval(to_baseline[name].by_clip, "+.1f"),
            _format_p(to_baseline[name].p),
            _format_p(corrected[name]),
            "" if to_baseline[name].mcnemar_p is None else _format_p(to_baseline[name].mcnemar_p),
        )
        for name in names
    ]


def control_table(
    results: Sequence[SystemResult],
    system: SystemResult,
    split: str,
    to_baseline: Mapping[str, Difference],
    to_system: Mapping[str, Difference],
) -> Table:
    """Tabulate the baseline, the system, its controls and tags alone; a control without runs is "not run"."""
    header = (
        "system",
        "its tags",
        "SVM %",
        "softmax %",
        *_MINUS_BASELINE,
        f"{system.name} minus it",
        "95 % CI (locations)",
    )
    meanings = {
        BASELINE: "none",
        system.name: "the clip's own",
        **{f"{system.name}@{kind}": meaning for kind, meaning in CONTROLS.items()},
        TAGS_ONLY: "the clip's own, SVM without a network",
    }
    by_name = {result.name: result for result in results}
    rows = []
    for name, meaning in meanings.items():
        if name not in by_name:
            rows.append((name, meaning, NOT_RUN, *[""] * 5))
            continue
        accuracies = (format_mean(by_name[name].accuracy_by_seed(split, kind)) for kind in (SVM, SOFTMAX))
        from_system = to_system[name].negated() if name in to_system else None
        differences = (*_difference_cells(to_baseline.get(name)), *_difference_cells(from_system))
        rows.append((name, meaning, *accuracies, *differences))
    return header, rows


def scene_table(results: Sequence[SystemResult], split: str) -> Table:
    """Tabulate each system's accuracy by true scene, mean over seeds; for two systems also their difference."""
    clips = results[0].clips
    mask = clips.in_split(split)
    truth, locations = clips.scene_indices[mask], clips.locations[mask]
    by_clip = {result.name: result.accuracy_by_clip(split) for result in results}
    header = ["scene", "clips", *by_clip]
    if len(results) == 2:
        header += [f"{results[1].name} minus {results[0].name}", "95 % CI (locations)"]
    rows = []
    for index, scene in enumerate(clips.scene_names):
        of_scene = [values[truth == index] for values in by_clip.values()]
        row = [scene, str((truth == index).sum())]
        if len(of_scene[0]):
            row += [f"{100 * values.mean():.1f}" for values in of_scene]
            if len(results) == 2:
                difference = of_scene[1] - of_scene[0]
                interval = tuple(bootstrap(difference, locations[truth == index]))
                row += [format_points(difference.mean()), format_interval(interval, "+.1f")]
        rows.append(row + [""] * (len(header) - len(row)))
    return header, rows


def distinctive_events(
    values: np.ndarray, classes: list[str], scene_indices: np.ndarray, scenes: list[str], count: int = 3
) -> Table:
    """Tabulate, by scene, the events whose mean tag exceeds that of the other scenes most, in standard deviations.

    Args:
        values: tags, (clips, events).
        classes: names of the events.
        scene_indices: scene of each clip as an index into ``scenes``, (clips,).
        scenes: names of the scenes.
        count: events per scene, at most.
    """
    deviation, rows = values.std(axis=0).clip(min=1e-12), []
    for index, scene in enumerate(scenes):
        within, others = values[scene_indices == index].mean(axis=0), values[scene_indices != index].mean(axis=0)
        distance = (within - others) / deviation
        top = [n for n in np.argsort(-distance, kind="stable")[:count] if distance[n] > 0]
        texts = [f"{classes[n]} {distance[n]:+.1f} SD ({within[n]:.3f}, others {others[n]:.3f})" for n in top]
        rows.append((scene, "; ".join(texts)))
    return ("scene", "distinctive events"), rows


def chosen_table(results: Sequence[SystemResult]) -> Table:
    """Tabulate what validation chose for each run (epoch, kernel and C), and the deviation of the codes.

    The SVM's γ is 1 / (n · deviation²); scores of an earlier version lack the deviation.
    """
    rows = []
    for result in results:
        for run in result.runs:
            epochs = f"{run.history['best_epoch']} of {len(run.history['epochs'])}" if run.history else ""
            svm = run.classifiers[SVM]
            accuracy = f"{100 * svm['scores']['test']['accuracy']:.2f}"
            chosen = svm["chosen"]["kernel"], f"{svm['chosen']['C']:g}"
            deviation = f"{svm['code_deviation']:.3g}" if "code_deviation" in svm else "-"
            rows.append((result.title, str(run.seed), epochs, *chosen, deviation, accuracy))
    return ("system", "seed", "epoch", "kernel", "C", "deviation of the codes", "test accuracy %"), rows


def _difference_cells(difference: Difference | None) -> tuple[str, str]:
    if difference is None:
        return "", ""
    return format_points(difference.mean), format_interval(difference.by_location, "+.1f")


def _format_p(value: float) -> str:
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _selected_on_test(result: SystemResult, split: str) -> str:
    values = format_mean(result.selected_by_seed(split))
    return values if values or not result.parameters else NOT_RUN


def _trained_on(result: SystemResult) -> str:
    return " or ".join(sorted({run.test_by_epoch["trained_on"] for run in result.runs if run.test_by_epoch}))
