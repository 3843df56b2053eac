"""The report's sections on what was measured: lines of Markdown, and the pictures that they name."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tagasc.report import figures, tables
from tagasc.report.comparison import Comparison, Difference, accuracy_intervals, compute_differences
from tagasc.report.markdown import format_interval, format_mean, format_points, markdown_table
from tagasc.report.paper_tables import TITLES, PaperResults, by_table, filled_tables, heads_by_layers
from tagasc.report.results import BASELINE, SVM, SystemResult
from tagasc.scene.systems import TAGS_ONLY

PROTOCOLS = """\
- **Ours** (the figure that counts): the epoch is chosen by the network's accuracy on validation clips, kernel and C
  by the SVM's there; test clips are scored once. Means ± standard deviation over seeds.
- **Selected on test** (the paper's protocol, for comparison only): codes and SVM anew after every epoch, C = 1; the
  best epoch and kernel *on the test clips* are taken, which inflates.
- **test** are the official test clips; **test+unused** adds those that the official lists leave out, as the paper did
  in part.
- Intervals are 95 % percentile bootstraps. Over locations they tell how much a figure depends on the test locations;
  none of them covers what another training would change. *Shown* means that the interval over locations leaves out 0;
  the *standard deviation over seeds* beside it is of the difference, over the seeds that both sides have.
"""


def summary(comparison: Comparison) -> list[str]:
    """What came of it, in a few sentences."""
    base, best, gain = comparison.baseline, comparison.best, comparison.to_baseline.get(comparison.best.name)
    ranked = [result for result in comparison.results if result.is_ranked]
    records = [name for table in comparison.systems.values() for name in table]
    said = [f"{sum(result.name in records for result in ranked)} of {len(records)} systems were run."]
    if base is None:
        said.append(
            f"The baseline was not; best on validation is {best.name}, {_accuracy_text(comparison, best)} on test."
        )
    elif gain is None:
        said.append(f"Best on validation is the baseline itself, {_accuracy_text(comparison, best)} on test.")
    else:
        said.append(
            f"The baseline reaches {_accuracy_text(comparison, base)} on test; best on validation is {best.name} with"
            f" {_accuracy_text(comparison, best)}, {_difference_text(gain)}: {verdict(gain, 'a gain', 'a loss')}."
        )
    shown = [name for name in comparison.holms_p if comparison.to_baseline[name].significant]
    compared = len(comparison.holms_p)
    if compared > 1:
        above = sum(comparison.to_baseline[name].mean > 0 for name in shown)
        said.append(
            f"Of {compared} systems compared to the baseline, the interval of the difference lies wholly above 0 for"
            f" {above} and wholly below for {len(shown) - above}; of many, some do so by chance, for which Holm's p,"
            f" over all {compared}, accounts."
        )
    if max(len(result.runs) for result in ranked) == 1:
        said.append("One seed each: how much a training's random numbers change is not known.")
    return [" ".join(said), "", PROTOCOLS]


def paper_section(comparison: Comparison, paper: PaperResults, other_data: bool) -> list[str]:
    """Tables 2 to 6."""
    lines = ["## The paper's tables", ""]
    lines += [
        "In each cell *the paper's figure* (in italics) above **ours** (our protocol, SVM, test). The paper's were",
        "presumably selected on test, as its authors' released code does, and on two test sets: all of Table 2 fits",
        "the 5215 clips of test and unused, all of Tables 4 and 5 the 4185 of test; Table 3 mixes the two.",
        "",
    ]
    if other_data:
        lines += [
            "**The paper's figures are of other data (TAU Urban Acoustic Scenes 2019): not comparable with ours.**",
            "",
        ]
    for name, table in filled_tables(comparison.systems, paper, comparison.results).items():
        lines += [f"### {TITLES[name]}", "", markdown_table(table)]
    grids = {
        TITLES[name].partition(":")[0]: heads_by_layers(comparison.systems[name])
        for name in ("table3", "table5")
        if name in comparison.systems
    }
    if any(name in comparison.by_name for layout in grids.values() for row in layout.names for name in row):
        figures.plot_heat_maps(
            grids, comparison.by_name, "test", comparison.out / "heads_layers.png", comparison.watermark
        )
        lines += ["Heads × layers, ours:", "", "![accuracy by heads and layers](heads_layers.png)", ""]
    return lines


def systems_section(comparison: Comparison) -> list[str]:
    """Every accuracy of every system, and the differences to the baseline by table."""
    lines = ["## All systems", ""]
    lines += [
        "*softmax* is the network's own answer; *standardised codes*: each value scaled to mean 0 and variance 1;",
        "*final fit*: trained once more on all training clips with what validation chose; *selected on test*: the",
        "paper's protocol, *trained on* the clips named beside it (train: without the validation clips);",
        "*validation*: of the network, by which the best system is chosen.",
        "",
    ]
    for split in comparison.best.runs[0].classifiers[SVM]["scores"]:
        bounds = comparison.confidence_intervals if split == "test" else accuracy_intervals(comparison.results, split)
        clips = int(comparison.best.clips.in_split(split).sum())
        table = tables.accuracy_table(comparison.results, split, bounds)
        lines += [f"### {split} ({clips} clips)", "", markdown_table(table)]
    figures.plot_accuracies(
        comparison.results,
        comparison.confidence_intervals,
        comparison.to_baseline,
        comparison.out / "accuracies.png",
        comparison.watermark,
    )
    lines += ["![accuracies](accuracies.png)", ""]
    return lines + (_differences_section(comparison) if comparison.to_baseline else [])


def _differences_section(comparison: Comparison) -> list[str]:
    lines = [
        "### Differences to the baseline, on test",
        "",
        "In percentage points. p: a permutation test that swaps whole locations between system and baseline; Holm's",
        f"correction is over all systems that are compared to the baseline here ({len(comparison.holms_p)}), whatever",
        "their table. Of several seeds, each clip counts with its share of right ones; McNemar's test, which needs one",
        "answer a clip, takes the first seed that both have.",
        "",
    ]
    for table, names in by_table(comparison.systems, comparison.holms_p).items():
        if names:
            title = TITLES.get(table, table).partition(":")[0]
            lines += [
                f"**{title}**",
                "",
                markdown_table(tables.difference_table(comparison.to_baseline, names, comparison.holms_p)),
            ]
    return lines


def controls_section(comparison: Comparison) -> list[str]:
    """Whether the events help, or only the extra parameters do."""
    system = _controlled(comparison)
    if system is None:
        return ["## Controls", "", "No system with tags was run.", ""]
    shown = [
        result for result in comparison.results if result.name.partition("@")[0] in (system.name, BASELINE, TAGS_ONLY)
    ]
    to_system = compute_differences(shown, system, "test")
    lines = [
        "## Controls",
        "",
        f"{system.name} trained anew with altered tags in all splits. The two that use the true label are no systems:",
        "their figures say what tags could do if they knew the scene, and are never ranked.",
        "",
        markdown_table(tables.control_table(shown, system, "test", comparison.to_baseline, to_system)),
    ]
    return [*lines, _control_verdict(system, comparison.to_baseline, to_system), ""]


def _controlled(comparison: Comparison) -> SystemResult | None:
    """Of the systems that have controls the one that is best on validation; without any, of those with tags."""
    with_tags = [result for result in comparison.results if result.is_ranked and result is not comparison.baseline]
    names = {result.name.partition("@")[0] for result in comparison.results if "@" in result.name}
    controlled = [result for result in with_tags if result.name in names]
    return max(controlled or with_tags, key=lambda result: result.validation_by_seed().mean(), default=None)


def _control_verdict(
    system: SystemResult, to_baseline: Mapping[str, Difference], to_system: Mapping[str, Difference]
) -> str:
    """Sentences out of the intervals over locations."""
    said = []
    for kind in ("shuffled", "constant"):
        name = f"{system.name}@{kind}"
        if name in to_system:
            gap = to_system[name].negated()
            said.append(
                f"{system.name} minus {name}: {_difference_text(gap)}: {verdict(gap, 'help from the events', 'harm')}."
            )
        if name in to_baseline:
            gap = to_baseline[name]
            what = verdict(gap, "help from the extra parameters alone", "harm")
            said.append(f"{name} minus the baseline: {_difference_text(gap)}: {what}.")
    return " ".join(said) or "Whether the events help, or only the extra parameters do: not known, no control was run."


def scenes_section(comparison: Comparison) -> list[str]:
    """Class by class, confusions, and training curves."""
    titles = " beside ".join(result.name for result in comparison.baseline_and_best)
    which = "the best" if comparison.best is comparison.baseline_and_best[-1] else "the best of the others"
    figures.plot_confusions(
        comparison.baseline_and_best, "test", comparison.out / "confusions.png", comparison.watermark
    )
    figures.plot_curves(
        comparison.results, comparison.baseline_and_best, comparison.out / "curves.png", comparison.watermark
    )
    return [
        "## Scene by scene",
        "",
        f"{titles} ({which} on validation). Accuracy in %, mean over seeds, on test.",
        "",
        markdown_table(tables.scene_table(comparison.baseline_and_best, "test")),
        "![confusions](confusions.png)",
        "",
        "## Training",
        "",
        "![curves](curves.png)",
        "",
        "<details><summary>what validation chose, run by run</summary>",
        "",
        markdown_table(tables.chosen_table(comparison.results)),
        "</details>",
        "",
    ]


def provenance_section(
    results: Sequence[SystemResult], journal: Path, outdated: list[str], deviating: list[str], unscored: list[str]
) -> list[str]:
    """Versions, commands, what is outdated or of other settings, and what was left unfinished."""
    lines = ["## How this was made", ""]
    if outdated:
        lines += ["**Outdated** (made from something that has changed since; run the stages again):", ""]
        lines += [*(f"- {line}" for line in outdated), ""]
    if deviating:
        lines += ["**Of other settings** than most of their kind:", ""]
        lines += [*(f"- {line}" for line in deviating), ""]
    if unscored:
        lines += [f"Not scored, since they failed or are not finished: {', '.join(unscored)}.", ""]
    records = [run.provenance for result in results for run in result.runs if run.provenance]
    versions = {", ".join(f"{name} {version}" for name, version in record["versions"].items()) for record in records}
    machines = {f"{record['machine']['system']}, {record['machine']['processors']} processors" for record in records}
    dates = sorted(record["date"] for record in records) or ["?"]
    commits = " and ".join(sorted({record["commit"] for record in records}))
    lines += [f"- seeds: {sorted({seed for result in results if result.parameters for seed in result.seeds})}"]
    lines += [f"- trainings started from {dates[0]} to {dates[-1]}, commit {commits}"]
    lines += [f"- {text}" for text in (*sorted(versions), *sorted(machines))]
    lines += ["- each result's own command, configuration, inputs and versions: its `provenance.json`", ""]
    if journal.exists():
        lines += ["What was typed, oldest first:", "", "```", journal.read_text(encoding="utf-8").rstrip(), "```", ""]
    return lines


def verdict(difference: Difference, gain: str, loss: str) -> str:
    """Whether a gain, a loss, or neither is shown by the interval over locations, and what is known of other seeds."""
    what = gain if difference.mean > 0 or not difference.significant else loss
    said = f"{what} is {'shown' if difference.significant else 'not shown'}"
    if difference.seed_deviation is None:
        return f"{said}, by these trainings alone (another seed may turn it)"
    return f"{said} (standard deviation over seeds: {100 * difference.seed_deviation:.1f} points)"


def _accuracy_text(comparison: Comparison, result: SystemResult) -> str:
    bounds = format_interval(comparison.confidence_intervals[result.name])
    return f"{format_mean(result.accuracy_by_seed('test'))} %" + (f" ({bounds})" if bounds else "")


def _difference_text(difference: Difference) -> str:
    bounds = format_interval(difference.by_location, "+.1f")
    return f"{format_points(difference.mean)} points" + (f" ({bounds} over locations)" if bounds else "")
