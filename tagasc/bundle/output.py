"""Answers as a table for people, and as CSV, JSON and DCASE's output file for programs."""

import csv
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tagasc.bundle.runner import Answer
from tagasc.utils.files import atomic_file, write_text

EVENTS, LEAST = 3, 0.1  # events shown, and the least probability shown
RIVALS = 2  # runners-up shown
_HEADER = ("recording", "scene", "prob.", "margin", "runners-up", "events heard")


def table(answers: Sequence[Answer]) -> str:
    """Format answers as a table, with notes on conversions, and a timeline for recordings of several windows."""
    folders = {os.path.dirname(answer.name) for answer in answers}
    common = os.path.commonpath(folders) if len(answers) > 1 and "" not in folders else ""
    rows = [_HEADER, *(_row(answer, common) for answer in answers)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    numeric = {2, 3}
    lines = [f"in {printable(common)}:"] if common else []
    for row, answer in zip(rows, [None, *answers], strict=True):
        cells = (
            cell.rjust(w) if n in numeric else cell.ljust(w)
            for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
        if answer is not None:
            lines += [f"    {text}" for text in _details(answer)]
    return "\n".join(lines)


def _row(answer: Answer, folder: str) -> tuple[str, ...]:
    name = os.path.relpath(answer.name, folder) if folder else answer.name
    rivals = ", ".join(f"{scene} {probability:.2f}" for scene, probability in answer.ranked()[1 : RIVALS + 1])
    events = ", ".join(f"{name} {probability:.2f}" for name, probability in answer.events(EVENTS, LEAST))
    shown = printable(name), answer.scene, f"{answer.probability:.2f}", f"{answer.margin:.2f}", rivals, events
    return shown


def _details(answer: Answer) -> list[str]:
    lines = [f"({'; '.join(answer.notes)})"] if answer.notes else []
    if len(answer.windows) > 1:
        for start, end, scene, probability in answer.timeline():
            lines.append(f"{clock(start)} to {clock(end)}  {scene} {probability:.2f}")
    return lines


def clock(seconds: float) -> str:
    """Format a time as minutes and seconds, or with hours."""
    whole = int(seconds + 1e-6)
    hours, rest = divmod(whole, 3600)
    tenths = f"{seconds - whole:.1f}"[1:] if seconds - whole >= 0.05 else ""
    return (f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}") + tenths


def printable(text: str) -> str:
    """Write control characters, which may command a terminal, as escape sequences."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: ascii(found[0])[1:-1], text)


def as_dict(answer: Answer) -> dict[str, Any]:
    """Return an answer for JSON, with all its windows."""
    windows = [
        {
            "start": window.start,
            "scene": answer.scenes[window.scene],
            "probabilities": _by_name(answer.scenes, window.probabilities),
            "events": {} if window.tags is None else _by_name(answer.event_names, window.tags),
        }
        for window in answer.windows
    ]
    return {
        "recording": answer.name,
        "seconds": answer.seconds,
        "sampling_rate": answer.rate,
        "channels": answer.channels,
        "scene": answer.scene,
        "probability": answer.probability,
        "margin": answer.margin,
        "probabilities": _by_name(answer.scenes, answer.probabilities),
        "notes": list(answer.notes),
        "windows": windows,
    }


def write_json_answers(path: Path, answers: Sequence[Answer], failures: Sequence[tuple[str, str]]) -> None:
    """Write answers and failures as JSON."""
    failed = [{"recording": name, "error": why} for name, why in failures]
    content = {"answers": [as_dict(answer) for answer in answers], "failures": failed}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_csv(path: Path, answers: Sequence[Answer]) -> None:
    """Write a line per window: recording, start, end, scene, and a probability for each scene."""
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        scenes = answers[0].scenes if answers else ()
        writer.writerow(("recording", "start", "end", "scene", "probability", "margin", "notes", *scenes))
        for answer in answers:
            for part in _windows(answer):
                writer.writerow((answer.name, *part))


def _windows(answer: Answer) -> list[tuple]:
    rows = []
    for window in answer.windows:
        one = Answer(**{**_fields(answer), "windows": (window,)})
        end = min(window.start + window.seconds, answer.seconds)
        values = (f"{value:.6f}" for value in window.probabilities)
        notes = "; ".join(answer.notes)
        rows.append((f"{window.start:.3f}", f"{end:.3f}", one.scene, f"{one.probability:.6f}", f"{one.margin:.6f}",
                     notes, *values))  # fmt: skip
    return rows


def write_dcase(path: Path, answers: Sequence[Answer]) -> None:
    """Write the system output of DCASE's task 1 (2020 on): tab-separated, file name, label and probabilities."""
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("filename", "scene_label", *(answers[0].scenes if answers else ())))
        for answer in answers:
            writer.writerow((Path(answer.name).name, answer.scene, *(f"{value:.4f}" for value in answer.probabilities)))


def _fields(answer: Answer) -> dict[str, Any]:
    return {name: getattr(answer, name) for name in Answer.__dataclass_fields__}


def _by_name(names: Sequence[str], values: Any) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in zip(names, values, strict=True)}
