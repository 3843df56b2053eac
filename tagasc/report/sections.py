"""The report's sections on what was measured: lines of Markdown, and the pictures that they name."""

from collections.abc import Mapping

from tagasc.report import figures, tables
from tagasc.report.comparison import Difference, Study, differences, intervals
from tagasc.report.markdown import interval, markdown, mean, signed
from tagasc.report.paper_tables import TITLES, PaperFigures, by_table, heads_by_layers, paper_tables
from tagasc.report.results import BASELINE, SVM, SystemResult
from tagasc.scene.systems import TAGS_ALONE

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


def summary(study: Study) -> list[str]:
    """What came of it, in a few sentences."""
    base, best, gain = study.baseline, study.best, study.gains.get(study.best.name)
    ranked = [result for result in study.results if result.is_ranked]
    records = [name for table in study.tables.values() for name in table]
    said = [f"{sum(result.name in records for result in ranked)} of {len(records)} systems were run."]
    if base is None:
        said.append(f"The baseline was not; best on validation is {best.name}, {_accuracy(study, best)} on test.")
    elif gain is None:
        said.append(f"Best on validation is the baseline itself, {_accuracy(study, best)} on test.")
    else:
        said.append(
            f"The baseline reaches {_accuracy(study, base)} on test; best on validation is {best.name} with"
            f" {_accuracy(study, best)}, {_gain(gain)}: {verdict(gain, 'a gain', 'a loss')}."
        )
    shown = [name for name in study.holms_p if study.gains[name].shown]
    compared = len(study.holms_p)
    if compared > 1:
        above = sum(study.gains[name].mean > 0 for name in shown)
        said.append(
            f"Of {compared} systems compared to the baseline, the interval of the difference lies wholly above 0 for"
            f" {above} and wholly below for {len(shown) - above}; of many, some do so by chance, for which Holm's p,"
            f" over all {compared}, accounts."
        )
    if max(len(result.runs) for result in ranked) == 1:
        said.append("One seed each: how much a training's random numbers change is not known.")
    return [" ".join(said), "", PROTOCOLS]


def paper_section(study: Study, paper: PaperFigures, other_data: bool) -> list[str]:
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
    for name, table in paper_tables(study.tables, paper, study.results).items():
        lines += [f"### {TITLES[name]}", "", markdown(table)]
    grids = {
        TITLES[name].partition(":")[0]: heads_by_layers(study.tables[name])
        for name in ("table3", "table5")
        if name in study.tables
    }
    if any(name in study.by_name for layout in grids.values() for row in layout.names for name in row):
        figures.heat_maps(grids, study.by_name, "test", study.out / "heads_layers.png", study.mark)
        lines += ["Heads × layers, ours:", "", "![accuracy by heads and layers](heads_layers.png)", ""]
    return lines


def systems_section(study: Study) -> list[str]:
    """Every accuracy of every system, and the differences to the baseline by table."""
    lines = ["## All systems", ""]
    lines += [
        "*softmax* is the network's own answer; *standardised codes*: each value scaled to mean 0 and variance 1;",
        "*final fit*: trained once more on all training clips with what validation chose; *selected on test*: the",
        "paper's protocol, *trained on* the clips named beside it (train: without the validation clips);",
        "*validation*: of the network, by which the best system is chosen.",
        "",
    ]
    for split in study.best.runs[0].machines[SVM]["scores"]:
        bounds = study.bounds if split == "test" else intervals(study.results, split)
        clips = int(study.best.clips.of(split).sum())
        table = tables.accuracy_table(study.results, split, bounds)
        lines += [f"### {split} ({clips} clips)", "", markdown(table)]
    figures.accuracies(study.results, study.bounds, study.gains, study.out / "accuracies.png", study.mark)
    lines += ["![accuracies](accuracies.png)", ""]
    return lines + (_differences(study) if study.gains else [])


def _differences(study: Study) -> list[str]:
    lines = [
        "### Differences to the baseline, on test",
        "",
        "In percentage points. p: a permutation test that swaps whole locations between system and baseline; Holm's",
        f"correction is over all systems that are compared to the baseline here ({len(study.holms_p)}), whatever",
        "their table. Of several seeds, each clip counts with its share of right ones; McNemar's test, which needs one",
        "answer a clip, takes the first seed that both have.",
        "",
    ]
    for table, names in by_table(study.tables, study.holms_p).items():
        if names:
            title = TITLES.get(table, table).partition(":")[0]
            lines += [f"**{title}**", "", markdown(tables.difference_table(study.gains, names, study.holms_p))]
    return lines


def controls_section(study: Study) -> list[str]:
    """Whether the events help, or only the extra parameters do."""
    system = _controlled(study)
    if system is None:
        return ["## Controls", "", "No system with tags was run.", ""]
    shown = [result for result in study.results if result.name.partition("@")[0] in (system.name, BASELINE, TAGS_ALONE)]
    to_system = differences(shown, system, "test")
    lines = [
        "## Controls",
        "",
        f"{system.name} trained anew with altered tags in all splits. The two that use the true label are no systems:",
        "their figures say what tags could do if they knew the scene, and are never ranked.",
        "",
        markdown(tables.control_table(shown, system, "test", study.gains, to_system)),
    ]
    return [*lines, _control_verdict(system, study.gains, to_system), ""]


def _controlled(study: Study) -> SystemResult | None:
    """Of the systems that have controls the one that is best on validation; without any, of those with tags."""
    with_tags = [result for result in study.results if result.is_ranked and result is not study.baseline]
    names = {result.name.partition("@")[0] for result in study.results if "@" in result.name}
    controlled = [result for result in with_tags if result.name in names]
    return max(controlled or with_tags, key=lambda result: result.validation().mean(), default=None)


def _control_verdict(
    system: SystemResult, to_baseline: Mapping[str, Difference], to_system: Mapping[str, Difference]
) -> str:
    """Sentences out of the intervals over locations."""
    said = []
    for kind in ("shuffled", "constant"):
        name = f"{system.name}@{kind}"
        if name in to_system:
            gap = to_system[name].turned()
            said.append(f"{system.name} minus {name}: {_gain(gap)}: {verdict(gap, 'help from the events', 'harm')}.")
        if name in to_baseline:
            gap = to_baseline[name]
            what = verdict(gap, "help from the extra parameters alone", "harm")
            said.append(f"{name} minus the baseline: {_gain(gap)}: {what}.")
    return " ".join(said) or "Whether the events help, or only the extra parameters do: not known, no control was run."


def scenes_section(study: Study) -> list[str]:
    """Class by class, confusions, and training curves."""
    titles = " beside ".join(result.name for result in study.beside)
    which = "the best" if study.best is study.beside[-1] else "the best of the others"
    figures.confusions(study.beside, "test", study.out / "confusions.png", study.mark)
    figures.curves(study.results, study.beside, study.out / "curves.png", study.mark)
    return [
        "## Scene by scene",
        "",
        f"{titles} ({which} on validation). Accuracy in %, mean over seeds, on test.",
        "",
        markdown(tables.class_table(study.beside, "test")),
        "![confusions](confusions.png)",
        "",
        "## Training",
        "",
        "![curves](curves.png)",
        "",
        "<details><summary>what validation chose, run by run</summary>",
        "",
        markdown(tables.chosen_table(study.results)),
        "</details>",
        "",
    ]


def verdict(difference: Difference, gain: str, loss: str) -> str:
    """Whether a gain, a loss, or neither is shown by the interval over locations, and what is known of other seeds."""
    what = gain if difference.mean > 0 or not difference.shown else loss
    said = f"{what} is {'shown' if difference.shown else 'not shown'}"
    if difference.spread is None:
        return f"{said}, by these trainings alone (another seed may turn it)"
    return f"{said} (standard deviation over seeds: {100 * difference.spread:.1f} points)"


def _accuracy(study: Study, result: SystemResult) -> str:
    bounds = interval(study.bounds[result.name])
    return f"{mean(result.accuracies('test'))} %" + (f" ({bounds})" if bounds else "")


def _gain(difference: Difference) -> str:
    bounds = interval(difference.by_location, "+.1f")
    return f"{signed(difference.mean)} points" + (f" ({bounds} over locations)" if bounds else "")
