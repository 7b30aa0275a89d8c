"""One metric in two runs: the change with its interval, as `run_differences` and `gate` read it; and how trials of two runs are paired."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from perfbench.analyse.compare import rate_start_sd, window_slices
from perfbench.analyse.metrics import BY_NAME
from perfbench.analyse.run_change import Change, Shift
from perfbench.analyse.starts import StartVariance, start_variance
from perfbench.analyse.stats import MOST_DEGREES, Floats
from perfbench.analyse.trials import AnalysedTrial
from perfbench.analyse.two_runs import FinishedRun

Both = list[tuple[AnalysedTrial, AnalysedTrial]]
"""Trials of the baseline and the run, repeat by repeat."""
Sliced = list[tuple[tuple[AnalysedTrial, AnalysedTrial], tuple[Floats, Floats]]]
"""The same, with their rates by slice of the window."""


@dataclass(frozen=True)
class Span:
    """A difference with its 95% interval and standard error, which are None where there is no interval; and the error's degrees of freedom."""

    value: float
    low: float | None = None
    high: float | None = None
    error: float | None = None
    degrees: float = MOST_DEGREES


def ends(span: Span | None) -> tuple[float | None, float | None, float | None]:
    """Value, low, high; all None for no difference."""
    return (None, None, None) if span is None else (span.value, span.low, span.high)


@dataclass(frozen=True)
class Moved:
    """One metric in both runs. What is None is said in `note`."""

    metric: str
    statistic: str
    unit: str
    better: str
    baseline: float | None = None
    run: float | None = None
    difference: Span | None = None
    relative: Span | None = None
    n: int = 0
    starts: int | None = None
    note: str = ""
    margin: float | None = None
    """Absolute: within it the two are the same; None: SAME_MARGIN of the baseline."""


def paired_trials(baseline: FinishedRun, run: FinishedRun, variant: str, stage: str, other_stage: str | None = None) -> Both:
    """Usable trials of the repeats that both runs have; at two stages where `other_stage`, the newer run's, is given."""
    old, new = baseline.usable(variant, stage), run.usable(variant, other_stage or stage)
    return [(old[repeat], new[repeat]) for repeat in sorted(old.keys() & new.keys())]


def empty(metric: str, statistic: str, note: str) -> Moved:
    """No figure, and the sentence that says why."""
    return Moved(metric, statistic, BY_NAME[metric].unit, BY_NAME[metric].better, note=note)


def from_change(metric: str, statistic: str, found: Change | None, note: str, starts: int | None = None) -> Moved:
    """A change as it was found; `note` is for none."""
    if found is None:
        return empty(metric, statistic, note)
    note = "" if found.difference.drawn is not None else "too few for an interval"
    relative = None if found.relative is None else span_of(found.relative)
    unit, better = BY_NAME[metric].unit, BY_NAME[metric].better
    return Moved(metric, statistic, unit, better, found.baseline, found.run, span_of(found.difference), relative, found.n, starts, note)


def span_of(shift: Shift) -> Span:
    """A shift with its interval."""
    interval = shift.interval
    if interval is None or shift.drawn is None:
        return Span(shift.value)
    return Span(shift.value, *interval, shift.drawn.error, shift.drawn.degrees)


def starts_of(both: Both) -> list[tuple[str, str]]:
    """The servers' starts; a run whose starts are not known counts as one."""
    return [(old.start or "baseline", new.start or "run") for old, new in both]


def seed(*names: str) -> int:
    """From the names alone, so that a comparison reads the same whatever else was compared."""
    return zlib.crc32("\0".join(names).encode())


def paired_slices(both: Both, run: FinishedRun, metric: str) -> Sliced:
    """Trials and their rates by slice, where both can be told."""
    slices = [(pair, (window_slices(pair[0], metric, run.experiment), window_slices(pair[1], metric, run.experiment))) for pair in both]
    return [(pair, (old, new)) for pair, (old, new) in slices if old is not None and new is not None]


def rate_starts(run: FinishedRun, both: Sliced, metric: str) -> tuple[StartVariance, list[tuple[str, str]]]:
    """What starts add to the relative change of a rate; and the starts."""
    labels, trials = starts_of([pair for pair, _ in both]), [old for (old, _), _ in both]
    mean = sum(float(old.mean()) for _, (old, _) in both) / len(both)
    return start_variance(labels, rate_start_sd(metric, trials, mean, run.experiment) / mean if mean else 0.0), labels
