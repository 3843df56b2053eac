#!/usr/bin/env python3
"""Check that a change left every result of a tiny recipe as it was: tests/same_results.py COMMIT

Runs the recipe of the tests (a table of systems, all controls, a tagger of two folds and stages, both protocols, the
final fit) at COMMIT and in the working tree, about two minutes each, and compares weights, audio, tags, codes, scores
and predictions by content. Files and keys that were renamed since COMMIT are in ``RENAMED``.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.conftest import RECIPE
from tests.helpers import ROOT, TAGGER, TRUNK, yaml_lines

OPTIONS = '--nj 1 --ngpu 0 --tagger-stages 2 --tagger-folds "0 1"'
RUNS = ("", "--stage 5 --protocol paper --final-fit all")
SYSTEMS = ("--systems", "table2 shared_h4_l3", "--controls", "@shuffled @constant @within @oracle")
RENAMED = {
    "tags_alone": "tags_only",
    "paper.json": "test_by_epoch.json",
    "answers": "softmax_predictions",
    "machines": "classifiers",
    "windows": "code_segment",
}
# Times, and hashes of files with names in them.
LEFT_OUT = ("made_from", "provenance", "seconds", "sha256", "weights", "checksum", "outputs")
NAMES = "*.npz *.npy *.safetensors *.csv scores.json history.json paper.json test_by_epoch.json tagger.json".split()


def renamed(name: str) -> str:
    """Return today's name."""
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name


def content(path: Path) -> bytes:
    """Return what a result holds, without names and times."""
    if path.suffix == ".json":
        return json.dumps(plain(json.loads(path.read_text())), sort_keys=True).encode()
    if path.suffix == ".csv":
        return path.read_bytes()
    arrays = load_file(path) if path.suffix == ".safetensors" else np.load(path, allow_pickle=False)
    arrays = {"": arrays} if isinstance(arrays, np.ndarray) else {renamed(name): arrays[name] for name in arrays}
    kept = sorted((name, value) for name, value in arrays.items() if name not in LEFT_OUT)
    return b"".join(f"{name} {v.dtype} {v.shape}".encode() + np.ascontiguousarray(v).tobytes() for name, v in kept)


def plain(value):
    """Return a JSON value with today's keys."""
    if isinstance(value, dict):
        return {renamed(key): plain(item) for key, item in value.items() if key not in LEFT_OUT}
    return [plain(item) for item in value] if isinstance(value, list) else value


def results(repository: Path, folder: Path, confs: dict[str, str]) -> dict[str, str]:
    """Run the recipe with one version of the repository; return the digest of every result by name."""
    (folder / "conf").mkdir(parents=True)
    (folder / "recipe.sh").write_text(RECIPE.format(root=repository))
    for name, text in confs.items():
        (folder / "conf" / name).write_text(text)
    for more in RUNS:
        words = subprocess.run(["bash", "-c", f"printf '%s\\n' {OPTIONS} {more}"], capture_output=True, text=True)
        command = [repository / "run.sh", "--recipe", folder, *SYSTEMS, *words.stdout.splitlines()]
        subprocess.run(command, env={**os.environ, "TAGASC_PYTHON": sys.executable}, check=True)
    paths = [path for pattern in NAMES for path in (folder / "dump").rglob(pattern)]
    paths += [path for pattern in NAMES for path in (folder / "exp").rglob(pattern) if "report" not in path.parts]
    return {renamed(str(path.relative_to(folder))): hashlib.sha256(content(path)).hexdigest() for path in paths}


def main(commit: str) -> None:
    """Compare the results of a commit with those of the working tree."""
    groups: dict[str, dict] = {"semi": {"epochs": 4}}
    for option, value in zip(TAGGER[::2], TAGGER[1::2], strict=True):
        group, key = option.removeprefix("--").split(".")
        groups.setdefault(group, {})[key] = value
    tagger = "".join(
        f"{group}:\n" + "".join(f"  {line}\n" for line in yaml_lines(keys).splitlines())
        for group, keys in groups.items()
    )
    scene = {"epochs": 2, "batch": 8, "crop_seconds": 0.5, "learning_rate": 0.003}
    confs = {"tagger.yaml": tagger, "trunk_table1.yaml": yaml_lines(TRUNK), "scene.yaml": yaml_lines(scene)}
    with tempfile.TemporaryDirectory() as name:
        old = Path(name) / "old"
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", ROOT, old], check=True)
        subprocess.run(["git", "-C", old, "checkout", "--quiet", commit], check=True)
        before, after = results(old, Path(name) / "before", confs), results(ROOT, Path(name) / "after", confs)
    different = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    print(*(f"differs: {name}" for name in different), sep="\n")
    print(f"{len(before)} results before, {len(after)} after, {len(different)} differ")
    sys.exit(bool(different))


if __name__ == "__main__":
    main(sys.argv[1])
