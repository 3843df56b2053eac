"""Pages about a system's worst errors on the test clips, for the report: the surest wrong answers."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tagasc.audio.packed import PackedAudio
from tagasc.bundle.page import write_page
from tagasc.bundle.runner import Answer, Bundle
from tagasc.report.analysis import ERRORS_INDEX
from tagasc.utils.files import atomic_folder, write_json

MOST = 6  # pages


def surest_errors(packed: PackedAudio, scenes: np.ndarray, probabilities: np.ndarray) -> list[int]:
    """Return the clips that got a wrong answer, the surest first, at most ``MOST``.

    Args:
        packed: the clips.
        scenes: answer for each, str (clips,).
        probabilities: of the answer, (clips,).
    """
    wrong = [n for n, clip in enumerate(packed.clips) if clip.labels[0] != scenes[n]]
    return sorted(wrong, key=lambda n: -probabilities[n])[:MOST]


def write_error_pages(
    folder: Path, bundle: Bundle, packed: PackedAudio, tags: np.ndarray | None, found: dict[str, np.ndarray], date: str
) -> None:
    """Write a page per clip of ``surest_errors``, and ``index.json``, for the report; replace those of earlier runs.

    Args:
        folder: folder of the pages.
        bundle: the bundle.
        packed: test clips.
        tags: their tags, if the bundle's tagger is elsewhere.
        found: its outputs for them, ``scene`` and ``probabilities``.
        date: date of the export.
    """
    scenes = np.array(bundle.scenes)[found["scene"]]
    sure = found["probabilities"][np.arange(len(scenes)), found["scene"]]
    rows: list[dict[str, Any]] = []
    with atomic_folder(folder, "*.html", ERRORS_INDEX) as temporary:
        for rank, number in enumerate(surest_errors(packed, scenes, sure), 1):
            clip, page = packed.clips[number], f"{rank}.html"
            sound = temporary / "clip.wav"
            samples = packed.samples[clip.start : clip.start + clip.frames]
            subtype = "PCM_16" if samples.dtype == np.int16 else "FLOAT"
            soundfile.write(sound, samples, packed.sampling_rate, subtype=subtype)
            given = None if tags is None else tags[number]
            answer = bundle.classify_file(sound, given)
            fields = {name: getattr(answer, name) for name in Answer.__dataclass_fields__}
            named = Answer(**fields | {"name": clip.id})
            write_page(temporary / page, bundle, str(sound), named, given, truth=clip.labels[0])
            sound.unlink()
            row = {"page": page, "clip": clip.id, "true": clip.labels[0]}
            rows.append(row | {"answer": named.scene, "probability": named.probability})
        about = {"system": bundle.about["system"], "seed": bundle.about["seed"], "date": date[:10]}
        write_json(temporary / ERRORS_INDEX, about | {"pages": rows})
