"""Does a load meet the SLO? Decided while its requests come in, with as few of them as the answer takes. Pure.

A limit on p95 asks that at most q = 5% of requests are late. Wald's sequential probability ratio test (1945) holds two shares against each other, the
one whose odds are ODDS times lower and the one whose odds are ODDS times higher than q's, and stops when one of them is 1 / ERROR times as likely:
no test with these error rates needs fewer requests on average (Wald & Wolfowitz 1948). With no late request at all, p95 is clear after 94 requests
and p99 after 468; with all of them late, after 6. It may be looked at after every request. Between the two shares either answer may come; the share of late
requests grows so steeply with the load that this is a narrow strip of loads (docs/sizing.md).

Wald's test wants independent requests. Those of a queue are late together, so the evidence is divided by the variance inflation that batch means show
(Schmeiser 1982): so many dependent requests tell as much as one independent one.

What latencies do not show yet, the backlog does: above its capacity a server's requests in flight grow in proportion to time, long before a generous
limit is reached. A slope that its own noise does not explain, and that means at least DRIFT of the arrivals left unserved, is saturation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from perfbench.plan.edge import Count

Floats = npt.NDArray[np.float64]

Verdict = Literal["good", "saturated", "late", "unclear"]
"""good: it meets the SLO. late: it misses it. saturated: requests pile up, so it would miss it in time. unclear: too close to tell."""

ODDS = 1.5
ERROR = 0.02
"""Of either kind, in each probe."""
THRESHOLD = math.log((1 - ERROR) / ERROR)
BATCHES = 8
MIN_BATCHES = 4
"""Fewer readings than this show neither inflation nor a slope."""
GOOD_AFTER = 0.25
"""Of a probe's longest window: what is late because of a rare burst needs time to happen."""
LATE_AFTER = 0.1
"""One burst is no load."""
DRIFT = 0.02
_SLOPE_T = 5.208
"""Student's t, 6 degrees of freedom, 99.9%, one-sided: a slope over BATCHES points, looked at many times."""
_RISING_T = 1.440
"""The same at 90%: with so much of a slope nothing is called good before its time."""


class Tally(NamedTuple):
    """One piece of a probe's window: requests judged by one limit, and those of them that were late. Failed requests are late."""

    judged: int
    late: int


class Evidence(NamedTuple):
    """What a probe has shown so far."""

    elapsed_s: float
    """Of its window."""
    longest_s: float
    """What the window may become."""
    tallies: Mapping[str, Sequence[Tally]]
    """Metric -> pieces in time order."""
    in_flight: Sequence[float]
    """Requests in flight, read at equal distances over the window; empty for a closed loop."""
    rate_per_s: float | None
    """Of arrivals; None for a closed loop."""


class Judgement(NamedTuple):
    """A verdict, and the weight of the evidence: the log-likelihood ratio of "late" against "good", at most THRESHOLD either way."""

    verdict: Verdict
    llr: float
    late_share: float | None
    """Of the limit that decided; None where nothing was judged."""
    metric: str | None


def judge(evidence: Evidence, allowed: Mapping[str, float]) -> Judgement:
    """`allowed` is the share of requests that may be late, by metric: 0.05 for a p95. One limit that is missed decides; "good" needs all of them."""
    judgements = [_by_limit(metric, evidence.tallies.get(metric, ()), share) for metric, share in allowed.items()]
    worst = max(judgements, key=lambda one: one.llr)
    finished = evidence.elapsed_s >= 0.99 * evidence.longest_s
    if worst.llr >= THRESHOLD and (finished or evidence.elapsed_s >= LATE_AFTER * evidence.longest_s):
        return worst._replace(verdict="late")
    if not finished and evidence.elapsed_s < GOOD_AFTER * evidence.longest_s:
        return worst
    slope_t, drift = backlog_slope(evidence)
    if slope_t > _SLOPE_T and drift > DRIFT:
        return worst._replace(verdict="saturated", llr=THRESHOLD)
    if slope_t > _RISING_T and drift > DRIFT:
        # In time so far, but more and more are waiting: that is no evidence for "good".
        return worst._replace(llr=max(worst.llr, 0.0))
    return worst._replace(verdict="good") if worst.llr <= -THRESHOLD else worst


def _by_limit(metric: str, pieces: Sequence[Tally], allowed: float) -> Judgement:
    judged, late = sum(piece.judged for piece in pieces), sum(piece.late for piece in pieces)
    if not judged:
        return Judgement("unclear", 0.0, None, metric)
    low, high = _share(allowed, 1 / ODDS), _share(allowed, ODDS)
    ratio = late * math.log(high / low) + (judged - late) * math.log((1 - high) / (1 - low))
    llr = ratio / inflation(pieces)
    return Judgement("unclear", max(-THRESHOLD, min(THRESHOLD, llr)), late / judged, metric)


def _share(share: float, factor: float) -> float:
    """The share whose odds are `factor` times as high."""
    odds = share / (1 - share) * factor
    return odds / (1 + odds)


def inflation(pieces: Sequence[Tally]) -> float:
    """How many dependent requests tell as much as one: variance of the pieces' late counts over that of independent ones; at least 1.

    Pieces are taken together into BATCHES, because only batches that outlast the correlation show it.
    """
    batches = _together(np.array([(piece.judged, piece.late) for piece in pieces], dtype=np.float64).reshape(-1, 2))
    judged, late = batches[:, 0], batches[:, 1]
    share = float(late.sum() / max(judged.sum(), 1.0))
    if len(batches) < MIN_BATCHES or not 0.0 < share < 1.0:
        return 1.0
    spread = float(np.sum((late - share * judged) ** 2)) * len(batches) / (len(batches) - 1)
    return max(1.0, spread / (float(judged.sum()) * share * (1 - share)))


def counts_of(evidence: Evidence, allowed: Mapping[str, float], judgement: Judgement) -> dict[str, Count]:
    """What a probe that was judged so showed of every limit, for plan.edge. Where more and more requests waited, being in time so far is no evidence for
    "good": it counts as the share that is allowed."""
    found = {}
    rising = judgement.verdict == "unclear" and judgement.llr >= 0
    for metric, share in allowed.items():
        pieces = evidence.tallies.get(metric, ())
        judged, late = sum(piece.judged for piece in pieces), sum(piece.late for piece in pieces)
        if rising:
            late = max(late, int(share * judged))
        found[metric] = Count(judged, late, inflation(pieces), share, judgement.verdict == "saturated")
    return found


def backlog_slope(evidence: Evidence) -> tuple[float, float]:
    """Student's t of the slope of requests in flight over time, and the slope as a share of the arrivals; (0, 0) where it cannot be seen."""
    readings = np.asarray(evidence.in_flight, dtype=np.float64)
    if evidence.rate_per_s is None or len(readings) < BATCHES or evidence.elapsed_s <= 0:
        return 0.0, 0.0
    level = _together(readings.reshape(-1, 1), mean=True)[:, 0]
    place = (np.arange(BATCHES) + 0.5) / BATCHES * evidence.elapsed_s
    centred = place - place.mean()
    slope = float(centred @ level / (centred @ centred))
    rest = level - level.mean() - slope * centred
    error: float = math.sqrt(float(rest @ rest) / (BATCHES - 2) / float(centred @ centred))
    t = slope / error if error else math.copysign(math.inf, slope) if slope else 0.0
    return t, slope / evidence.rate_per_s


def _together(rows: Floats, *, mean: bool = False) -> Floats:
    """At most BATCHES rows: sums, or means, of neighbours."""
    if len(rows) <= BATCHES:
        return rows
    edges = np.linspace(0, len(rows), BATCHES + 1).astype(int)
    sums: Floats = np.add.reduceat(rows, edges[:-1], axis=0)
    return sums / np.diff(edges)[:, None] if mean else sums
