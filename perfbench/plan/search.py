"""The highest load that meets the SLO: which load to probe next, and when to stop. Pure: from the probes so far to the next one, or to the answer.

max_rate begins with a closed loop of many streams. What it completes a second is about what the server can do, so the answer is looked for from there:
a little below it first, half of it while the SLO is missed, further up while it is met. max_concurrency begins with a number of streams, and doubles or
halves it. Once one load meets the SLO and a higher one misses it, the middle of the gap comes next (the geometric middle, rates differ by ratios),
until the gap is as narrow as was asked for.

A rate is looked for by plan.edge as soon as one probe meets the SLO and another misses it: the next probe is where the edge most likely lies, until it lies
within the precision asked for, to either side, with a probability of 80%. The interval is that of 95%.

For streams, probes near the edge are uncertain, and may contradict each other. All of them are kept: the edge lies in the gap between two probed loads that
makes what was seen most likely (a change point by maximum likelihood; each probe's weight is its log-likelihood ratio from `sequential`), and the interval
is all gaps whose likelihood is within a factor of e^1.92 of the best, the 95% limit of a likelihood ratio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from perfbench.plan.edge import Count, Edge, edge_of
from perfbench.plan.sequential import THRESHOLD, Judgement

Find = Literal["max_rate", "max_concurrency"]

FIRST_OF_SATURATION = 0.8
"""Of the closed loop's throughput: most SLOs bind somewhere below it."""
UP = 1.25
LOWEST_OF_SATURATION = 1 / 64
"""Below it a server is idle nearly always, and latencies are those of a request alone."""
_LIKELY = 1.92
"""Half of the 95th percentile of chi-squared with one degree of freedom."""


class Probe(NamedTuple):
    """One probe as judged. `load` is a rate, requests a second, or a number of streams."""

    load: float
    judgement: Judgement
    at_limit: bool = False
    """The client could not offer it: it held requests back, or had no CPU left."""
    counts: Mapping[str, Count] = {}
    """By limit; of a search for a rate, and empty in one for streams."""

    @property
    def misses(self) -> bool:
        """More requests were late than a limit allows, or they piled up."""
        return any(count.saturated or count.late > count.allowed * count.judged for count in self.counts.values())


class Gap(NamedTuple):
    """Where the edge lies: above `low`, the highest load on the good side, below `high`, the lowest on the bad side. None: no probe bounds it there."""

    low: float | None
    high: float | None


class Answer(NamedTuple):
    """The search is over. Without a `gap.low` nothing met the SLO; without a `gap.high` nothing missed it."""

    gap: Gap
    interval: Gap
    reason: Literal["found", "never meets", "never misses", "probes spent", "client"]
    edge: float | None = None
    """Where a rate's edge lies most likely."""

    @property
    def load(self) -> float | None:
        """The edge, else the middle of the gap; None where that is open."""
        if self.edge is not None:
            return self.edge
        return math.sqrt(self.gap.low * self.gap.high) if self.gap.low is not None and self.gap.high is not None else None


class Terms(NamedTuple):
    """What is looked for."""

    find: Find
    precision: float
    max_probes: int
    most: float
    """max_concurrency: the most streams that the client may keep in flight. max_rate: no limit of its own (infinity)."""
    first: float
    """The load that is tried first."""
    lowest: float
    """Nothing below it is tried."""


def rate_terms(*, precision: float, max_probes: int, saturation_per_s: float) -> Terms:
    """Of a search for a rate; `saturation_per_s` is what the closed loop completed."""
    first = FIRST_OF_SATURATION * saturation_per_s
    return Terms("max_rate", precision, max_probes, math.inf, first, LOWEST_OF_SATURATION * saturation_per_s)


def concurrency_terms(*, precision: float, max_probes: int, first: int, most: int) -> Terms:
    """Of a search for a number of streams."""
    return Terms("max_concurrency", precision, max_probes, most, first, 1)


def next_step(probes: Sequence[Probe], terms: Terms) -> float | Answer:
    """The load to probe next, or the answer."""
    if not probes:
        return terms.first
    # Late at the client's limit says nothing of the server.
    telling = [probe for probe in probes if not (probe.at_limit and probe.judgement.llr > 0)]
    if not telling:
        lower = min(probe.load for probe in probes) / 2
        return lower if lower >= terms.lowest else Answer(Gap(None, None), Gap(None, None), "client")
    if all(probe.counts for probe in telling):
        sides = {probe.misses for probe in telling}
        if len(sides) == 2:
            return _near_edge(telling, len(probes), terms)
        # All on one side: nothing is known but the last load of it.
        gap = Gap(None, min(probe.load for probe in telling)) if True in sides else Gap(max(probe.load for probe in telling), None)
        interval = gap
    else:
        gap, interval = most_likely(telling)
    at_limit = any(probe.at_limit for probe in probes if gap.low is None or probe.load >= gap.low)
    if gap.low is None and gap.high is not None and gap.high <= terms.lowest:
        return Answer(gap, interval, "never meets")
    if gap.high is None and gap.low is not None and (gap.low >= terms.most or at_limit):
        return Answer(gap, interval, "never misses")
    if _narrow(gap, terms):
        return Answer(gap, interval, "found")
    if len(probes) >= terms.max_probes:
        return Answer(gap, interval, "probes spent")
    if gap.high is not None and gap.low is None and all(probe.counts for probe in telling):
        return max(min(0.9 * gap.high, edge_of([(probe.load, probe.counts) for probe in telling]).load), gap.high / 2, terms.lowest)
    return _between(gap, terms)


def _near_edge(telling: Sequence[Probe], probes: int, terms: Terms) -> float | Answer:
    """Some loads meet the SLO and others miss it: the likeliest edge is the next load, or the answer."""
    edge = edge_of([(probe.load, probe.counts) for probe in telling])
    precise = edge.likely_high <= edge.likely_low * (1 + terms.precision) ** 2
    if not precise and probes < terms.max_probes:
        loads = [probe.load for probe in telling]
        return min(max(edge.load, min(loads) / 2, terms.lowest), max(loads) * UP)
    return Answer(_neighbours(telling, edge), Gap(edge.low, edge.high), "found" if precise else "probes spent", edge.load)


def _neighbours(probes: Sequence[Probe], edge: Edge) -> Gap:
    """The nearest loads to both sides of the edge that were on that side: they are named as the evidence."""
    good = [probe.load for probe in probes if not probe.misses]
    low = max((load for load in good if load <= edge.load), default=min(good))
    high = min((probe.load for probe in probes if probe.misses and probe.load > low), default=None)
    return Gap(low, high)


def _narrow(gap: Gap, terms: Terms) -> bool:
    if gap.low is None or gap.high is None:
        return False
    return gap.high <= gap.low * (1 + terms.precision) or (terms.find == "max_concurrency" and gap.high - gap.low <= 1)


def _between(gap: Gap, terms: Terms) -> float:
    if gap.low is not None and gap.high is not None:
        load = math.sqrt(gap.low * gap.high)
    elif gap.low is not None:
        load = gap.low * (2 if terms.find == "max_concurrency" else UP)
    else:
        assert gap.high is not None
        load = gap.high / 2
    load = min(max(load, terms.lowest), terms.most)
    if terms.find == "max_concurrency":
        load = float(round(load)) if gap.low is None or gap.high is None else float(min(max(round(load), gap.low + 1), gap.high - 1))
    return load


def most_likely(probes: Sequence[Probe]) -> tuple[Gap, Gap]:
    """The gap between neighbouring loads that divides good from bad best, and the span of all gaps that are nearly as likely."""
    ordered = sorted(probes, key=lambda probe: probe.load)
    loads = sorted({probe.load for probe in ordered})
    gaps = [Gap(low, high) for low, high in zip([None, *loads], [*loads, None], strict=True)]
    scores = [sum(_weight(probe, gap) for probe in ordered) for gap in gaps]
    best = max(range(len(gaps)), key=lambda place: scores[place])
    likely = [gap for gap, score in zip(gaps, scores, strict=True) if score >= scores[best] - _LIKELY]
    return gaps[best], Gap(likely[0].low, likely[-1].high)


def _weight(probe: Probe, gap: Gap) -> float:
    """What a probe says for an edge in this gap: half of its log-likelihood ratio, for or against."""
    llr = max(-THRESHOLD, min(THRESHOLD, probe.judgement.llr))
    above = gap.low is None or probe.load > gap.low
    return llr / 2 if above else -llr / 2
