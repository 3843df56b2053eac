#!/usr/bin/env python3
"""Measures this machine's speed on noise, in clips a second, and estimates the duration of a recipe.

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
from tagasc.benchmark.estimate import TaggerCost, Throughput, Workload
from tagasc.benchmark.measure import Speed
from tagasc.benchmark.scene import SceneBenchmark, measure_scene
from tagasc.benchmark.tagger import measure_tagger
from tagasc.report.markdown import aligned
from tagasc.scene.config import SceneTraining
from tagasc.scene.systems import read_systems, select
from tagasc.scene.trunk import TrunkConfig
from tagasc.tagger.config import InferenceConfig, PseudoLabelConfig, SemiTraining, TaggerTraining
from tagasc.tagger.features import MelConfig
from tagasc.tagger.network import TaggerConfig
from tagasc.training.ladder import Ladder
from tagasc.utils import cli, processes, provenance
from tagasc.utils.device import Compile, Precision, choose_device, precision_on
from tagasc.utils.errors import UserError
from tagasc.utils.files import write_json
from tagasc.utils.log import console, log


@dataclass(frozen=True)
class Options:
    """Print clips a second of each part of the work; for all, also the estimated duration of each stage.

    Give a recipe's settings: --scene conf/paper.yaml --trunk conf/trunk_table1.yaml --config conf/tagger.yaml.

    Args:
        what: part of the work to measure: scene, tagger, pack, svm; or all.
        seconds: duration of each measurement, seconds.
        batch: clips per step and stream; null: as configured on a GPU, 4 on a CPU.
        trunk: shape of the scene network.
        scene: training of the scene network.
        model: shape of the tagger's network.
        mel: log-mel spectrogram of the tagger.
        training: training of the tagger.
        pseudo_labels: not measured; part of a tagger's configuration.
        semi: second, semi-supervised stage of the tagger.
        inference: inference of the tagger.
        folds: folds of the tagger to train, as in "0 1 2", or all.
        stages: stages of the tagger.
        work: amount of work; its counts serve corpora that have no clips yet.
        data: folder of the corpora's folders of manifests (stage 1), to count the clips.
        audio: folder of packed audio (stage 2), to count the clips where there are no manifests.
        corpus: name of the scene corpus.
        tagging_corpus: name of the tagging corpus.
        systems: systems to train; controls as @NAME.
        seeds: seeds, one network per system and seed.
        systems_file: YAML file of the systems.
        nj: CPU processes.
        scene_threads: threads of a scene network on the CPU; null: one per core.
        audio_cache: storage of the scene clips' audio: auto, gpu, pinned, or disk.
        compile: use torch.compile; auto: on a GPU.
        device: auto, cpu, cuda, or cuda:N.
        precision: precision of networks: float32 (never TF32), bfloat16, or auto (bfloat16 on a GPU that has it).
        json: file for the figures, with machine and versions.
    """

    what: Literal["scene", "tagger", "pack", "svm", "all"]
    seconds: float = 10.0
    batch: int | None = None
    trunk: TrunkConfig = TrunkConfig()
    scene: SceneTraining = SceneTraining()
    model: TaggerConfig = TaggerConfig()
    mel: MelConfig = MelConfig()
    training: TaggerTraining = TaggerTraining()
    pseudo_labels: PseudoLabelConfig = PseudoLabelConfig()
    semi: SemiTraining = SemiTraining()
    inference: InferenceConfig = InferenceConfig()
    folds: str = "0"
    stages: Literal[1, 2] = 1
    work: Workload = Workload()
    data: Path | None = None
    audio: Path | None = None
    corpus: str = "tau2019"
    tagging_corpus: str = "fsdkaggle2019"
    systems: str = "all"
    seeds: str = "1 2 3"
    systems_file: Path = Path(__file__).parents[1] / "egs/systems.yaml"
    nj: int = 1
    scene_threads: int | None = None
    audio_cache: AudioCache = "auto"
    compile: Compile = "auto"
    device: str = "auto"
    precision: Precision = "auto"
    json: Path | None = None


@dataclass(frozen=True)
class Setup:
    """The options resolved for this machine."""

    options: Options
    work: Workload
    scenes: SceneBenchmark
    training: TaggerTraining
    device: torch.device
    ladder: Ladder


def _scene(setup: Setup, folder: Path) -> Iterator[Speed]:
    """Measure the scene network with its number of threads, since several of them may share the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(setup.options.scene_threads or threads)
    yield from measure_scene(folder, setup.scenes, setup.ladder, setup.device, setup.options.seconds)
    torch.set_num_threads(threads)


def _tagger(setup: Setup, folder: Path) -> Iterator[Speed]:
    options = setup.options
    return measure_tagger(
        folder, options.model, options.mel, setup.training, setup.ladder.rung != "plain", setup.device, options.seconds
    )


def _pack(setup: Setup, folder: Path) -> Iterator[Speed]:
    return measure_packing(folder, 16 * setup.options.nj, setup.options.nj, setup.options.seconds)


def _svm(setup: Setup, _: Path) -> Iterator[Speed]:
    work, values = setup.work, setup.scenes.trunk.code_size
    return measure_backend(
        work.train - work.validation, work.test + work.unused, values, setup.options.nj, setup.options.seconds
    )


MEASUREMENTS: dict[str, Callable[[Setup, Path], Iterator[Speed]]] = {
    "scene": _scene,
    "tagger": _tagger,
    "pack": _pack,
    "svm": _svm,
}


def main(options: Options) -> None:
    """Measure, print and write."""
    if not 0 <= options.seconds < inf or (options.batch is not None and options.batch < 2):
        raise UserError("--seconds must not be negative, --batch at least 2")
    if min(options.nj, options.scene_threads or options.nj) < 1:
        raise UserError("--nj and --scene-threads must be at least 1")
    networks = _systems(options.systems.split(), options.systems_file) * len(options.seeds.split())
    work = estimate.count(options.work, options.corpus, options.tagging_corpus, options.data, options.audio)
    device = choose_device(options.device, precision=options.precision)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    log.info("%s, torch %s, %s", name, torch.__version__, precision_on(device))
    setup = _setup(options, work, device)
    parts = MEASUREMENTS if options.what == "all" else (options.what,)
    speeds = [(part, speed) for part in parts for speed in _measured(part, setup)]
    columns = ("part", "what", "clips/s", "× its first", "calls", "first call, s", "GPU, GB")
    console.print("\n" + aligned((columns, _rows(speeds))) + "\n")
    result = {"speeds": [{"part": part, **asdict(speed)} for part, speed in speeds]}
    if options.what == "all":
        throughput = Throughput.of(speed for _, speed in speeds)
        count = options.training.folds if options.folds == "all" else len(options.folds.split())
        tagger = TaggerCost(options.training, options.semi, count, options.stages, len(options.inference.pads))
        result["estimate"] = estimate.stages(work, networks, throughput, options.scene, tagger)
        _print_estimate(result["estimate"], estimate.epoch_scores(work, networks, throughput, options.scene))
    if options.json is not None:
        given = {key: getattr(options, key) for key in ("what", "seconds", "batch", "nj")}
        given |= {"device": name, "precision": precision_on(device), "work": work}
        record = provenance.record("benchmark", given, {})
        write_json(options.json, {**result, "provenance": record})


def _setup(options: Options, work: Workload, device: torch.device) -> Setup:
    batch = options.batch if device.type == "cuda" else options.batch or 4
    training = replace(options.training, batch=batch or options.training.batch)
    scene = replace(options.scene, batch=batch or options.scene.batch)
    scenes = SceneBenchmark(options.trunk, scene, work.seconds, work.sampling_rate, audio_cache=options.audio_cache)
    return Setup(options, work, scenes, training, device, Ladder(options.compile, device))


def _measured(part: str, setup: Setup) -> Iterator[Speed]:
    with tempfile.TemporaryDirectory() as folder:
        for speed in MEASUREMENTS[part](setup, Path(folder)):
            log.info("%s: %s: %.3g clips/s", part, speed.what, speed.clips_per_second)
            yield speed
    log.info("%s: at most %s", part, processes.peak_memory())


def _systems(names: list[str], path: Path) -> int:
    controls = [name for name in names if name.startswith("@")]  # each of the best system, which is not known yet
    return len(select(read_systems(path), [name for name in names if name not in controls], path)) + len(controls)


def _rows(speeds: list[tuple[str, Speed]]) -> list[tuple[str, ...]]:
    first = {part: speed.clips_per_second for part, speed in reversed(speeds)}
    return [
        (part, s.what, f"{s.clips_per_second:.3g}", f"{s.clips_per_second / first[part]:.2f}", str(s.calls))
        + (f"{s.first:.1f}", f"{s.memory / 1e9:.1f}" if s.memory else "-")
        for part, s in speeds
    ]


def _print_estimate(stages: dict[str, float | None], scores: float) -> None:
    rows = [(f"{n} {name}", _time(seconds)) for n, (name, seconds) in enumerate(stages.items())]
    rows.append(("total", _time(sum(seconds or 0 for seconds in stages.values()))))
    console.print(aligned((("stage", "estimate"), rows)))
    if scores:
        console.print(f"during stage 5, the CPU also scores every epoch as in the paper: {_time(scores)}")
    console.print("Estimated from the speeds above, without start of programs, compilation, checkpoints and waiting.\n")


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "not estimated"
    for unit, length, most in (("s", 1, 100), ("min", 60, 6000), ("h", 3600, 48 * 3600)):
        if seconds < most:
            return f"{seconds / length:.{int(unit == 'h')}f} {unit}"
    return f"{seconds / 86400:.0f} days"


if __name__ == "__main__":
    cli.run(main, positional=True)
