"""What is outdated, was made with other settings than most of its kind, or was left unfinished."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from tagasc.audio.packed import packed_splits
from tagasc.report.results import SystemResult
from tagasc.scene.experiment import FITS, RunPaths, started_runs
from tagasc.scene.systems import System
from tagasc.tagger.inference import TAGGER
from tagasc.utils import provenance
from tagasc.utils.cli import to_json
from tagasc.utils.files import digest, read_record

# By nature they differ; epochs of the final fit, as validation chose; answers, since tags alone have no network.
_TELL_APART = {"system", "control", "seed", "epochs", "trained_on", "softmax_predictions"}


class Artefact(NamedTuple):
    """Something that the report is made of.

    Attributes:
        kind: results of one kind should agree in their settings.
        title: what it is called.
        record: what it was made from.
        files: by name, the files that it may have been made from.
    """

    kind: str
    title: str
    record: dict[str, Any] | None
    files: dict[str, Path]


def list_artefacts(
    audio: Path, corpora: tuple[str, str], results: Sequence[SystemResult], tagger: Path, tags: Path
) -> Iterator[Artefact]:
    """All that the report is made of."""
    corpus, tagging = corpora
    packed = {split: folder / "index.json" for split, folder in packed_splits(audio, corpus).items()}
    vectors = {split: tags / f"{corpus}_{split}.npz" for split in packed}
    inputs = {f"audio {s}": packed[s] for s in packed} | {f"tags {s}": vectors[s] for s in packed}
    if (tagger / TAGGER).exists():
        files = {part: audio / f"{tagging}_{part}" / "index.json" for part in ("curated", "noisy", "test")}
        yield Artefact("tagger", "tagger", provenance.read(tagger), files)
    for split in packed:
        files = {"tagger": tagger / TAGGER, "audio": packed[split]}
        yield Artefact("tag vectors", f"tag vectors of {split}", read_record(vectors[split]), files)
    for run in (run for result in results for run in result.runs):
        for fit in FITS:
            paths, title = run.paths.of_fit(fit), _title(run.paths, fit)
            yield Artefact("network", f"network of {title}", provenance.read(paths.network), inputs)
            codes = {split: paths.codes_of(split) for split in packed}
            network = {"network": paths.weights}
            for split, path in codes.items():
                yield Artefact("codes", f"{split} codes of {title}", read_record(path), network | inputs)
            yield Artefact(f"scores {fit}", f"scores of {title}", provenance.read(paths.svm), codes)
        record = (run.test_by_epoch or {}).get("provenance")
        yield Artefact("selected on test", f"selected on test of {_title(run.paths)}", record, inputs)


def outdated(artefacts: Sequence[Artefact]) -> list[str]:
    """Results whose inputs are no longer what they were made from, each with the first such input."""
    found = []
    for _, title, record, files in artefacts:
        made_from = (record or {}).get("inputs", {})
        changed = [name for name, digest in made_from.items() if name in files and _digest(files[name]) != digest]
        found.extend(f"{title}: its input {name} has changed" for name in changed[:1])
    return found


def edited(
    results: Sequence[SystemResult], systems: Mapping[str, Mapping[str, System]], systems_file: Path
) -> list[str]:
    """Networks of a system that has another record by now, each with what differs first."""
    found = []
    records = {name: to_json(system) for table in systems.values() for name, system in table.items()}
    for run, fit in product([run for result in results for run in result.runs], FITS):
        now = records.get(run.paths.system.partition("@")[0], {})
        then = (provenance.read(run.paths.of_fit(fit).network) or {}).get("config", {}).get("system", {})
        changed = [key for key in now if key in then and then[key] != now[key]]
        text = "network of {}: its {} is {}, and {} in {}"
        title = _title(run.paths, fit)
        found.extend(text.format(title, key, then[key], now[key], systems_file) for key in changed[:1])
    return found


def deviating(artefacts: Sequence[Artefact]) -> list[str]:
    """Results that were made with other settings than most of their kind, each with these."""
    kinds: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    for kind, title, record, _ in artefacts:
        settings = provenance.flat((record or {}).get("config", {}))
        settings = {key: str(value) for key, value in settings.items() if key.partition(".")[0] not in _TELL_APART}
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


def unscored(experiment: Path) -> list[str]:
    """Runs that were begun and have no scores."""
    return [f"{run.system}/seed{run.seed}" for run in started_runs(experiment) if not run.scores.exists()]


def _title(paths: RunPaths, fit: str = "") -> str:
    return f"{paths.system}, seed {paths.seed}" + (f" ({fit})" if fit else "")


@cache
def _digest(path: Path) -> str | None:
    return digest(path) if path.exists() else None
