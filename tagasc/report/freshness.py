"""Find results that are outdated, were made with other settings than most, or are unfinished."""

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
from tagasc.training.result import read_training_record
from tagasc.utils import provenance
from tagasc.utils.cli import to_json
from tagasc.utils.errors import UserError
from tagasc.utils.files import digest, read_record

# Settings that legitimately differ between runs. Validation chooses the epochs of the final fit; tags alone have no
# network and so no softmax predictions.
_MAY_DIFFER = {"system", "control", "seed", "epochs", "trained_on", "softmax_predictions"}


class Artefact(NamedTuple):
    """A result that the report depends on.

    Attributes:
        kind: name shared by results whose settings should agree.
        title: name in the report.
        record: provenance record, if there is one.
        files: possible input files, by their names in the record.
    """

    kind: str
    title: str
    record: dict[str, Any] | None
    files: dict[str, Path]


def list_artefacts(
    audio: Path, corpora: tuple[str, str], results: Sequence[SystemResult], tagger: Path, tags: Path
) -> Iterator[Artefact]:
    """List everything that the report depends on.

    Args:
        audio: folder of the packed audio.
        corpora: names of the scene corpus and the tagging corpus.
        results: scored systems.
        tagger: folder of the tagger.
        tags: folder of the tag vectors.
    """
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
            yield Artefact("network", f"network of {title}", read_training_record(paths.network), inputs)
            codes = {split: paths.codes_of(split) for split in packed}
            network = {"network": paths.weights}
            for split, path in codes.items():
                yield Artefact("codes", f"{split} codes of {title}", read_record(path), network | inputs)
            yield Artefact(f"scores {fit}", f"scores of {title}", provenance.read(paths.svm), codes)
        record = (run.test_by_epoch or {}).get("provenance")
        yield Artefact("selected on test", f"selected on test of {_title(run.paths)}", record, inputs)


def outdated(artefacts: Sequence[Artefact]) -> list[str]:
    """Describe each result of which an input has changed, with the first such input."""
    lines = []
    for _, title, record, files in artefacts:
        inputs = (record or {}).get("inputs", {})
        changed = [name for name, old in inputs.items() if name in files and _digest(files[name]) != old]
        lines.extend(f"{title}: its input {name} has changed" for name in changed[:1])
    return lines


def edited(
    results: Sequence[SystemResult], systems: Mapping[str, Mapping[str, System]], systems_file: Path
) -> list[str]:
    """Describe each network whose system was edited after training, with the first changed setting."""
    lines = []
    current = {name: to_json(system) for table in systems.values() for name, system in table.items()}
    for run, fit in product([run for result in results for run in result.runs], FITS):
        now = current.get(run.paths.system.partition("@")[0], {})
        then = (read_training_record(run.paths.of_fit(fit).network) or {}).get("config", {}).get("system", {})
        changed = [key for key in now if key in then and then[key] != now[key]]
        title = f"network of {_title(run.paths, fit)}"
        lines.extend(f"{title}: {key} was {then[key]}, is {now[key]} in {systems_file}" for key in changed[:1])
    return lines


def deviating(artefacts: Sequence[Artefact]) -> list[str]:
    """Describe each result made with other settings than most of its kind, with these settings."""
    kinds: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    for kind, title, record, _ in artefacts:
        settings = provenance.flat((record or {}).get("config", {}))
        settings = {key: str(value) for key, value in settings.items() if key.partition(".")[0] not in _MAY_DIFFER}
        if settings and kind != "scores final":  # validation chose their kernel and C
            kinds[kind][title] = settings
    lines = []
    for by_title in kinds.values():
        unusual: dict[str, list[str]] = defaultdict(list)
        for key in dict.fromkeys(key for settings in by_title.values() for key in settings):
            values = {title: settings.get(key, "not set") for title, settings in by_title.items()}
            usual, count = Counter(values.values()).most_common(1)[0]
            share = "most" if 2 * count > len(values) else "others"
            for title, value in values.items():
                if value != usual:
                    unusual[title].append(f"{key} is {value} ({share}: {usual})")
        lines += [f"{title}: {', '.join(settings)}" for title, settings in unusual.items()]
    return lines


def unscored(experiment: Path) -> list[str]:
    """Name the runs that were started but have no scores."""
    return [f"{run.system}/seed{run.seed}" for run in started_runs(experiment) if not run.scores.exists()]


def _title(paths: RunPaths, fit: str = "") -> str:
    return f"{paths.system}, seed {paths.seed}" + (f" ({fit})" if fit else "")


@cache
def _digest(path: Path) -> str | None:
    try:
        return digest(path) if path.exists() else None
    except UserError:
        return "damaged"
