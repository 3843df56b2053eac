"""The page that answers: do the events help, or only the extra inputs?

A tag system differs from the baseline in two ways: it is told about the clip, and it has more inputs and parameters.
Controls (``tagasc.scene.controls``) separate the two. For each ear and each system with controls:

- *the events* bring what the system has above ``@shuffled`` and above ``@constant``, whose tags say nothing about the
  clip;
- *the extra inputs* bring what these two controls have above the baseline;
- what the system has above ``@within`` comes from the clip's own events, beyond what is typical of its scene;
- ``@oracle`` is a ceiling: the tags give the scene away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tagasc.report.comparison import Difference
from tagasc.report.markdown import NOT_RUN, Table, escape, format_interval, format_mean, format_points, markdown_table
from tagasc.report.results import SystemResult
from tagasc.report.sections import provenance_section
from tagasc.report.statistics import LEVEL, MIN_UNITS, holm
from tagasc.scene.controls import CONTROLS
from tagasc.scene.systems import TAGS_ONLY
from tagasc.study.ears import Ear, common_baseline
from tagasc.study.taggers import caveats, difference, figures_table

QUESTION = "Do the events help, or only the extra inputs?"
MIN_SEEDS = 3  # with fewer, nothing is known about the variance over trainings
UNINFORMED = ("shuffled", "constant")  # controls whose tags say nothing about the clip
METHOD = f"""\
- **The events help** if the system is significantly above both *@shuffled* (tags of another clip) and *@constant* (mean
  tags): these have the same network and as many inputs, but their tags say nothing about the clip.
- **Only the extra inputs help** if the system is significantly above neither, and one of the two is significantly above
  the baseline. **Harm**: the system is significantly below both. All else is **open**: a difference that is not
  significant is not shown to be zero, and its interval says how large it may be.
- *Significant*: the 95 % confidence interval over recording locations excludes 0, and p of a permutation test over
  locations, with Holm's correction for all tests of the events on this page, is below {LEVEL}. The p of the extra
  inputs is corrected in the same way among its own tests. Of fewer than {MIN_UNITS} locations nothing is significant.
- Accuracies are of the SVM on the test clips, mean ± standard deviation over seeds. Intervals include the choice of the
  locations, but not the variance over trainings; *over seeds* is the standard deviation of a difference over the seeds.
- *@within* (tags of another clip of the same scene) and *@oracle* (the scene's mean tags) use the true scene. They are
  no systems. *@oracle* is a ceiling for what tags could bring if they gave the scene away.
"""


@dataclass(frozen=True)
class Test:
    """A difference, and its p after Holm's correction."""

    difference: Difference
    p: float

    @property
    def sign(self) -> int:
        """1 or -1 if the difference is significantly positive or negative, else 0."""
        low, high = self.difference.by_location
        return 0 if not self.p < LEVEL else int(low > 0) - int(high < 0)


@dataclass(frozen=True)
class Case:
    """A system with one ear, and its tests by control: of the events, and of the extra inputs."""

    ear: Ear
    system: SystemResult
    events: dict[str, Test]
    inputs: dict[str, Test]

    @property
    def verdict(self) -> str:
        """One of: the events help, only the extra inputs help, harm, open."""
        if set(self.events) != set(UNINFORMED):
            return "open"
        signs = {test.sign for test in self.events.values()}
        if signs == {1}:
            return "the events help"
        if signs == {-1}:
            return "harm"
        helped = any(test.sign > 0 for test in self.inputs.values())
        return "only the extra inputs help" if signs == {0} and helped else "open"


def cases(ears: Sequence[Ear]) -> list[Case]:
    """Test every ear's systems that have at least one control without knowledge of the clip."""
    baseline, _ = common_baseline(ears)
    events: dict[tuple[str, str, str], Difference] = {}
    inputs: dict[tuple[str, str, str], Difference] = {}
    subjects = [(ear, system) for ear in ears for system in ear.results if system.is_ranked]
    for ear, system in subjects:
        for control in UNINFORMED:
            altered = ear.by_name.get(f"{system.name}@{control}")
            if altered is not None:
                events[ear.name, system.name, control] = difference(system, altered)
                if baseline is not None:
                    inputs[ear.name, system.name, control] = difference(altered, baseline)
    tests = [_corrected(family) for family in (events, inputs)]
    of_case = lambda family, *key: {name[2]: test for name, test in family.items() if name[:2] == key}
    every = [
        Case(ear, system, *(of_case(family, ear.name, system.name) for family in tests)) for ear, system in subjects
    ]
    return [case for case in every if case.events]


def _corrected(family: dict[tuple[str, str, str], Difference]) -> dict[tuple[str, str, str], Test]:
    corrected = holm([value.p for value in family.values()])
    return {key: Test(value, float(p)) for (key, value), p in zip(family.items(), corrected, strict=True)}


def events_page(
    ears: Sequence[Ear], title: str, notes: Sequence[str], journal: Path, outdated: Sequence[str] = ()
) -> list[str]:
    """Write the page in lines of Markdown; empty if no system has a control.

    Args:
        ears: the experiments.
        title: title of the page, escaped.
        notes: sentences at the top, such as that the corpus is synthetic.
        journal: file of the commands typed so far; may be missing.
        outdated: lines on outdated results of the ears.
    """
    every = cases(ears)
    if not every:
        return []
    used = [ear for ear in ears if any(case.ear is ear for case in every)]
    lines = [f"# {title}", "", *(line for note in notes for line in (f"**{escape(note)}**", ""))]
    lines += [f"**{QUESTION}** {answer(every)}{_few_seeds(every)}", "", markdown_table(verdict_table(every)), METHOD]
    lines += caveats(used, outdated)
    for case in every:
        lines += [f"## {escape(case.ear.name)}, {escape(case.system.name)}", "", markdown_table(case_table(case, ears))]
    lines += ["## Taggers", "", markdown_table(figures_table(used))]
    return lines + provenance_section([result for ear in used for result in ear.results], journal, [], [], [])


def answer(every: Sequence[Case]) -> str:
    """Count the verdicts."""
    counts: dict[str, list[str]] = {}
    for case in every:
        counts.setdefault(case.verdict, []).append(f"{case.ear.name}, {case.system.name}")
    parts = [f"{verdict} in {len(names)} ({escape('; '.join(names))})" for verdict, names in counts.items()]
    return f"Of {len(every)} combinations of tagger, scale and system: {'; '.join(parts)}."


def _few_seeds(every: Sequence[Case]) -> str:
    few = min(len(case.system.runs) for case in every) < MIN_SEEDS
    return f" With fewer than {MIN_SEEDS} seeds, other seeds may reverse a verdict." if few else ""


def verdict_table(every: Sequence[Case]) -> Table:
    """Tabulate for each case what the events bring, what the extra inputs bring, and the verdict."""
    header = ("tagger", "system", *(f"minus @{control}, 95 % CI, p" for control in UNINFORMED),
              *(f"@{control} minus baseline, 95 % CI, p" for control in UNINFORMED), "verdict")  # fmt: skip
    return header, [
        (
            case.ear.name,
            case.system.name,
            *(_test_text(family.get(control)) for family in (case.events, case.inputs) for control in UNINFORMED),
            case.verdict,
        )
        for case in every
    ]


def case_table(case: Case, ears: Sequence[Ear]) -> Table:
    """Tabulate accuracies of baseline, system, controls and tags alone, each with its difference from the system."""
    system, (baseline, _) = case.system, common_baseline(ears)
    rows = {"baseline": ("none", baseline), system.name: ("the clip's own", system)}
    for control, meaning in CONTROLS.items():
        name = f"{system.name}@{control}"
        rows[name] = (meaning, case.ear.by_name.get(name))
    rows[TAGS_ONLY] = ("the clip's own, SVM without a network", case.ear.by_name.get(TAGS_ONLY))
    header = ("system", "its tags", "seeds", "SVM %", f"{system.name} minus it", "95 % CI (locations)", "over seeds")
    return header, [(name, meaning, *_cells(result, system)) for name, (meaning, result) in rows.items()]


def _cells(result: SystemResult | None, system: SystemResult) -> tuple[str, ...]:
    if result is None:
        return "", NOT_RUN, "", "", ""
    accuracy = (str(len(result.runs)), format_mean(result.accuracy_by_seed("test")))
    if result is system:
        return *accuracy, "", "", ""
    value = difference(system, result)
    spread = "" if value.seed_deviation is None else f"{100 * value.seed_deviation:.1f}"
    return *accuracy, format_points(value.mean), format_interval(value.by_location, "+.1f"), spread


def _test_text(test: Test | None) -> str:
    if test is None:
        return NOT_RUN
    interval = format_interval(test.difference.by_location, "+.1f")
    return f"{format_points(test.difference.mean)} ({interval or 'no interval'}), p {test.p:.4f}"
