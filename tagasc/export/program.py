"""The files of a bundle that make it work by itself: the runner, a program, the packages it needs."""

import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

PACKAGES = ("numpy", "soundfile", "onnxruntime")
_ROOT = Path(__file__).parents[2]
_MODULES = ("tagasc/__init__.py", "tagasc/audio/__init__.py", "tagasc/audio/decoding.py", "tagasc/utils/__init__.py",
            *(f"tagasc/utils/{name}.py" for name in ("errors", "files", "limits", "temporary")))  # fmt: skip
_PROGRAM = '''\
#!/usr/bin/env python3
"""Classify sound files with the bundle in this folder: python predict.py AUDIO... (--help lists the options)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tagasc.bundle.command import main

if __name__ == "__main__":
    main(Path(__file__).resolve().parent)
'''


def runner_files() -> Iterator[Path]:
    """List the files of the runner and what it imports, relative to the repository."""
    yield from map(Path, _MODULES)
    yield from sorted(path.relative_to(_ROOT) for path in (_ROOT / "tagasc/bundle").glob("*.py"))


def write_program(folder: Path) -> None:
    """Copy the runner into a bundle, with the program ``predict.py``, ``requirements.txt`` and the licence."""
    for path in runner_files():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_ROOT / path, folder / path)
    (folder / "predict.py").write_text(_PROGRAM, encoding="utf-8")
    versions = "".join(f"{name}>={metadata.version(name)}\n" for name in PACKAGES)
    (folder / "requirements.txt").write_text(versions, encoding="utf-8")
    shutil.copyfile(_ROOT / "LICENSE", folder / "LICENSE")
