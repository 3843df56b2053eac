#!/usr/bin/env python3
"""Compare trainings of a tagger: lwlrap over seeds and test sets, with confidence intervals over recordings."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tagasc.report.markdown import Table, aligned, markdown_table
from tagasc.report.statistics import bootstrap, is_significant, permutation_p
from tagasc.tagger.experiment import STAGE, predictions_file
from tagasc.tagger.lwlrap import label_precisions
from tagasc.tagger.tags import TagVectors
from tagasc.utils import cli
from tagasc.utils.errors import UserError
from tagasc.utils.files import read_npz, write_text
from tagasc.utils.log import console

Label = tuple[str, str]  # clip, class
Precisions = Mapping[str, Mapping[Label, float]]  # by seed, then by label


def main(taggers: Path, groups: str, recording: str = r"^(.*?)(?:-[A-Z])?$", out: Path | None = None) -> None:
    """Print a table of groups of taggers, with each group's difference to the first.

    Args:
        taggers: folder of trained taggers (stage 3) whose names end in ``_seed<k>``; different test clips of one seed
            are pooled.
        groups: "TITLE: PREFIX/stageN" separated by semicolons: stage N of the taggers whose names begin with PREFIX.
        recording: regular expression whose match in a clip's id identifies its recording.
        out: Markdown file for the table.
    """
    precisions = {}
    for group in groups.split(";"):
        match = re.fullmatch(r"\s*(.+?)\s*:\s*(.+)/stage(\d+)\s*", group)
        if match is None:
            raise UserError(f"--groups {group.strip()!r} must be TITLE: PREFIX/stageN")
        title, prefix, stage = match.groups()
        precisions[title] = _read(taggers, prefix, int(stage))
    table = compare(precisions, recording)
    console.print("\n" + aligned(table) + "\n")
    if out is not None:
        write_text(out, markdown_table(table))


def compare(groups: Mapping[str, Precisions], recording: str) -> Table:
    """Return a row per group: lwlrap (mean ± standard deviation over seeds), its interval, its difference to the first.

    Raises:
        UserError: the groups were not scored on the same labels.
    """
    labels = sorted(next(iter(next(iter(groups.values())).values())))
    recordings = [_recording(clip, recording) for clip, _ in labels]
    header = ("training", "seeds", "labels", "lwlrap", "95 % interval", "difference", "95 % interval", "")
    rows, first = [], None
    for title, seeds in groups.items():
        if any(sorted(precisions) != labels for precisions in seeds.values()):
            raise UserError(
                f"{title} was not scored on the same clips as {next(iter(groups))}; train the missing taggers"
            )
        values = np.array([[precisions[label] for label in labels] for precisions in seeds.values()])
        spread = f" ± {values.mean(axis=1).std(ddof=1):.3f}" if len(values) > 1 else ""
        row = (title, str(len(values)), str(len(labels)), f"{values.mean():.3f}{spread}")
        row += (_interval(bootstrap(values.mean(axis=0), recordings), ".3f"),)
        if first is None:
            first, row = values.mean(axis=0), (*row, "", "", "")
        else:
            means = values.mean(axis=0)
            interval, p = bootstrap(means - first, recordings), permutation_p(means[None], first, recordings)[0]
            note = "" if is_significant(interval, p) else "not significant"
            row += (f"{(means - first).mean():+.3f}", _interval(interval, "+.3f"), note)
        rows.append(row)
    return header, rows


def _read(taggers: Path, prefix: str, stage: int) -> Precisions:
    """Read the precision at every label of the test clips, by seed; test sets of one seed are pooled."""
    seeds: dict[str, dict[Label, float]] = defaultdict(dict)
    for tagger in sorted(taggers.glob(f"{prefix}*_seed*")):
        path, seed = predictions_file(tagger, stage, "test"), tagger.name.rpartition("_seed")[2]
        if not path.exists():
            continue
        tags, truth = TagVectors.read(path, STAGE), read_npz(path, ("truth",), STAGE)["truth"]
        precision = label_precisions(truth, tags.values)
        for clip, name in np.argwhere(truth).tolist():
            seeds[seed][tags.ids[clip], tags.classes[name]] = precision[clip, name]
    if not seeds:
        raise UserError(
            f"{taggers} has no {prefix}*_seed* with stage{stage} scored on test clips; run stage 3 (tagger)"
        )
    return seeds


def _recording(clip: str, pattern: str) -> str:
    try:
        match = re.match(pattern, clip)
    except re.error as error:
        raise UserError(f"--recording {pattern!r} is not a regular expression ({error}); see Python's re") from None
    if match is None:
        raise UserError(f"clip {clip} does not match --recording {pattern!r}; give a pattern that matches every clip")
    return match.group(match.lastindex or 0)


def _interval(bounds: Sequence[float], form: str) -> str:
    return "" if np.isnan(bounds[0]) else f"{bounds[0]:{form}} to {bounds[1]:{form}}"


if __name__ == "__main__":
    cli.run(main)
