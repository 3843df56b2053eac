#!/usr/bin/env python3
"""Measures how fast this machine does the work, in clips a second, on noise, and estimates what a recipe takes.

No stage of a recipe needs it; ``run.sh --estimate`` calls it.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import Literal

import torch

from tagasc.audio.store import AudioCache
from tagasc.benchmark import estimate
from tagasc.benchmark.audio import measure_packing
from tagasc.benchmark.backend import measure_backend
from tagasc.benchmark.estimate import Speeds, TaggerCost, Workload
from tagasc.benchmark.measure import Speed
from tagasc.benchmark.scene import SceneBenchmark, measure_scene
from tagasc.benchmark.tagger import measure_tagger
from tagasc.report.markdown import aligned
from tagasc.scene.config import SceneTraining
from tagasc.scene.systems import read_systems, select
from tagasc.scene.trunk import TrunkConfig
from tagasc.tagger.config import Inference, PseudoLabels, SemiTraining, TaggerTraining
from tagasc.tagger.features import MelConfig
from tagasc.tagger.network import TaggerConfig
from tagasc.utils import cli, processes, provenance
from tagasc.utils.device import Compile, choose_device, should_compile
from tagasc.utils.errors import UserError
from tagasc.utils.files import write_json
from tagasc.utils.log import console, log

What = Literal["scene", "tagger", "pack", "svm", "all"]


@dataclass(frozen=True)
class Options:
    """What to measure, where, and how long; see ``main``."""

    scenes: SceneBenchmark
    model: TaggerConfig
    mel: MelConfig
    training: TaggerTraining
    work: Workload
    compiled: bool
    device: torch.device
    nj: int
    seconds: float
    scene_threads: int | None


def _scene(o: Options, folder: Path) -> Iterator[Speed]:
    """The scene network alone shares the cores with others of its kind."""
    threads = torch.get_num_threads()
    torch.set_num_threads(o.scene_threads or threads)
    yield from measure_scene(folder, o.scenes, o.compiled, o.device, o.seconds)
    torch.set_num_threads(threads)


MEASUREMENTS: dict[str, Callable[[Options, Path], Iterator[Speed]]] = {
    "scene": _scene,
    "tagger": lambda o, folder: measure_tagger(folder, o.model, o.mel, o.training, o.compiled, o.device, o.seconds),
    "pack": lambda o, folder: measure_packing(folder, 16 * o.nj, o.nj, o.seconds),
    "svm": lambda o, folder: measure_backend(
        o.work.train - o.work.validation, o.work.test + o.work.unused, o.scenes.trunk.code_size, o.nj, o.seconds
    ),
}


def main(
    what: What,
    seconds: float = 10.0,
    batch: int | None = None,
    trunk: TrunkConfig = TrunkConfig(),
    scene: SceneTraining = SceneTraining(),
    model: TaggerConfig = TaggerConfig(),
    mel: MelConfig = MelConfig(),
    training: TaggerTraining = TaggerTraining(),
    pseudo_labels: PseudoLabels = PseudoLabels(),
    semi: SemiTraining = SemiTraining(),
    inference: Inference = Inference(),
    folds: str = "0",
    stages: Literal[1, 2] = 1,
    work: Workload = Workload(),
    audio: Path | None = None,
    corpus: str = "tau2019",
    tagging_corpus: str = "fsdkaggle2019",
    systems: str = "all",
    seeds: str = "1 2 3",
    systems_file: Path = Path(__file__).parents[1] / "egs/systems.yaml",
    nj: int = 1,
    scene_threads: int | None = None,
    audio_cache: AudioCache = "auto",
    compile: Compile = "auto",
    device: str = "auto",
    json: Path | None = None,
) -> None:
    """Print clips a second for each part of the work, all measured in one run; for all, also what a recipe takes.

    The settings are a recipe's: --scene conf/scene.yaml --trunk conf/trunk_table1.yaml --config conf/tagger.yaml.

    Args:
        what: which part of the chain: scene, tagger, pack, svm; or all.
        seconds: for each measurement.
        batch: clips of a step, of each stream where there are several; null: the settings' on a GPU, 4 on a CPU.
        trunk: shape of the scene network.
        scene: how it is trained.
        model: shape of the tagger's network.
        mel: its spectrogram.
        training: how it is trained.
        pseudo_labels: not measured; here so that a tagger's configuration can be read.
        semi: what the tagger's stage 2 adds.
        inference: how the tagger is used.
        folds: of the tagger.
        stages: of the tagger.
        work: how much the recipe has to do.
        audio: folder of packed audio (stage 2), to count the clips in place of work's numbers.
        corpus: name of the scene corpus there.
        tagging_corpus: name of the tagging corpus there.
        systems: to be trained; controls as @NAME.
        seeds: of each.
        systems_file: the records of the systems.
        nj: processes for work on the CPU.
        scene_threads: of a scene network on the CPU; null: as many as there are cores.
        audio_cache: where the scenes' audio lies: auto, gpu, pinned, or disk.
        compile: let torch.compile make the networks; auto: on a GPU.
        device: auto, cpu, cuda, or cuda:N.
        json: also write the figures, with machine and versions, to this file.
    """
    if not 0 <= seconds < inf or (batch is not None and batch < 2) or min(nj, scene_threads or nj) < 1:
        raise UserError("--seconds must not be negative, --batch at least 2, --nj and --scene-threads at least 1")
    networks = _systems(systems.split(), systems_file) * len(seeds.split())
    if audio is not None:
        work = estimate.packed(work, audio, corpus, tagging_corpus)
    where = choose_device(device)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    log.info("%s, torch %s", name, torch.__version__)
    small = batch if where.type == "cuda" else batch or 4
    scenes = SceneBenchmark(
        trunk, replace(scene, batch=small or scene.batch), work.seconds, work.sampling_rate, audio_cache=audio_cache
    )
    made = should_compile(compile, where)
    events = replace(training, batch=small or training.batch)
    options = Options(scenes, model, mel, events, work, made, where, nj, seconds, scene_threads)
    found = [one for part in (MEASUREMENTS if what == "all" else (what,)) for one in _measured(part, options)]
    console.print("\n" + aligned((("part", "what", "clips/s", "× its first", "calls"), _rows(found))) + "\n")
    result = {"speeds": [{"part": part, **asdict(one)} for part, one in found]}
    if what == "all":
        speeds = Speeds.of(one for _, one in found)
        count = training.folds if folds == "all" else len(folds.split())
        tagger = TaggerCost(training, semi, count, stages, len(inference.pads))
        result["estimate"] = estimate.stages(work, networks, speeds, scene, tagger)
        _print_estimate(result["estimate"], estimate.epoch_scores(work, networks, speeds, scene))
    if json is not None:
        settings = {"what": what, "seconds": seconds, "batch": batch, "device": name, "nj": nj, "work": work}
        write_json(json, {**result, "provenance": provenance.record("benchmark", settings, {})})


def _measured(part: str, options: Options) -> Iterator[tuple[str, Speed]]:
    with tempfile.TemporaryDirectory() as folder:
        for one in MEASUREMENTS[part](options, Path(folder)):
            log.info("%s: %s: %.3g clips/s", part, one.what, one.clips_per_second)
            yield part, one
    log.info("%s: at most %s", part, processes.peak())


def _systems(names: list[str], path: Path) -> int:
    controls = [name for name in names if name.startswith("@")]  # of a system that training has yet to choose
    return len(select(read_systems(path), [name for name in names if name not in controls], path)) + len(controls)


def _rows(found: list[tuple[str, Speed]]) -> list[tuple[str, ...]]:
    first = {part: one.clips_per_second for part, one in reversed(found)}
    return [
        (part, one.what, f"{one.clips_per_second:.3g}", f"{one.clips_per_second / first[part]:.2f}", str(one.calls))
        for part, one in found
    ]


def _print_estimate(stages: dict[str, float | None], scores: float) -> None:
    rows = [(f"{n} {name}", _time(seconds)) for n, (name, seconds) in enumerate(stages.items())]
    rows.append(("together", _time(sum(seconds or 0 for seconds in stages.values()))))
    console.print(aligned((("stage", "estimate"), rows)))
    if scores:
        console.print(f"beside stage 5, the CPU scores every epoch in the paper's way: {_time(scores)}")
    console.print("Estimated from the speeds above; starting programs, checkpoints and waiting come on top.\n")


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "not estimated"
    for unit, length, most in (("s", 1, 100), ("min", 60, 6000), ("h", 3600, 48 * 3600)):
        if seconds < most:
            return f"{seconds / length:.{int(unit == 'h')}f} {unit}"
    return f"{seconds / 86400:.0f} days"


if __name__ == "__main__":
    cli.run(main, positional=True)
