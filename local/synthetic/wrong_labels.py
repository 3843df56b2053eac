#!/usr/bin/env python3
"""Build a small tagging corpus with label noise from a folder of sounds, in FSDKaggle2019's layout (Zenodo).

Curated, noisy and test clips come from disjoint groups of recordings. A share of the noisy clips gets the label of
another class. So the value of noisy clips can be measured on real sounds, at a small size. Only the wrong labels are
synthetic. Clip ids are ``<class>-<file name>``.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from local.synthetic.layout import write_labels, write_vocabulary
from local.synthetic.sounds import audio_files, group_of, load_stereo, write_sound
from tagasc.utils import cli, provenance
from tagasc.utils.errors import SettingError, UserError
from tagasc.utils.files import atomic_folder
from tagasc.utils.log import log, progress

_STEP = "wrong_labels"


@dataclass(frozen=True)
class Parts:
    """Groups of recordings in each part, separated by spaces; no group is in two parts.

    Args:
        curated: groups of the training clips with correct labels.
        noisy: groups of the training clips with label noise.
        test: groups of the test clips.
    """

    curated: str = "1 2"
    noisy: str = "3 4"
    test: str = "5"

    def __post_init__(self) -> None:
        groups = [*self.curated.split(), *self.noisy.split(), *self.test.split()]
        if len(set(groups)) != len(groups) or not all(map(str.split, self.by_name().values())):
            raise SettingError("curated, noisy and test must each name groups, and each group once")

    def by_name(self) -> dict[str, str]:
        """Return the groups by FSDKaggle2019's names of the parts."""
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
    """Build a tagging corpus whose noisy clips have wrong labels.

    Args:
        sounds: folder of recordings, a subfolder per class.
        out: folder of the corpus; a corpus that this program built with other options is replaced.
        parts: groups of recordings in each part.
        group: pattern whose match in a file name is its group; by default ESC-10's fold.
        label_noise: share of the noisy clips with the label of another class.
        sampling_rate: sampling rate of the corpus, Hz.
        seed: seed of the wrong labels.
        force: build an up-to-date corpus again.
    """
    if not sounds.is_dir():
        raise UserError(f"{sounds} is not a folder; give one with a subfolder of recordings per class")
    if not 0 <= label_noise <= 1 or sampling_rate < 1 or seed < 0:
        raise UserError("--label-noise must be in 0..1, --sampling-rate positive, --seed not negative")
    _check_target(sounds, out)
    files = _files(sounds, parts, group)
    listing = "\n".join(f"{path} {path.stat().st_size}" for part_files in files.values() for _, path in part_files)
    settings = {"parts": parts, "label_noise": label_noise, "sampling_rate": sampling_rate, "seed": seed}
    record = provenance.record(_STEP, settings, {"sounds": hashlib.sha256(listing.encode()).hexdigest()})
    if provenance.is_current(str(out), provenance.read(out), record, force):
        return
    random = np.random.default_rng(seed)
    classes = sorted({name for part_files in files.values() for name, _ in part_files})
    with atomic_folder(out, "FSDKaggle2019.*", provenance.NAME) as folder:
        for part, part_files in files.items():
            labels = [name for name, _ in part_files]
            if part == "train_noisy":
                labels = _mislabelled(labels, classes, label_noise, random)
            _write(folder, part, part_files, labels, sampling_rate)
        write_vocabulary(folder, classes)
        provenance.write(folder, record)
    log.info("%s: %s", out, ", ".join(f"{len(part_files)} {part}" for part, part_files in files.items()))


def _check_target(sounds: Path, out: Path) -> None:
    """Check that the corpus replaces only what this program built."""
    source, target = sounds.resolve(), out.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise UserError(f"{out} and {sounds} must not contain each other; choose another folder as OUT")
    if out.exists() and not (out.is_dir() and (provenance.read(out) or {}).get("step") == _STEP):
        raise UserError(f"{out} was not built by this program; choose another folder as OUT")


def _files(sounds: Path, parts: Parts, group: str) -> dict[str, list[tuple[str, Path]]]:
    """Return the class and path of each file, by part; classes that a part lacks are left out."""
    files = [
        (child.name, file)
        for child in sorted(sounds.iterdir())
        if child.is_dir()
        for file in sorted(audio_files(child))
    ]
    by_part = {
        part: [(name, file) for name, file in files if group_of(file, group) in groups.split()]
        for part, groups in parts.by_name().items()
    }
    common = set.intersection(*({name for name, _ in part_files} for part_files in by_part.values()))
    for name in sorted({name for name, _ in files} - common):
        log.info("%s is left out: a part has no recording of it", name)
    if len(common) < 2:
        raise UserError(f"{sounds}: fewer than two classes have recordings in every part; choose other groups")
    return {part: [file for file in part_files if file[0] in common] for part, part_files in by_part.items()}


def _mislabelled(labels: list[str], classes: list[str], label_noise: float, random: np.random.Generator) -> list[str]:
    """Replace each label by another class with the given probability."""
    return [
        str(random.choice([name for name in classes if name != label])) if random.random() < label_noise else label
        for label in labels
    ]


def _write(folder: Path, part: str, files: list[tuple[str, Path]], labels: list[str], rate: int) -> None:
    """Write the audio and the labels of one part."""
    audio = folder / f"FSDKaggle2019.audio_{part}"
    audio.mkdir()
    rows = []
    for (name, file), label in zip(progress(files, part, total=len(files)), labels, strict=True):
        fname = f"{name}-{file.stem}.wav"
        mono = load_stereo(file, rate).mean(axis=1)
        write_sound(audio / fname, mono / max(1.0, np.abs(mono).max()), rate, "PCM_16")
        rows.append((fname, label, "Private", "", ""))
    write_labels(folder, part, rows)


if __name__ == "__main__":
    cli.run(main, positional=True)
