#!/usr/bin/env python3
"""Check names of systems, controls, seeds and configurations, on which a late stage would fail after hours of work.

It also deletes temporary files that killed programs left in the recipe: run.sh calls it first, and holds the lock.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from tagasc.scene.controls import CONTROLS
from tagasc.scene.experiment import parse_seeds
from tagasc.scene.systems import read_systems, select
from tagasc.tagger.tags import TagScale
from tagasc.utils import cli
from tagasc.utils.errors import UserError
from tagasc.utils.log import log
from tagasc.utils.temporary import clear_leftovers


@dataclass(frozen=True)
class Options:
    """Check the names that a recipe and the options of run.sh hold; print the number of networks to train.

    Args:
        conf: the recipe's folder of configurations.
        systems: systems or tables, separated by spaces, or all.
        controls: controls of the best system, such as @shuffled, separated by spaces.
        seeds: separated by spaces.
        trunk: name of the trunk, of which conf holds trunk_NAME.yaml.
        training: name of the scene networks' training, of which conf holds NAME.yaml.
        tagger: name of the tagger, of which conf holds tagger_NAME.yaml or tagger.yaml; empty: none is trained.
        tag_scale: scale of the tags; empty: as configured.
        stop_stage: last stage that will run.
        systems_file: the systems.
    """

    conf: Path
    systems: str
    controls: str = ""
    seeds: str = "1"
    trunk: str = "table1"
    training: str = "scene"
    tagger: str = ""
    tag_scale: str = ""
    stop_stage: int = 8
    systems_file: Path = Path(__file__).parents[1] / "egs/systems.yaml"


def main(options: Options) -> None:
    """Delete what killed programs left, and print the number of networks."""
    for path in clear_leftovers(options.conf.resolve().parent / name for name in ("data", "dump", "exp")):
        log.info("%s: left by a program that was killed, deleted", path)
    systems = select(read_systems(options.systems_file), options.systems.split(), options.systems_file)
    known = [f"@{name}" for name in CONTROLS]
    controls = list(dict.fromkeys(options.controls.split()))
    for control in controls:
        if control not in known:
            raise UserError(f"--controls must be among {', '.join(known)}, not {control}")
    seeds = parse_seeds(options.seeds)
    if options.tag_scale not in ("", *get_args(TagScale)):
        raise UserError(f"--tag-scale must be among {', '.join(get_args(TagScale))}, not {options.tag_scale}")
    if options.tagger and options.stop_stage >= 3:
        _require(options.conf, f"tagger_{options.tagger}.yaml", "tagger.yaml")
    if options.stop_stage >= 5:
        trunks = ", ".join(sorted(path.stem.removeprefix("trunk_") for path in options.conf.glob("trunk_*.yaml")))
        if not trunks:
            raise UserError(f"{options.conf.resolve()} has no trunk_NAME.yaml, so no network; use --stop-stage 4")
        if not (options.conf / f"trunk_{options.trunk}.yaml").exists():
            raise UserError(f"--trunk must be one of {trunks}, not {options.trunk} ({options.conf.resolve()})")
        _require(options.conf, f"{options.training}.yaml")
    print((len(systems) + len(controls)) * len(seeds))


def _require(conf: Path, *names: str) -> None:
    if not any((conf / name).exists() for name in names):
        raise UserError(f"{conf.resolve()} has no {' or '.join(names)}; write it, or choose another name")


if __name__ == "__main__":
    cli.run(main)
