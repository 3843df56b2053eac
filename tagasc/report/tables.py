"""The report's tables of what was measured."""

from collections.abc import Mapping, Sequence

from tagasc.report.comparison import Difference
from tagasc.report.markdown import NOT_RUN, Table, interval, mean, signed
from tagasc.report.results import BASELINE, SOFTMAX, STANDARDISED, SVM, SystemResult
from tagasc.report.statistics import Bounds, bootstrap
from tagasc.scene.controls import CONTROLS
from tagasc.scene.systems import TAGS_ONLY


def accuracy_table(results: Sequence[SystemResult], split: str, bounds: Mapping[str, Bounds]) -> Table:
    """A row a system: every accuracy there is. Columns that no system has are left out."""
    columns = {
        "system": [result.title for result in results],
        "parameters": [f"{result.parameters:,}" if result.parameters else "" for result in results],
        "seeds": [str(len(result.runs)) for result in results],
        "SVM %": [mean(result.accuracies(split)) for result in results],
        "95 % interval": [interval(bounds[result.name]) for result in results],
        "class-averaged %": [mean(result.accuracies(split, kind="class_averaged")) for result in results],
        "SVM, standardised codes %": [mean(result.accuracies(split, STANDARDISED)) for result in results],
        "softmax %": [mean(result.accuracies(split, SOFTMAX)) for result in results],
        "final fit %": [mean(result.of_final_fit(split)) for result in results],
        "selected on test %": [_selected(result, split) for result in results],
        "trained on": [_trained_on(result) for result in results],
        "validation %": [mean(result.validation()) for result in results],
    }
    kept = {title: values for title, values in columns.items() if any(values)}
    return list(kept), list(zip(*kept.values(), strict=True))


def brief_table(
    results: Sequence[SystemResult], split: str, bounds: Mapping[str, Bounds], differences: Mapping[str, Difference]
) -> Table:
    """A row a system: the accuracy and its difference to the baseline, for a terminal."""
    header = ("system", "seeds", "accuracy %", "95 % interval", "minus baseline", "95 % interval")
    return header, [
        (
            result.title,
            str(len(result.runs)),
            mean(result.accuracies(split)),
            interval(bounds[result.name]),
            *_gain(differences.get(result.name)),
        )
        for result in results
    ]


def top_systems(results: Sequence[SystemResult], rows: int) -> list[SystemResult]:
    """The baseline and the systems best on validation, at most ``rows``, in the order given; all, if they are few."""
    if len(results) <= rows:
        return list(results)
    ranked = sorted(
        (result for result in results if result.is_ranked),
        key=lambda result: (result.name != BASELINE, -result.validation().mean()),
    )
    kept = {result.name for result in ranked[:rows]}
    return [result for result in results if result.name in kept]


def difference_table(
    differences: Mapping[str, Difference], names: Sequence[str], corrected: Mapping[str, float]
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
            signed(differences[name].mean),
            interval(differences[name].by_location, "+.1f"),
            interval(differences[name].by_clip, "+.1f"),
            _p(differences[name].p),
            _p(corrected[name]),
            "" if differences[name].mcnemar is None else _p(differences[name].mcnemar),
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
        accuracies = mean(result.accuracies(split)), mean(result.accuracies(split, SOFTMAX))
        gap = to_system[name].negated() if name in to_system else None
        rows.append((name, meaning, *accuracies, *_gain(to_baseline.get(name)), *_gain(gap)))
    return header, rows


def scene_table(results: Sequence[SystemResult], split: str) -> Table:
    """A row a scene: accuracy of each system on that scene's clips, mean over seeds; of two, also their difference."""
    clips = results[0].clips
    here = clips.of(split)
    truth, locations = clips.truth[here], clips.locations[here]
    correct = {result.name: result.correct(split) for result in results}
    rows = []
    for n, scene in enumerate(clips.names):
        of_scene = [values[truth == n] for values in correct.values()]
        row = [
            scene,
            str((truth == n).sum()),
            *(f"{100 * values.mean():.1f}" if len(values) else "" for values in of_scene),
        ]
        if len(results) == 2 and len(of_scene[0]):
            gain = of_scene[1] - of_scene[0]
            row += [signed(gain.mean()), interval(tuple(bootstrap(gain, locations[truth == n])), "+.1f")]
        rows.append(row)
    more = (f"{results[1].name} minus {results[0].name}", "95 %, over locations") if len(results) == 2 else ()
    return ("scene", "clips", *correct, *more), [
        [*row, *[""] * (2 + len(correct) + len(more) - len(row))] for row in rows
    ]


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


def _gain(difference: Difference | None) -> tuple[str, str]:
    return ("", "") if difference is None else (signed(difference.mean), interval(difference.by_location, "+.1f"))


def _p(value: float) -> str:
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _selected(result: SystemResult, split: str) -> str:
    values = mean(result.selected_on_test(split))
    return values if values or not result.parameters else NOT_RUN


def _trained_on(result: SystemResult) -> str:
    return " or ".join(sorted({run.paper["trained_on"] for run in result.runs if run.paper}))
