#!/usr/bin/env python3
"""Stage 9: hand a trained system on, as a folder that works without the recipe."""

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from steps.complexity import describe
from tagasc.scene.systems import read_systems
from tagasc.utils import cli, provenance
from tagasc.utils.errors import UserError
from tagasc.utils.files import atomic_folder
from tagasc.utils.log import log

ROOT = Path(__file__).parents[1]
INSTALL = f"{sys.executable} -m pip install -c {ROOT / 'constraints.txt'} -r {ROOT / 'requirements-export.txt'}"


@dataclass(frozen=True)
class Options:
    """Write ``<recipe>/exp/bundle/<system>``: models in ONNX, runner, card, description and an example.

    Pages about its surest wrong answers on test go into ``<recipe>/exp/report/errors``; stage 8 links them.

    Args:
        recipe: folder of the recipe.
        experiment: folder of the experiment, with scored systems (stage 7).
        audio: folder of packed audio (stage 2).
        tags: folder of tag vectors (stage 4).
        tags_from: tag source of stage 4: folder of the tagger, an .npz, or another tagger such as hf:MODEL.
        corpus: name of the scene corpus.
        tagging_corpus: name of the tagging corpus, or none.
        export_system: auto, which is the best system on validation; or NAME, or NAME/seedK.
        clips: test clips, evenly spaced, on which ONNX is compared with PyTorch and scikit-learn.
        systems_file: file of the systems.
        licences: file of the corpora's licences.
        note: sentence on the data, for instance that the corpus is synthetic.
        force: export again what is up to date.
    """

    recipe: Path
    experiment: Path
    audio: Path
    tags: Path
    tags_from: str
    corpus: str = "tau2019"
    tagging_corpus: str = "fsdkaggle2019"
    export_system: str = "auto"
    clips: int = 500
    systems_file: Path = ROOT / "egs/systems.yaml"
    licences: Path = ROOT / "egs/licences.yaml"
    note: str = ""
    force: bool = False


def main(options: Options) -> None:
    """Export one system; see ``Options``."""
    if missing := [package for package in ("onnx", "onnxruntime") if find_spec(package) is None]:
        raise UserError(f"stage 9 (bundle) needs {' and '.join(missing)}; install: {INSTALL}")
    if options.clips < 1:
        raise UserError(f"--clips {options.clips} must be at least 1")
    from tagasc.bundle.folder import MODEL
    from tagasc.bundle.runner import load
    from tagasc.bundle.schema import NAME
    from tagasc.export.program import runner_files
    from tagasc.export.system import Sources, choose_run, load_system
    from tagasc.export.worst import write_error_pages
    from tagasc.export.writing import WRITTEN, Origin, write_bundle
    from tagasc.report.analysis import ERRORS_FOLDER

    systems = read_systems(options.systems_file)
    run = choose_run(options.experiment, [name for table in systems.values() for name in table], options.export_system)
    sources = Sources(run, options.audio, options.corpus, options.tags, options.tags_from)
    system = load_system(sources)
    files = sources.files(bool(system.events)) | {f"runner {path}": ROOT / path for path in runner_files()}
    files["licences"] = options.licences
    config = {"clips": options.clips, "note": options.note, "corpora": [options.corpus, options.tagging_corpus]}
    record = provenance.record("export", config, files)
    out = options.recipe / "exp" / "bundle" / run.system
    if provenance.is_current(f"bundle {out.name}", provenance.read_whole(out), record, options.force):
        return
    form, scenes = (system.contract.frames, system.contract.channels), len(system.svm.classes_)
    row = describe(run.system, system.fusion, system.trunk, form, scenes, len(system.events) or 1)
    size = {"parameters": row["parameters"], "multiply_accumulates": row["multiply-accumulates"]}
    journal = options.recipe / "exp" / "log" / "commands"
    origin = Origin(options.tagging_corpus, options.note, options.licences, journal, record, size, options.clips)
    with atomic_folder(out, *WRITTEN) as folder:
        about, checked = write_bundle(folder, sources, system, origin)
        provenance.write(folder, record, [folder / NAME, folder / MODEL])
    pages = options.recipe / "exp" / "report" / ERRORS_FOLDER
    given = None if checked.own else checked.tags
    write_error_pages(pages, load(out), checked.packed, given, checked.found, record["date"])
    parity, size = about["parity"], sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    difference = parity["largest_difference"]["pair decisions"]
    log.info(
        "%s: the same scene as PyTorch for all %d clips, decisions to %.0e", run.title, parity["clips"], difference
    )
    log.info("%s (%.1f MB); to use it: steps/predict.py %s RECORDING.wav", out, size / 1e6, out)


if __name__ == "__main__":
    cli.run(main)
