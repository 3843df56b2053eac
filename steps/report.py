#!/usr/bin/env python3
"""Stage 8: write the report of an experiment, with tables, figures and provenance."""

from pathlib import Path

from tagasc.report import freshness, sections
from tagasc.report.analysis import analysis_sections, errors_section
from tagasc.report.comparison import Comparison
from tagasc.report.groups import AUTO, group_sections
from tagasc.report.markdown import aligned, escape, html_page
from tagasc.report.paper_tables import PaperResults
from tagasc.report.results import SystemResult, read_results
from tagasc.report.tables import brief_table, top_systems
from tagasc.report.tagger import tagger_section
from tagasc.scene.experiment import best_on_validation
from tagasc.scene.systems import read_systems
from tagasc.study.ears import Ear, read_ears
from tagasc.study.events import QUESTION, events_page
from tagasc.study.taggers import taggers_section
from tagasc.utils import cli, provenance
from tagasc.utils.errors import UserError
from tagasc.utils.files import write_text
from tagasc.utils.log import console, log

EGS = Path(__file__).parents[1] / "egs"
MAX_ROWS = 20  # systems shown on the terminal
MIXED = "Not all results were made with the same settings, but all are averaged and compared"


def main(
    recipe: Path,
    experiment: Path,
    tagger: Path,
    tags: Path,
    corpus: str = "tau2019",
    tagging_corpus: str = "fsdkaggle2019",
    systems_file: Path = EGS / "systems.yaml",
    paper_file: Path = EGS / "paper_results.yaml",
    groups: str = AUTO,
    note: str = "",
) -> None:
    """Write ``<recipe>/exp/report``: RESULTS.md, figures, RESULTS.html with the same content in one file, output.csv.

    Other experiments of the same trunk, with other taggers or scales of their tags, are compared with this one. If any
    system was trained with controls, EVENTS.md and EVENTS.html say what the events bring.

    Args:
        recipe: folder of the recipe.
        experiment: folder of the experiment, with scored systems (stage 7).
        tagger: folder of the tagger.
        tags: folder of the tag vectors.
        corpus: name of the scene corpus.
        tagging_corpus: name of the tagging corpus.
        systems_file: file of the systems, which defines their order.
        paper_file: file of the paper's results.
        groups: fields of the supervisions to show the accuracy by, separated by spaces; auto: all that group clips.
        note: sentence at the top, for instance that the corpus is synthetic.
    """
    systems, paper = read_systems(systems_file), PaperResults.read(paper_file)
    order = [name for table in systems.values() for name in table]
    results = read_results(experiment, order)
    ears = read_ears(experiment, tags, corpus, results, order)
    mark = _mark(recipe / "data" / corpus)
    out, vectors = recipe / "exp" / "report", tags / f"{corpus}_test.npz"
    comparison = _comparison(experiment, results, systems, vectors, out, note, corpus == paper.corpus, mark)
    corpora, audio = (corpus, tagging_corpus), recipe / "dump" / "audio"
    artefacts = list(freshness.list_artefacts(audio, corpora, results, tagger, tags))
    outdated = freshness.outdated(artefacts) + freshness.edited(results, systems, systems_file)
    elsewhere = _outdated_elsewhere(ears, audio, corpora, tagger)
    deviating, unscored = freshness.deviating(artefacts), freshness.unscored(experiment)
    title = escape(f"Results of {recipe.name}, {experiment.name}")
    notes = [text for text in (note, mark) if text]
    page = _head(title, notes, bool(deviating))
    page += sections.summary(comparison)
    page += sections.paper_section(comparison, paper, bool(note) or corpus != paper.corpus)
    page += sections.systems_section(comparison)
    page += sections.controls_section(comparison)
    page += taggers_section(ears, elsewhere)
    page += sections.scenes_section(comparison)
    page += errors_section(comparison.out)
    page += group_sections(comparison, recipe / "data" / corpus, corpus, groups)
    page += analysis_sections(comparison)
    page += tagger_section(tagger, tags, comparison.out, comparison.watermark)
    page = _marked(page, mark)
    page += sections.provenance_section(results, recipe / "exp/log/commands", outdated, deviating, unscored)
    _write_page(out, "RESULTS", page, title)
    _write_events(ears, recipe, notes, [f"{experiment.name}: {line}" for line in outdated] + elsewhere)
    _print_summary(comparison, notes)
    if deviating:
        log.warning("%s; the report lists the differences", MIXED)


def _head(title: str, notes: list[str], mixed: bool) -> list[str]:
    """Write the title, and what must be said before any figure."""
    warnings = [f"**{escape(text)}**" for text in notes]
    warnings += [f"**{MIXED}**; see *How this was made*."] if mixed else []
    return [f"# {title}", "", *(line for text in warnings for line in (text, ""))]


def _write_page(out: Path, name: str, page: list[str], title: str) -> None:
    """Write a page as Markdown, and as one HTML file with its pictures."""
    text = "\n".join(page)
    write_text(out / f"{name}.md", text)
    write_text(out / f"{name}.html", html_page(text, title, out))


def _comparison(
    experiment: Path,
    results: list[SystemResult],
    systems: dict,
    tag_vectors: Path,
    out: Path,
    note: str,
    papers_corpus: bool,
    mark: str,
) -> Comparison:
    best = best_on_validation(experiment, [result.name for result in results if result.is_ranked])
    if best is None:
        raise UserError(f"{experiment} has no scores of a network; run stages 5 to 7")
    watermark = " · ".join(filter(None, ["synthetic" if "synthetic" in note.lower() else "", _short(mark)]))
    by_name = {result.name: result for result in results}
    return Comparison(experiment, results, systems, by_name[best], tag_vectors, out, watermark, papers_corpus)


def _outdated_elsewhere(ears: list[Ear], audio: Path, corpora: tuple[str, str], tagger: Path) -> list[str]:
    """Describe outdated results of the other experiments that this one is compared with."""
    lines = []
    for ear in ears[1:]:
        own_tagger = tagger.parent / ear.tags.name
        artefacts = list(freshness.list_artefacts(audio, corpora, ear.results, own_tagger, ear.tags))
        lines += [f"{ear.name}: {line}" for line in freshness.outdated(artefacts)]
    return lines


def _write_events(ears: list[Ear], recipe: Path, notes: list[str], outdated: list[str]) -> None:
    """Write the page on events and extra inputs, or remove that of an earlier run."""
    title, out = escape(f"{QUESTION} ({recipe.name})"), recipe / "exp" / "report"
    page = events_page(ears, title, notes, recipe / "exp/log/commands", outdated)
    paths = [out / "EVENTS.md", out / "EVENTS.html"]
    if not page:
        for path in paths:
            path.unlink(missing_ok=True)
        return
    _write_page(out, "EVENTS", page, title)
    log.info("%s %s", QUESTION, paths[0])


def _mark(manifests: Path) -> str:
    """Return what stage 1 says about clips that are not what the task gives, such as joined ones; may be empty."""
    record = provenance.read(manifests) or {}
    return str((record.get("config") or {}).get("mark", ""))


def _marked(page: list[str], mark: str) -> list[str]:
    """Add a mark to every title, since every table and figure is below one."""
    return [f"{line} ({escape(_short(mark))})" if mark and line.startswith("#") else line for line in page]


def _short(mark: str) -> str:
    """Return the words of a mark that stand with each figure: those before its colon."""
    return mark.partition(":")[0]


def _print_summary(comparison: Comparison, notes: list[str]) -> None:
    """Print a short table on the terminal, and log where the report is."""
    shown = top_systems(comparison.results, MAX_ROWS)
    more = len(comparison.results) - len(shown)
    text = aligned(brief_table(shown, "test", comparison.confidence_intervals, comparison.to_baseline))
    if more:
        text += f"\n(the baseline and the {len(shown) - 1} best on validation; {more} more systems are in the report)"
    console.print("\n".join(["", text, "", sections.headline(comparison), *notes, ""]))
    log.info("report written to %s", comparison.out / "RESULTS.md")


if __name__ == "__main__":
    cli.run(main)
