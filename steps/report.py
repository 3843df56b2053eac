#!/usr/bin/env python3
"""Stage 8: one page of results, with tables and pictures, and how each came about."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from tagasc.audio.packed import packed_splits
from tagasc.report import sections
from tagasc.report.analysis import insight_sections
from tagasc.report.comparison import Comparison
from tagasc.report.markdown import aligned, escape, html_page
from tagasc.report.paper_tables import PaperFigures
from tagasc.report.results import Run, SystemResult, gather
from tagasc.report.tables import brief_table, top_systems
from tagasc.report.tagger import tagger_section
from tagasc.scene.experiment import FITS, best_on_validation, started_runs
from tagasc.scene.systems import read_systems
from tagasc.tagger.inference import TAGGER
from tagasc.utils import cli, provenance
from tagasc.utils.cli import to_json
from tagasc.utils.errors import UserError
from tagasc.utils.files import digest, read_record, write_text
from tagasc.utils.log import console, log

EGS = Path(__file__).parents[1] / "egs"
ROWS = 20  # of the table on the terminal
# By nature they differ; epochs of the final fit, as validation chose; answers, since tags alone have no network.
TELL_APART = {"system", "control", "seed", "epochs", "trained_on", "softmax_predictions"}
MIXED = "Not all results were made with the same settings; they are averaged and compared all the same"

# The kind of a result, what it is called, its record, and by name the files that it may have been made from.
Part = tuple[str, str, dict[str, Any] | None, dict[str, Path]]


def main(
    recipe: Path,
    experiment: Path,
    tagger: Path,
    tags: Path,
    corpus: str = "tau2019",
    tagging_corpus: str = "fsdkaggle2019",
    systems_file: Path = EGS / "systems.yaml",
    paper_file: Path = EGS / "paper_results.yaml",
    note: str = "",
) -> None:
    """Write ``<recipe>/exp/report``: RESULTS.md, the same as RESULTS.html, and the pictures.

    Args:
        recipe: folder of the recipe.
        experiment: folder of the experiment, with scored systems (stage 7).
        tagger: folder of the tagger.
        tags: folder of the tag vectors.
        corpus: name of the scene corpus.
        tagging_corpus: name of the tagging corpus.
        systems_file: the records of the systems, in whose order they are shown.
        paper_file: the paper's printed figures.
        note: a sentence that stands over the results, for instance that the corpus is synthetic.
    """
    tables, paper = read_systems(systems_file), PaperFigures.read(paper_file)
    results = gather(experiment, [name for records in tables.values() for name in records])
    comparison = _comparison(experiment, results, tables, tags / f"{corpus}_test.npz", recipe / "exp" / "report", note)
    title = escape(f"Results of {recipe.name}, {experiment.name}")
    parts = list(_parts(recipe / "dump" / "audio", (corpus, tagging_corpus), results, experiment, tagger, tags))
    outdated, deviating = _outdated(parts) + _edited(results, tables, systems_file), _deviating(parts)
    page = [f"# {title}", "", *([f"**{note}**", ""] if note else [])]
    page += [f"**{MIXED}** (which: under *How this was made*).", ""] if deviating else []
    page += sections.summary(comparison)
    page += sections.paper_section(comparison, paper, bool(note) or corpus != paper.corpus)
    page += (
        sections.systems_section(comparison)
        + sections.controls_section(comparison)
        + sections.scenes_section(comparison)
    )
    page += insight_sections(comparison, _best_attended(comparison))
    page += tagger_section(tagger, tags, comparison.out, comparison.watermark)
    text = "\n".join([*page, *_made(recipe, results, outdated, deviating, _unscored(experiment))])
    write_text(comparison.out / "RESULTS.md", text)
    write_text(comparison.out / "RESULTS.html", html_page(text, title, comparison.out))
    _say(comparison, note)
    if deviating:
        log.warning("%s; the report says which", MIXED)


def _comparison(
    experiment: Path, results: list[SystemResult], tables: dict, tag_vectors: Path, out: Path, note: str
) -> Comparison:
    best = best_on_validation(experiment, [result.name for result in results if result.is_ranked])
    if best is None:
        raise UserError(f"{experiment} holds scores of no system of its own networks; run stages 5 to 7")
    watermark = "synthetic" if "synthetic" in note.lower() else ""
    by_name = {result.name: result for result in results}
    return Comparison(experiment, results, tables, by_name[best], tag_vectors, out, watermark)


def _best_attended(comparison: Comparison) -> str | None:
    """The system with attention that is best on validation."""
    records = {name: record for table in comparison.tables.values() for name, record in table.items()}
    names = [result.name for result in comparison.results if result.name in records and records[result.name].heads]
    return best_on_validation(comparison.experiment, names) if names else None


def _say(comparison: Comparison, note: str) -> None:
    shown = top_systems(comparison.results, ROWS)
    more = len(comparison.results) - len(shown)
    text = aligned(brief_table(shown, "test", comparison.confidence_intervals, comparison.differences))
    if more:
        text += f"\n(the baseline and the {len(shown) - 1} best on validation; {more} more systems are in the report)"
    console.print(f"\n{text}" + (f"\n{note}" if note else "") + "\n")
    log.info("the report: %s", comparison.out / "RESULTS.md")


def _made(
    recipe: Path, results: list[SystemResult], outdated: list[str], deviating: list[str], unscored: list[str]
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
    records = [run.record for result in results for run in result.runs if run.record]
    versions = {", ".join(f"{name} {version}" for name, version in record["versions"].items()) for record in records}
    machines = {f"{record['machine']['system']}, {record['machine']['processors']} processors" for record in records}
    dates = sorted(record["date"] for record in records) or ["?"]
    commits = " and ".join(sorted({record["commit"] for record in records}))
    lines += [f"- seeds: {sorted({seed for result in results if result.parameters for seed in result.seeds})}"]
    lines += [f"- trainings started from {dates[0]} to {dates[-1]}, commit {commits}"]
    lines += [f"- {text}" for text in (*sorted(versions), *sorted(machines))]
    lines += ["- each result's own command, configuration, inputs and versions: its `provenance.json`", ""]
    journal = recipe / "exp" / "log" / "commands"
    if journal.exists():
        lines += ["What was typed, oldest first:", "", "```", journal.read_text(encoding="utf-8").rstrip(), "```", ""]
    return lines


def _parts(
    audio: Path, corpora: tuple[str, str], results: list[SystemResult], experiment: Path, tagger: Path, tags: Path
) -> Iterator[Part]:
    """All that the report is made of; results of one kind should agree in their settings."""
    corpus, tagging = corpora
    packed = {split: folder / "index.json" for split, folder in packed_splits(audio, corpus).items()}
    vectors = {split: tags / f"{corpus}_{split}.npz" for split in packed}
    inputs = {f"audio {s}": packed[s] for s in packed} | {f"tags {s}": vectors[s] for s in packed}
    if (tagger / TAGGER).exists():
        files = {part: audio / f"{tagging}_{part}" / "index.json" for part in ("curated", "noisy", "test")}
        yield "tagger", "tagger", provenance.read(tagger), files
    for split in packed:
        files = {"tagger": tagger / TAGGER, "audio": packed[split]}
        yield "tag vectors", f"tag vectors of {split}", read_record(vectors[split]), files
    for result in results:
        for run in result.runs:
            for fit in FITS:
                paths, title = run.paths.of_fit(fit), _title(result, run, fit)
                yield "network", f"network of {title}", provenance.read(paths.network), inputs
                codes = {split: paths.codes_of(split) for split in packed}
                network = {"network": paths.weights}
                for split, path in codes.items():
                    yield "codes", f"{split} codes of {title}", read_record(path), network | inputs
                yield f"scores {fit}", f"scores of {title}", provenance.read(paths.svm), codes
            title = f"selected on test of {result.name}, seed {run.seed}"
            yield "selected on test", title, (run.paper or {}).get("provenance"), inputs


def _outdated(parts: Sequence[Part]) -> list[str]:
    """Results whose inputs are no longer what they were made from, each with the first such input."""
    found = []
    for _, title, record, files in parts:
        made_from = (record or {}).get("inputs", {})
        changed = [name for name, digest in made_from.items() if name in files and _digest(files[name]) != digest]
        found.extend(f"{title}: its input {name} has changed" for name in changed[:1])
    return found


def _edited(results: list[SystemResult], tables: dict, systems_file: Path) -> list[str]:
    """Networks of a system that has another record by now, each with what differs first."""
    found = []
    records = {name: to_json(system) for table in tables.values() for name, system in table.items()}
    for result in results:
        now = records.get(result.name.partition("@")[0], {})
        for run, fit in product(result.runs, FITS):
            record = provenance.read(run.paths.of_fit(fit).network) or {}
            then = record.get("config", {}).get("system", {})
            changed = [key for key in now if key in then and then[key] != now[key]]
            text = "network of {}: its {} is {}, and {} in {}"
            title = _title(result, run, fit)
            found.extend(text.format(title, key, then[key], now[key], systems_file) for key in changed[:1])
    return found


def _title(result: SystemResult, run: Run, fit: str) -> str:
    return f"{result.name}, seed {run.seed}" + (f" ({fit})" if fit else "")


def _deviating(parts: Sequence[Part]) -> list[str]:
    """Results that were made with other settings than most of their kind, each with these."""
    kinds: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    for kind, title, record, _ in parts:
        settings = provenance.flat((record or {}).get("config", {}))
        settings = {key: str(value) for key, value in settings.items() if key.partition(".")[0] not in TELL_APART}
        if settings and kind != "scores final":  # whose kernel and C are what validation chose
            kinds[kind][title] = settings
    found = []
    for made in kinds.values():
        others: dict[str, list[str]] = defaultdict(list)
        for key in dict.fromkeys(key for settings in made.values() for key in settings):
            values = {title: settings.get(key, "not set") for title, settings in made.items()}
            usual, count = Counter(values.values()).most_common(1)[0]
            which = "most" if 2 * count > len(values) else "others"
            for title, value in values.items():
                if value != usual:
                    others[title].append(f"{key} is {value}, of {which} {usual}")
        found += [f"{title}: {'; '.join(differing)}" for title, differing in others.items()]
    return found


def _unscored(experiment: Path) -> list[str]:
    """Runs that were begun and have no scores."""
    return [f"{run.system}/seed{run.seed}" for run in started_runs(experiment) if not run.scores.exists()]


@cache
def _digest(path: Path | None) -> str | None:
    return digest(path) if path is not None and path.exists() else None


if __name__ == "__main__":
    cli.run(main)
