#!/usr/bin/env python3
"""Print the size of systems: parameters (Table 6), multiply-accumulates per clip, code, feature map."""

import json
import math
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from tagasc.report.markdown import aligned
from tagasc.scene.network import SceneNetwork
from tagasc.scene.systems import System, read_systems, select
from tagasc.scene.trunk import TrunkConfig
from tagasc.training.weights import parameters
from tagasc.utils import cli
from tagasc.utils.errors import UserError
from tagasc.utils.yaml_files import read_yaml


def main(
    recipe: Path,
    trunk: str = "table1",
    systems: str = "all",
    systems_file: Path = Path(__file__).parents[1] / "egs/systems.yaml",
    seconds: float = 10.0,
    sampling_rate: int = 48000,
    channels: int = 2,
    scenes: int = 10,
    tags: int = 80,
    json: bool = False,
) -> None:
    """Print a table of systems.

    Args:
        recipe: folder of a recipe, with ``conf/trunk_<trunk>.yaml``.
        trunk: name of the trunk.
        systems: names of systems or tables, separated by spaces, or all.
        systems_file: file of the systems.
        seconds: length of a clip, seconds.
        sampling_rate: sampling rate, Hz.
        channels: number of audio channels.
        scenes: number of scenes.
        tags: number of tags.
        json: print JSON, not a table.
    """
    if not 0 < seconds < math.inf or min(sampling_rate, channels, scenes, tags) < 1:
        raise UserError("--seconds, --sampling-rate, --channels, --scenes and --tags must be positive")
    path = recipe / "conf" / f"trunk_{trunk}.yaml"
    values = read_yaml(path, "give a recipe's folder and the name of one of its trunks")
    shape = cli.from_values(TrunkConfig, values, str(path))
    chosen = select(read_systems(systems_file), systems.split(), systems_file)
    frames = round(seconds * sampling_rate)
    if frames - 1 < shape.least_frames():  # pre-emphasis drops the first
        raise UserError(f"{seconds} s at {sampling_rate} Hz are too short for {path}; give longer --seconds")
    rows = [describe(name, one.system, shape, (frames, channels), scenes, tags) for name, one in chosen.items()]
    if json:
        print(_json(rows))
    else:
        print(aligned((list(rows[0]), [[f"{v:,}" if isinstance(v, int) else v for v in row.values()] for row in rows])))


def describe(
    name: str, system: System, trunk: TrunkConfig, clip: tuple[int, int], scenes: int, tags: int
) -> dict[str, str | int]:
    """Describe a system by its size for one clip of shape (frames, channels), on the meta device.

    Returns:
        one row of the table, by column.
    """
    with torch.device("meta"):
        network = SceneNetwork(trunk, system, scenes, tags, clip[1]).eval()
        samples, vector = torch.empty(1, *clip), torch.empty(1, tags)
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            code, _ = network(samples, vector)
            work = counter.get_total_flops() // 2
            feature_map = network.feature_map(samples)
    return {
        "system": name,
        "parameters": parameters(network),
        "multiply-accumulates": work,
        "code": code.shape[1],
        "feature map": "×".join(map(str, feature_map.shape[1:])),
    }


def _json(rows: list[dict[str, str | int]]) -> str:
    return json.dumps(rows, indent=1, ensure_ascii=False)


if __name__ == "__main__":
    cli.run(main)
