"""The report's sections on accuracies, controls and provenance: lines of Markdown, and the figures that they show."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tagasc.report import figures, tables
from tagasc.report.comparison import Comparison, Difference, accuracy_intervals, compute_differences
from tagasc.report.markdown import escape, format_interval, format_mean, format_points, markdown_table
from tagasc.report.paper_tables import TITLES, PaperResults, by_table, filled_tables, heads_by_layers
from tagasc.report.results import BASELINE, SystemResult
from tagasc.report.statistics import LEVEL, MIN_UNITS
from tagasc.scene.systems import TAGS_ONLY

OURS = """\
- **Ours** (the result that counts): the network's validation accuracy selects the epoch, the SVM's validation
  accuracy selects kernel and C. Test clips are scored once. Values are means ± standard deviations over seeds.
"""
SELECTED_ON_TEST = """\
- **Selected on test** (the paper's protocol, for comparison only): after every epoch, codes are extracted and an SVM
  with C = 1 is trained. The best epoch and kernel are selected *on the test clips*, which overestimates accuracy.
"""
TEST_UNUSED = """\
- **test** is the official test set. **test+unused** adds the clips that the official lists leave out, as the paper
  presumably did for part of its results.
"""
SELECTED_COLUMN = [
    "- *selected on test*: the paper's protocol, *trained on* the clips in the next column; train excludes the",
    "  validation clips.",
]
STATISTICS = f"""\
- **95 % CI**: 95 % confidence interval, percentile bootstrap over recording locations unless stated otherwise. It
  shows how much a result depends on the test locations. No interval includes the variance over trainings. Of fewer
  than {MIN_UNITS} locations there is no interval, since it would be too narrow.
- **Significant**: the confidence interval over locations excludes 0, and the permutation test over locations agrees
  (p below {LEVEL}). The *standard deviation over seeds* given with it is that of the difference, over the seeds that
  both systems have.
"""


def headline(comparison: Comparison) -> str:
    """Say in one sentence what the best system on validation reaches on test, compared with the baseline."""
    baseline, best, difference = comparison.baseline, comparison.best, comparison.to_baseline.get(comparison.best.name)
    reached = _accuracy_text(comparison, best)
    if baseline is None:
        return f"The baseline was not run. The best system on validation, {best.name}, reaches {reached} on test."
    if difference is None:
        return f"The best system on validation is the baseline itself; it reaches {reached} on test."
    return (
        f"The best system on validation, {best.name}, reaches {reached} on test, the baseline"
        f" {_accuracy_text(comparison, baseline)}: a difference of {_difference_text(difference, 'gain', 'loss')}."
    )


def summary(comparison: Comparison) -> list[str]:
    """Summarise the results in a few sentences, and explain protocols and statistics."""
    ranked = [result for result in comparison.results if result.is_ranked]
    known = [name for table in comparison.systems.values() for name in table]
    text = [f"{sum(result.name in known for result in ranked)} of {len(known)} systems were run."]
    text.append(headline(comparison))
    significant = [name for name in comparison.holms_p if comparison.to_baseline[name].significant]
    compared = len(comparison.holms_p)
    if compared > 1:
        above = sum(comparison.to_baseline[name].mean > 0 for name in significant)
        text.append(
            f"Significantly better than the baseline: {above} of {compared} systems; significantly worse:"
            f" {len(significant) - above}. Among many systems, some differences are significant by chance; Holm's p"
            f" corrects for all {compared} comparisons."
        )
    text += _test_set(comparison.best)
    if max(len(result.runs) for result in ranked) == 1:
        text.append("Each system has one seed, so the variance over seeds is unknown.")
    protocols = OURS + SELECTED_ON_TEST * comparison.selected_on_test
    protocols += TEST_UNUSED * ("test+unused" in comparison.test_sets) + STATISTICS
    return [" ".join(text), "", protocols]


def _test_set(result: SystemResult) -> list[str]:
    """Say how many clips and locations the test set has, and what too few locations mean."""
    locations = result.clips.locations[result.clips.in_split("test")]
    count = len(set(locations))
    text = [f"The {len(locations)} test clips are from {_counted(count)}."]
    if count < MIN_UNITS:
        text.append(
            f"These are too few to generalise from: without at least {MIN_UNITS} there are no confidence intervals,"
            " and no difference counts as significant."
        )
    return text


def _counted(locations: int) -> str:
    return f"{locations} location{'s' if locations != 1 else ''}"


def paper_section(comparison: Comparison, paper: PaperResults, other_data: bool) -> list[str]:
    """Show Tables 2 to 6 with the paper's results and ours.

    Args:
        comparison: results.
        paper: the paper's results.
        other_data: ours are for another corpus than the paper's.
    """
    lines = ["## The paper's tables", ""]
    lines += [
        "Each cell shows *the paper's accuracy* above **ours** (our protocol, SVM, test). The paper's were presumably",
        "selected on test, as in its authors' released code. By their digits they refer to two test sets. If the paper",
        "truncates, all of Table 2 fits the 5215 clips of test and unused, all of Tables 4 and 5 the 4185 clips of",
        "test, and Table 3 mixes the two. If it rounds, neither test set fits all of Table 2, 4 or 5.",
        "",
    ]
    if other_data:
        corpus = "TAU Urban Acoustic Scenes 2019"
        lines += [f"**The paper's results are for other data ({corpus}), and not comparable with ours.**", ""]
    for name, table in filled_tables(comparison.systems, paper, comparison.results).items():
        lines += [f"### {TITLES[name]}", "", markdown_table(table)]
    grids = {
        _number(name): heads_by_layers(comparison.systems[name])
        for name in ("table3", "table5")
        if name in comparison.systems
    }
    if any(name in comparison.by_name for grid in grids.values() for row in grid.names for name in row):
        path = comparison.out / "heads_layers.png"
        figures.plot_heat_maps(grids, comparison.by_name, "test", path, comparison.watermark)
        lines += ["Heads × layers, ours:", "", "![accuracy by heads and layers](heads_layers.png)", ""]
    return lines


def systems_section(comparison: Comparison) -> list[str]:
    """Show every accuracy of every system, and the differences to the baseline by table of the paper."""
    lines = ["## All systems", ""]
    lines += [
        "- *standardised codes*: each value of the codes is scaled to mean 0 and variance 1.",
        "- *softmax*: the network's own prediction, without an SVM.",
        "- *final fit*: trained again on all training clips, with the choices made on validation.",
        *(SELECTED_COLUMN if comparison.selected_on_test else []),
        "- *validation*: accuracy of the network, which selects the best system.",
        "",
    ]
    for split in comparison.test_sets:
        test = split == "test"
        intervals = comparison.confidence_intervals if test else accuracy_intervals(comparison.results, split)
        clips = int(comparison.best.clips.in_split(split).sum())
        table = tables.accuracy_table(comparison.results, split, intervals, comparison.selected_on_test)
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
        "Differences are in percentage points. The permutation test swaps whole locations between system and",
        f"baseline. Holm's correction covers all {len(comparison.holms_p)} systems compared with the baseline, of all",
        "tables. With several seeds, each clip counts with the share of seeds that recognise it. McNemar's test needs",
        "one prediction per clip; it uses the first seed that both systems have.",
        "",
    ]
    for table, names in by_table(comparison.systems, comparison.holms_p).items():
        if names:
            differences = tables.difference_table(comparison.to_baseline, names, comparison.holms_p)
            lines += [f"**{_number(table)}**", "", markdown_table(differences)]
    return lines


def controls_section(comparison: Comparison) -> list[str]:
    """Show whether the events help, or only the additional parameters."""
    system = _controlled(comparison)
    if system is None:
        return ["## Controls", "", "No system with tags was run.", ""]
    family = (system.name, BASELINE, TAGS_ONLY)
    results = [result for result in comparison.results if result.name.partition("@")[0] in family]
    to_system = compute_differences(results, system, "test")
    return [
        "## Controls",
        "",
        f"{escape(system.name)} was trained again with altered tags in all splits. Controls that use the true label",
        "are not systems and never ranked: they show what tags could achieve if they knew the scene.",
        "",
        markdown_table(tables.control_table(results, system, "test", comparison.to_baseline, to_system)),
        *_control_verdicts(system, comparison.to_baseline, to_system),
        "",
    ]


def _controlled(comparison: Comparison) -> SystemResult | None:
    """Return the system with controls that is best on validation; without controls, the best system with tags."""
    with_tags = [result for result in comparison.results if result.is_ranked and result is not comparison.baseline]
    names = {result.name.partition("@")[0] for result in comparison.results if "@" in result.name}
    controlled = [result for result in with_tags if result.name in names]
    return max(controlled or with_tags, key=lambda result: result.validation_by_seed().mean(), default=None)


def _control_verdicts(
    system: SystemResult, to_baseline: Mapping[str, Difference], to_system: Mapping[str, Difference]
) -> list[str]:
    lines = []
    for control in ("shuffled", "constant"):
        name = f"{system.name}@{control}"
        if name in to_system:
            text = _difference_text(to_system[name].negated(), "benefit from the events", "harm")
            lines.append(escape(f"- {system.name} minus {name}: {text}."))
        if name in to_baseline:
            text = _difference_text(to_baseline[name], "benefit from the additional parameters alone", "harm")
            lines.append(escape(f"- {name} minus baseline: {text}."))
    unknown = "It is unknown whether the events help or only the additional parameters: no control was run."
    return lines or [unknown]


def scenes_section(comparison: Comparison) -> list[str]:
    """Show accuracy by scene, confusion matrices, learning curves, and what validation chose."""
    shown, watermark = comparison.baseline_and_best, comparison.watermark
    names = escape(" and ".join(result.name for result in shown))
    rank = "the best" if comparison.best is shown[-1] else "the best of the others"
    figures.plot_confusions(shown, "test", comparison.out / "confusions.png", watermark)
    figures.plot_curves(comparison.results, shown, comparison.out / "curves.png", watermark)
    return [
        "## Accuracy by scene",
        "",
        f"{names} ({rank} on validation): accuracy on test in %, mean over seeds.",
        "",
        markdown_table(tables.scene_table(shown, "test")),
        "![confusion matrices](confusions.png)",
        "",
        "## Training",
        "",
        "![learning curves](curves.png)",
        "",
        "<details><summary>epoch, kernel and C of each run, chosen on validation</summary>",
        "",
        markdown_table(tables.chosen_table(comparison.results)),
        "</details>",
        "",
    ]


def provenance_section(
    results: Sequence[SystemResult],
    journal: Path,
    outdated: Sequence[str],
    deviating: Sequence[str],
    unscored: Sequence[str],
) -> list[str]:
    """List outdated, deviating and unfinished results, versions, and commands.

    Args:
        results: scored systems.
        journal: file of the commands typed so far; may be missing.
        outdated: lines on results with changed inputs.
        deviating: lines on results made with other settings than most.
        unscored: names of runs without scores.
    """
    lines = ["## How this was made", ""]
    for title, items in (
        ("**Outdated**, because an input or the system has changed; run their stages again:", outdated),
        ("**Made with other settings** than most results of their kind:", deviating),
    ):
        lines += [title, "", *(f"- {escape(item)}" for item in items), ""] if items else []
    if unscored:
        lines += [f"Not scored, because they failed or are unfinished: {escape(', '.join(unscored))}.", ""]
    records = [run.provenance for result in results for run in result.runs if "versions" in run.provenance]
    versions = {", ".join(f"{name} {version}" for name, version in record["versions"].items()) for record in records}
    machines = {f"{record['machine']['system']}, {record['machine']['processors']} processors" for record in records}
    dates = sorted(record["date"] for record in records) or ["?"]
    commits = " and ".join(sorted({record["commit"] for record in records}))
    configs = [record.get("config", {}) for record in records]
    precisions = " and ".join(sorted({str(config["precision"]) for config in configs if "precision" in config}))
    lines += [f"- seeds: {sorted({seed for result in results if result.parameters for seed in result.seeds})}"]
    started = f"trainings started from {dates[0]} to {dates[-1]}, commit {commits}"
    computed = f"precision of the networks in training: {precisions or 'not recorded'}"
    lines += [f"- {escape(text)}" for text in (started, computed, *sorted(versions), *sorted(machines))]
    lines += ["- command, configuration, inputs and versions of each result: its `provenance.json`", ""]
    if journal.exists():
        commands = journal.read_text(encoding="utf-8").rstrip().replace("```", "` ` `")  # they would end the block
        lines += ["Commands, oldest first:", "", "```", commands, "```", ""]
    return lines


def verdict(difference: Difference, gain: str, loss: str) -> str:
    """Say whether a gain or loss is significant, and what is known about other seeds."""
    if difference.locations < MIN_UNITS:
        return f"no significant {gain} can be claimed from {_counted(difference.locations)}"
    effect = gain if difference.mean > 0 or not difference.significant else loss
    text = f"{'significant' if difference.significant else 'no significant'} {effect}"
    if difference.seed_deviation is None:
        return f"{text} (fewer than three shared seeds; another seed may reverse it)"
    return f"{text} (standard deviation over seeds: {100 * difference.seed_deviation:.1f} points)"


def _accuracy_text(comparison: Comparison, result: SystemResult) -> str:
    interval = format_interval(comparison.confidence_intervals[result.name])
    return f"{format_mean(result.accuracy_by_seed('test'))} %" + (f" (95 % CI {interval})" if interval else "")


def _difference_text(difference: Difference, gain: str, loss: str) -> str:
    interval = format_interval(difference.by_location, "+.1f")
    points = f"{format_points(difference.mean)} points" + (f" (95 % CI {interval})" if interval else "")
    return f"{points}: {verdict(difference, gain, loss)}"


def _number(table: str) -> str:
    """Return the number of one of the paper's tables, such as "Table 3"."""
    return TITLES.get(table, table).partition(":")[0]
