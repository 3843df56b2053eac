#!/usr/bin/env python3
"""Stage 8: one page of results, with tables and pictures, and how each came about."""

from functools import cache
from pathlib import Path

from tagasc import command, pictures, provenance
from tagasc.console import console, log
from tagasc.files import digest, write_text
from tagasc.report import (
    BASELINE,
    SystemResult,
    accuracy_table,
    aligned,
    best_of,
    chosen_table,
    class_table,
    gather,
    markdown,
)
from tagasc.systems import read_systems, select
from tagasc.tagger_report import tagger_section
from tagasc.tags import read_record
from tagasc.training import WEIGHTS


def main(
    recipe: Path,
    experiment: Path,
    tagger: Path,
    tags: Path,
    corpus: str = "tau2019",
    tagging_corpus: str = "fsdkaggle2019",
    systems_file: Path = Path("egs/systems.yaml"),
    note: str = "",
) -> None:
    """Write ``<recipe>/exp/report``: RESULTS.md, tables and pictures.

    Args:
        recipe: folder of the recipe.
        experiment: folder of the experiment, with scored systems (stage 7).
        tagger: folder of the tagger.
        tags: folder of the tag vectors.
        corpus: name of the scene corpus.
        tagging_corpus: name of the tagging corpus.
        systems_file: the records of the systems, in whose order they are shown.
        note: a sentence that stands over the results, for instance that the corpus is synthetic.
    """
    results = gather(experiment, list(select(read_systems(systems_file), ["all"], systems_file)))
    out = recipe / "exp" / "report"
    best = best_of(results)
    beside = [result for result in results if result.name == BASELINE] + ([best] if best.name != BASELINE else [])
    pictures.accuracies(results, "test", out / "accuracies.png", " (synthetic)" if "synthetic" in note.lower() else "")
    pictures.confusions(beside or [best], "test", out / "confusions.png")
    pictures.curves(results, out / "curves.png")
    page = [f"# Results of {recipe.name}, {experiment.name}", "", *([f"**{note}**", ""] if note else [])]
    page += _accuracies(results) + _classes(results, beside) + tagger_section(tagger, tags, out)
    page += _made(
        recipe,
        results,
        _outdated(recipe / "dump" / "audio", (corpus, tagging_corpus), results, experiment, tagger, tags),
    )
    write_text(out / "RESULTS.md", "\n".join(page))
    console.print("\n" + aligned(accuracy_table(results, "test", brief=True)) + (f"\n{note}" if note else "") + "\n")
    log.info("the report: %s", out / "RESULTS.md")


def _accuracies(results: list[SystemResult]) -> list[str]:
    lines = [
        "## Accuracy",
        "",
        "Epoch, kernel and C were chosen on validation clips; the test clips were scored once. Accuracies are means ±",
        "standard deviation over seeds. Intervals are 95 % percentile intervals of a bootstrap over locations;",
        "they tell how much the figure depends on the test locations, not on the training's random numbers.",
        "*softmax* is the network's own answer.",
        "",
    ]
    for split in results[0].runs[0].scores:
        clips = results[0].runs[0].scores[split]["clips"]
        lines += [f"### {split} ({clips} clips)", "", markdown(accuracy_table(results, split))]
    return [*lines, "![accuracies](accuracies.png)", ""]


def _classes(results: list[SystemResult], beside: list[SystemResult]) -> list[str]:
    shown = " beside ".join(result.name for result in beside)
    return [
        "## Scene by scene",
        "",
        "Accuracy in %, mean over seeds, on test.",
        "",
        markdown(class_table(results, "test")),
        f"Confusions of {shown} (the best on validation):",
        "",
        "![confusions](confusions.png)",
        "",
        "## Training",
        "",
        "![curves](curves.png)",
        "",
        markdown(chosen_table(results)),
    ]


def _made(recipe: Path, results: list[SystemResult], outdated: list[tuple[str, str]]) -> list[str]:
    """Versions, commands, and what is outdated."""
    lines = ["## How this was made", ""]
    if outdated:
        lines += ["**Outdated** (made from something that has changed since; run the stages again):", ""]
        lines += [*(f"- {title}: its input {name} has changed" for title, name in outdated), ""]
    records = [run.record for result in results for run in result.runs]
    versions = {", ".join(f"{name} {version}" for name, version in record["versions"].items()) for record in records}
    machines = {f"{record['machine']['system']}, {record['machine']['processors']} processors" for record in records}
    dates = sorted(record["date"] for record in records)
    commits = " and ".join(sorted({record["commit"] for record in records}))
    lines += [f"- seeds: {sorted({run.seed for result in results for run in result.runs})}"]
    lines += [f"- trainings started from {dates[0]} to {dates[-1]}, commit {commits}"]
    lines += [f"- {text}" for text in (*sorted(versions), *sorted(machines))]
    lines += ["- each result's own command, configuration, inputs and versions: its `made_from.json`", ""]
    journal = recipe / "exp" / "log" / "commands"
    if journal.exists():
        lines += ["What was typed, oldest first:", "", "```", journal.read_text(encoding="utf-8").rstrip(), "```", ""]
    return lines


def _outdated(
    audio: Path, corpora: tuple[str, str], results: list[SystemResult], experiment: Path, tagger: Path, tags: Path
) -> list[tuple[str, str]]:
    """Results whose inputs are no longer what they were made from, each with the first such input."""
    corpus, tagging = corpora
    splits = [folder.name.removeprefix(f"{corpus}_") for folder in sorted(audio.glob(f"{corpus}_*/"))]
    packed = {split: audio / f"{corpus}_{split}" / "index.json" for split in splits}
    vectors = {split: tags / f"{corpus}_{split}.npz" for split in splits}
    of_networks = {f"audio {s}": packed[s] for s in splits} | {f"tags {s}": vectors[s] for s in splits}
    found = []

    def check(title: str, record: dict | None, files: dict[str, Path]) -> None:
        changed = [
            name for name, digest in (record or {}).get("inputs", {}).items() if _digest(files.get(name)) != digest
        ]
        found.extend((title, name) for name in changed[:1])

    if (tagger / WEIGHTS).exists():
        parts = ("curated", "noisy")
        check("tagger", provenance.read(tagger), {part: audio / f"{tagging}_{part}" / "index.json" for part in parts})
    for split in splits:
        check(
            f"tag vectors of {split}", read_record(vectors[split]), {"tagger": tagger / WEIGHTS, "audio": packed[split]}
        )
    for result in results:
        for run in result.runs:
            title, place = f"{result.name}, seed {run.seed}", f"{result.name}/seed{run.seed}"
            check(f"network of {title}", run.record, of_networks)
            codes = {split: experiment / "codes" / place / f"{split}.npz" for split in splits}
            network = experiment / "scene" / place / WEIGHTS
            for split, path in codes.items():
                check(
                    f"{split} codes of {title}",
                    read_record(path),
                    {"network": network, "audio": packed[split], "tags": vectors[split]},
                )
            check(f"scores of {title}", provenance.read(experiment / "svm" / place), codes)
    return found


@cache
def _digest(path: Path | None) -> str | None:
    return digest(path) if path is not None and path.exists() else None


if __name__ == "__main__":
    command.run(main)
