"""What stands behind the audit's verdicts: the steady state of every stage, and every check of every trial with its figure and thresholds."""

from __future__ import annotations

from typing import NamedTuple

from perfbench.records import AuditCheck, Summary, TrialSummary
from perfbench.report import formats
from perfbench.report.repeats import stage_names
from perfbench.report.tables import Cell, Column, Mark, Table

_ORDER = ("void", "suspect", "valid", "not checked")
"""What is in doubt is read first."""
_CHECK_MARKS: dict[str, Mark] = {"void": "void", "suspect": "suspect", "valid": "valid", "not checked": "skipped"}
_STEADY_MARKS: dict[str, Mark] = {"steady": "valid", "no steady state": "suspect", "over-saturated": "suspect", "cannot tell": "skipped"}


class StageChecks(NamedTuple):
    """The trials of one stage: each with the line that stands for it and its checks."""

    stage: str
    doubts: int
    """Checks that are suspect or void, over its trials."""
    trials: list[tuple[str, Table]]


def steady_table(summary: Summary) -> Table:
    """One row a stage and variant: the verdict of its repeats, what was cut off their windows, and the sentence; no row where nothing was judged."""
    columns = (
        Column("Stage", align="left"), Column("Variant", align="left"), Column("Steady state", align="left"),
        Column("Cut", "seconds of its measured windows that no figure is of, repeats together"), Column("Because", align="left", prose=True),
    )  # fmt: skip
    rows = tuple(
        _steady_row(stage, name, judged)
        for stage in stage_names(summary) for name, variant in summary.variants.items()
        if (judged := [trial for trial in variant.trials if trial.stage == stage and trial.steady is not None])
    )  # fmt: skip
    caption = "Figures are of the part of each window that is steady, where that can be told; of the whole window elsewhere."
    return Table("steady", "Steady state", caption, columns, rows)


def _steady_row(stage: str, name: str, trials: list[TrialSummary]) -> tuple[Cell, ...]:
    states = [(f"r{trial.repeat}", trial.steady) for trial in sorted(trials, key=lambda trial: trial.repeat) if trial.steady is not None]
    verdicts = list(dict.fromkeys(state.verdict for _, state in states))
    same = len({state.sentence for _, state in states}) == 1
    sentences = [state.sentence if same else f"{repeat}: {state.sentence}" for repeat, state in states]
    shifts = [f"{repeat}: {state.level_shift}" for repeat, state in states if state.level_shift is not None]
    cut = sum(state.cut_s for _, state in states)
    return (
        Cell(stage), Cell(name),
        Cell(", ".join(verdicts), mark=_STEADY_MARKS.get(verdicts[0]) if len(verdicts) == 1 else None),
        Cell(formats.seconds(cut) if cut else "nothing"),
        Cell(". ".join(dict.fromkeys([*sentences, *shifts]))),
    )  # fmt: skip


def stage_checks(summary: Summary) -> list[StageChecks]:
    """Every trial that has checks, the probes of a search too, by stage; doubts first within a trial."""
    by_stage: dict[str, list[tuple[str, TrialSummary]]] = {}
    for name, variant in summary.variants.items():
        for trial in [*variant.trials, *variant.probes]:
            if trial.audit.checks:
                by_stage.setdefault(trial.stage, []).append((name, trial))
    return [
        StageChecks(stage, sum(_doubts(trial) for _, trial in trials), [(_line(name, trial), _checks_table(name, trial)) for name, trial in trials])
        for stage, trials in by_stage.items()
    ]


def _doubts(trial: TrialSummary) -> int:
    return sum(check.verdict in ("suspect", "void") for check in trial.audit.checks)


def _line(name: str, trial: TrialSummary) -> str:
    doubts = [check.name for check in trial.audit.checks if check.verdict in ("suspect", "void")]
    return f"{name} · r{trial.repeat}: {trial.audit.verdict}, {len(trial.audit.checks)} checks" + (f", in doubt: {', '.join(doubts)}" if doubts else "")


def _checks_table(name: str, trial: TrialSummary) -> Table:
    columns = (
        Column("Check", align="left"), Column("Verdict", align="left"), Column("Measured"), Column("Suspect above"), Column("Void above"),
        Column("What it says", align="left", prose=True),
    )  # fmt: skip
    checks = sorted(trial.audit.checks, key=lambda check: _ORDER.index(check.verdict))
    caption = "not checked: the trial lacks what the check needs. A dash: no threshold, or nothing to measure."
    title = f"Checks of {name} · {trial.stage} · r{trial.repeat}"
    return Table(f"checks-{name}-{trial.stage}-r{trial.repeat}", title, caption, columns, tuple(_check_row(check) for check in checks))


def _check_row(check: AuditCheck) -> tuple[Cell, ...]:
    return (
        Cell(check.name), Cell(check.verdict, mark=_CHECK_MARKS[check.verdict]),
        *(Cell(_figure(value, check.unit)) for value in (check.measured, check.suspect_above, check.void_above)),
        Cell(formats.one_line(check.sentence)),
    )  # fmt: skip


def _figure(value: float | None, unit: str) -> str:
    """Counts are written whole; 0 as 0."""
    if value is None or unit in ("s", "share", "bytes", "1/s") or value != int(value):
        return formats.quantity(value, unit)
    return f"{int(value):,} {unit}".rstrip()
