#!/usr/bin/env python3
"""Any folder of sounds, a subfolder per class → a small tagging corpus in FSDKaggle2019's layout (Zenodo).

Curated, noisy and test clips come from different groups of recordings, and a share of the noisy clips is given the
label of another class. So what noisy clips with wrong labels are good for can be measured on real sounds, at a small
size. The wrong labels, and only these, are made up; ids are ``<class>-<file's name>``.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from local.synthetic.layout import write_labels, write_vocabulary
from local.synthetic.sounds import audio_files, group_of, load_stereo
from tagasc.utils import cli, provenance
from tagasc.utils.errors import SettingError, UserError
from tagasc.utils.files import atomic_folder
from tagasc.utils.log import log, progress

_STEP = "wrong_labels"


@dataclass(frozen=True)
class Parts:
    """Which groups of recordings make up which part, each separated by spaces, none in two parts.

    Args:
        curated: clips with right labels, for training.
        noisy: clips with partly wrong labels, for training.
        test: clips with right labels.
    """

    curated: str = "1 2"
    noisy: str = "3 4"
    test: str = "5"

    def __post_init__(self) -> None:
        groups = [*self.curated.split(), *self.noisy.split(), *self.test.split()]
        if len(set(groups)) != len(groups) or not all(map(str.split, self.by_name().values())):
            raise SettingError("curated, noisy and test must each name groups, and none of them twice")

    def by_name(self) -> dict[str, str]:
        """The names that FSDKaggle2019 has for them."""
        return {"train_curated": self.curated, "train_noisy": self.noisy, "test": self.test}


def main(
    sounds: Path,
    out: Path,
    parts: Parts = Parts(),
    group: str = r"^([0-9]+)-",
    label_noise: float = 0.4,
    sampling_rate: int = 16000,
    seed: int = 1,
    force: bool = False,
) -> None:
    """Make a tagging corpus whose noisy clips have wrong labels.

    Args:
        sounds: a subfolder per class.
        out: folder of the corpus; what this program made there with other options is made anew.
        parts: which groups of recordings go where.
        group: pattern whose match in a file's name is its group; ESC-10's fold by default.
        label_noise: share of the noisy clips that get another class's label.
        sampling_rate: of the corpus, in Hz.
        seed: of the wrong labels.
        force: make it again even if it is there.
    """
    if not sounds.is_dir():
        raise UserError(f"{sounds} is not a folder; give one with a subfolder of recordings per class")
    if not 0 <= label_noise <= 1 or sampling_rate < 1 or seed < 0:
        raise UserError("--label-noise must lie in 0..1, --sampling-rate be positive, --seed not negative")
    _check_place(sounds, out)
    files = _files(sounds, parts, group)
    listing = "\n".join(f"{path} {path.stat().st_size}" for some in files.values() for _, path in some)
    settings = {"parts": parts, "label_noise": label_noise, "sampling_rate": sampling_rate, "seed": seed}
    record = provenance.record(_STEP, settings, {"sounds": hashlib.sha256(listing.encode()).hexdigest()})
    if provenance.is_current(str(out), provenance.read(out), record, force):
        return
    random = np.random.default_rng(seed)
    classes = sorted({name for some in files.values() for name, _ in some})
    with atomic_folder(out) as folder:
        for part, some in files.items():
            labels = [name for name, _ in some]
            if part == "train_noisy":
                labels = _mislabelled(labels, classes, label_noise, random)
            _write(folder, part, some, labels, sampling_rate)
        write_vocabulary(folder, classes)
        provenance.write(folder, record)
    log.info("%s: %s", out, ", ".join(f"{len(some)} {part}" for part, some in files.items()))


def _check_place(sounds: Path, out: Path) -> None:
    """Raises UserError if the corpus would take the place of anything that this program did not make."""
    source, target = sounds.resolve(), out.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise UserError(f"{out} and {sounds} must not lie in each other; choose another place for the corpus")
    if out.exists() and not (out.is_dir() and (provenance.read(out) or {}).get("step") == _STEP):
        raise UserError(f"{out} was not made by this program; choose another place for the corpus")


def _files(sounds: Path, parts: Parts, group: str) -> dict[str, list[tuple[str, Path]]]:
    """By part, its files with their class; a class that a part has no file of is left out of all."""
    every = [
        (child.name, file)
        for child in sorted(sounds.iterdir())
        if child.is_dir()
        for file in sorted(audio_files(child))
    ]
    found = {
        part: [(name, file) for name, file in every if group_of(file, group) in groups.split()]
        for part, groups in parts.by_name().items()
    }
    everywhere = set.intersection(*({name for name, _ in some} for some in found.values()))
    for name in sorted({name for name, _ in every} - everywhere):
        log.info("%s is left out: a part has no recording of it", name)
    if len(everywhere) < 2:
        raise UserError(f"{sounds}: fewer than two classes have recordings in every part; give other groups")
    return {part: [(name, file) for name, file in some if name in everywhere] for part, some in found.items()}


def _mislabelled(labels: list[str], classes: list[str], label_noise: float, random: np.random.Generator) -> list[str]:
    """Each label replaced by another with the given probability."""
    return [
        str(random.choice([name for name in classes if name != label])) if random.random() < label_noise else label
        for label in labels
    ]


def _write(folder: Path, part: str, files: list[tuple[str, Path]], labels: list[str], rate: int) -> None:
    """One part's audio and metadata, in the columns of the Zenodo release."""
    audio = folder / f"FSDKaggle2019.audio_{part}"
    audio.mkdir()
    rows = []
    for (name, file), label in zip(progress(files, part, total=len(files)), labels, strict=True):
        fname = f"{name}-{file.stem}.wav"
        mono = load_stereo(file, rate).mean(axis=1)
        soundfile.write(audio / fname, mono / max(1.0, np.abs(mono).max()), rate, subtype="PCM_16")
        rows.append((fname, label, "Private", "", ""))
    write_labels(folder, part, rows)


if __name__ == "__main__":
    cli.run(main, positional=True)
