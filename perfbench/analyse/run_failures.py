"""Requests that failed in two runs: the share of those scheduled in the window.

Newcombe's (1998) interval of the difference of two shares, of Wilson's of each: it does not call no failure of twenty the same as none at all. Failures come in
bursts (a server that hangs fails all that wait), so each run's requests count as what they are worth: n over the autocorrelation time of failing.
A trial that is void because so many failed is one of those that this is about, and counts; one that is void for another reason does not.
"""

from __future__ import annotations

import math

import numpy as np

from perfbench.analyse.intervals import correlation_time
from perfbench.analyse.metrics import BY_NAME
from perfbench.analyse.moved import Moved, Span, empty
from perfbench.analyse.stats import Z975, Floats
from perfbench.analyse.trials import AnalysedTrial
from perfbench.analyse.two_runs import FinishedRun

FAILED = "failed_share"


def failed_moved(baseline: FinishedRun, run: FinishedRun, variant: str, stage: str) -> Moved:
    """At one stage, over the repeats that both runs have."""
    old, new = (_countable(one, variant, stage) for one in (baseline, run))
    repeats = sorted(old.keys() & new.keys())
    series = [[_failing(trials[repeat]) for repeat in repeats] for trials in (old, new)]
    counts = [sum(len(one) for one in found) for found in series]
    if not all(counts):
        return empty(FAILED, "share", "no repeat that both runs can use (void trials are left out)")
    shares = [sum(float(one.sum()) for one in found) / count for found, count in zip(series, counts, strict=True)]
    worth = [sum(len(one) / correlation_time(one) for one in found) for found in series]
    difference = newcombe_unpaired(shares[0], worth[0], shares[1], worth[1])
    relative = _share_of(difference, shares[0]) if shares[0] else None
    unit, better = BY_NAME[FAILED].unit, BY_NAME[FAILED].better
    return Moved(FAILED, "share", unit, better, shares[0], shares[1], difference, relative, min(counts), margin=FAILED_MARGIN)


FAILED_MARGIN = 0.01
"""What the audit lets pass without a word."""


def _countable(one: FinishedRun, variant: str, stage: str) -> dict[int, AnalysedTrial]:
    return {
        repeat: trial
        for (name, at, repeat), trial in one.trials.items()
        if (name, at) == (variant, stage) and all(check.name == "failed" for check in trial.summary.audit.checks if check.verdict == "void")
        and (trial.usable or trial.summary.audit.checks)
    }  # fmt: skip


def _failing(trial: AnalysedTrial) -> Floats:
    return (trial.measured["status"] != "ok").to_numpy().astype(np.float64)


def newcombe_unpaired(before: float, n_before: float, after: float, n_after: float) -> Span:
    """after - before with its 95% interval: Newcombe's method 10, whose error is that of the end which lies nearer to no change."""
    from perfbench.quality.intervals import wilson_share

    (low_before, high_before), (low_after, high_after) = wilson_share(before, n_before), wilson_share(after, n_after)
    value = after - before
    down = math.hypot(after - low_after, high_before - before)
    up = math.hypot(high_after - after, before - low_before)
    return Span(value, value - down, value + up, (down if value > 0 else up) / Z975)


def _share_of(span: Span, size: float) -> Span:
    low, high, error = (None if one is None else one / size for one in (span.low, span.high, span.error))
    return Span(span.value / size, low, high, error)
