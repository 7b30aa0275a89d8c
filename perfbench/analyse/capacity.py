"""The highest load at which a variant meets the SLO: what its search's probes showed, judged by their records.

The same records give the same verdicts, so a search is continued, and analysed, from the run folder alone. The rules are those of plan.sequential (is a
probe good?) and plan.search (where is the edge?).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl

from perfbench.analyse.experiment import Experiment
from perfbench.analyse.metrics import NS_PER_S
from perfbench.analyse.trials import AnalysedTrial
from perfbench.analyse.window import trial_outcomes, window_s
from perfbench.plan.search import Answer, Probe, Terms, concurrency_terms, next_step, rate_terms
from perfbench.plan.sequential import Evidence, Judgement, Tally, counts_of, judge
from perfbench.records import CapacitySummary, TrialOutcome, TrialPlan
from perfbench.results import RunFolder
from perfbench.scenario.model import SloLimit
from perfbench.scenario.search import Search

PIECES = 32
"""A window is cut into so many pieces for tallies and backlog."""
CLIENT_CPU_SHARE = 0.95
"""Above it the load process sets the pace (audit: void), so a load that it could not offer says nothing of the server."""
_ABOVE = 1.1
"""Times what the closed loop completed: more than that is either a loop too small to fill the server, or a queue that had no time to grow."""
_PER_TOKEN = ("tpot_s", "ntpot_s")


def allowed_late(slo: Mapping[str, SloLimit]) -> dict[str, float]:
    """Metric -> share of requests that may be beyond its limit."""
    return {metric: 1 - limit.percentile / 100 for metric, limit in slo.items()}


def terms_of(search: Search, saturation: float | None) -> Terms:
    """What plan.search needs; `saturation` of a rate search is what its closed loop completed a second."""
    if search.find == "max_concurrency":
        return concurrency_terms(precision=search.precision, max_probes=search.max_probes, first=search.streams, most=search.max_in_flight)
    assert saturation is not None
    return rate_terms(precision=search.precision, max_probes=search.max_probes, saturation_per_s=saturation)


def saturation_per_s(folder: RunFolder, probes: Sequence[TrialPlan]) -> float | None:
    """Requests a second that the closed loop at the start of a rate search completed; None without one that has finished, or where it completed none."""
    outcomes = trial_outcomes(folder)
    first = next((probe for probe in probes if probe.search == "max_rate" and probe.concurrency is not None and probe.trial in outcomes), None)
    if first is None:
        return None
    outcome = outcomes[first.trial]
    ended = folder.records_of(first.trial).filter((pl.col("status") == "ok") & _within(outcome, "end_ns")).select(pl.len()).collect().item()
    seconds = window_s(outcome)
    return ended / seconds if ended and seconds > 0 else None


def judged_probes(folder: RunFolder, probes: Sequence[TrialPlan], slo: Mapping[str, SloLimit], search: Search) -> list[Probe]:
    """Finished probes with their verdicts, in their order; the closed loop at the start of a rate search is none of them."""
    outcomes = trial_outcomes(folder)
    found = []
    for plan in probes:
        load = plan.rate_per_s if search.find == "max_rate" else plan.concurrency
        if load is None or plan.trial not in outcomes:
            continue
        outcome = outcomes[plan.trial]
        shown = evidence(folder.records_of(plan.trial), outcome, slo, longest_s=search.duration_s, rate_per_s=plan.rate_per_s)
        judgement = judge(shown, allowed_late(slo))
        counts = counts_of(shown, allowed_late(slo), judgement) if search.find == "max_rate" else {}
        found.append(Probe(load, judgement, _at_limit(outcome, judgement), counts))
    return found


def _at_limit(outcome: TrialOutcome, judgement: Judgement) -> bool:
    """Held back at max_in_flight: a server that is late has filled it, one that is good was not offered the load."""
    busy = outcome.client_cpu_s is not None and outcome.client_cpu_s > CLIENT_CPU_SHARE * window_s(outcome)
    return busy or (outcome.held_back > 0 and judgement.verdict in ("good", "unclear"))


def _within(outcome: TrialOutcome, column: str) -> pl.Expr:
    return pl.col(column).is_between(outcome.measure_from_ns, outcome.measure_until_ns, closed="left")


def evidence(records: pl.LazyFrame, outcome: TrialOutcome, slo: Mapping[str, SloLimit], *, longest_s: float, rate_per_s: float | None) -> Evidence:
    """What the records of a probe show. A request that we cut off counts only where it was late by then."""
    columns = ("scheduled_ns", "sent_ns", "first_token_ns", "last_token_ns", "end_ns", "output_tokens", "status", "error")
    every = records.select(columns).sort("scheduled_ns").collect()
    measured = every.filter(_within(outcome, "scheduled_ns"))
    span_ns = max(1, outcome.measure_until_ns - outcome.measure_from_ns)
    piece = ((pl.col("scheduled_ns") - outcome.measure_from_ns) * PIECES // span_ns).alias("piece")
    tallies = {}
    for metric, limit in slo.items():
        counts = measured.select(piece, _late(metric, limit.limit_s).alias("late")).drop_nulls().group_by("piece").agg(pl.len(), pl.col("late").sum())
        tallies[metric] = [Tally(judged, late) for _, judged, late in counts.sort("piece").iter_rows()]
    backlog = _in_flight(every, outcome) if rate_per_s is not None else []
    return Evidence(window_s(outcome), longest_s, tallies, backlog, rate_per_s)


def _late(metric: str, limit_s: float) -> pl.Expr:
    """True, False, or null where it cannot be known: an answer of one token has no time per token, a request cut off in time might have ended in time."""
    start = pl.col("scheduled_ns") if metric.endswith("_scheduled_s") else pl.coalesce("sent_ns", "scheduled_ns")
    waited_s = (pl.col("end_ns") - start) / NS_PER_S
    if metric in ("ttft_s", "ttft_scheduled_s"):
        took_s = (pl.col("first_token_ns") - start) / NS_PER_S
    elif metric in _PER_TOKEN:
        tokens = pl.col("output_tokens") - 1 if metric == "tpot_s" else pl.col("output_tokens")
        begin = pl.col("first_token_ns") if metric == "tpot_s" else start
        took_s = pl.when(tokens > 0).then((pl.col("last_token_ns") - begin) / NS_PER_S / tokens)
    else:
        took_s = (pl.col("last_token_ns") - start) / NS_PER_S
    cut_off = pl.when((waited_s > limit_s) & (metric not in _PER_TOKEN)).then(True)
    return pl.when(pl.col("status") == "ok").then(took_s > limit_s).when(pl.col("error") == "cancelled").then(cut_off).otherwise(True)


def _in_flight(every: pl.DataFrame, outcome: TrialOutcome) -> list[float]:
    """Requests that were due and had not ended, at PIECES moments of the window."""
    moments = np.linspace(outcome.measure_from_ns, outcome.measure_until_ns, PIECES + 1)[1:]
    due, ended = np.sort(every["scheduled_ns"].to_numpy()), np.sort(every["end_ns"].to_numpy())
    counts = np.searchsorted(due, moments, side="right") - np.searchsorted(ended, moments, side="right")
    return [float(count) for count in counts]


def capacities(folder: RunFolder, variant: str, experiment: Experiment, probes: Sequence[AnalysedTrial]) -> list[CapacitySummary]:
    """The answers of a variant's searches, with the goodput of the probe that each rests on."""
    found = [capacity_summary(folder, variant, search, experiment.slo) for search in experiment.search]
    goodput = {trial.plan.stage: _at_most(trial.summary.rates.goodput_per_s, trial.plan.rate_per_s) for trial in probes}
    return [msgspec.structs.replace(_with_void(one, probes), goodput_per_s=goodput.get(one.stage or "")) for one in found if one is not None]


def _at_most(goodput_per_s: float | None, rate_per_s: float | None) -> float | None:
    """No more than the probe's rate: one that ended early may have had more arrivals than that brings in the long run."""
    return goodput_per_s if goodput_per_s is None or rate_per_s is None else min(goodput_per_s, rate_per_s)


def _with_void(found: CapacitySummary, probes: Sequence[AnalysedTrial]) -> CapacitySummary:
    """Says in the basis how many of the probes are void: they were driven before anybody knew, and the loads that followed rest on them."""
    mine = [trial for trial in probes if trial.plan.search == found.find]
    void = sum(not trial.usable for trial in mine)
    return msgspec.structs.replace(found, basis=f"{found.basis}; {void} of {len(mine)} trials of the search are void, see the audit") if void else found


def usable(found: CapacitySummary, probes: Sequence[AnalysedTrial]) -> bool:
    """Whether a search's answer may be used: it came to one, and the probe that it rests on is not void; without such a probe, any of its probes."""
    stages = {trial.plan.stage for trial in probes if trial.usable and trial.plan.search == found.find}
    return found.ended and (found.stage in stages if found.stage is not None else bool(stages))


def capacity_summary(folder: RunFolder, variant: str, search: Search, slo: Mapping[str, SloLimit]) -> CapacitySummary | None:
    """The answer of one search of one variant; None where no probe of it has finished."""
    outcomes = trial_outcomes(folder)
    probes = [probe for probe in folder.probes() if probe.variant == variant and probe.search == search.find and probe.trial in outcomes]
    if not probes:
        return None
    server_s = sum((outcomes[probe.trial].ended_ns - outcomes[probe.trial].started_ns) / NS_PER_S for probe in probes)
    spent: dict[str, Any] = {"find": search.find, "probes": len(probes), "server_s": server_s}
    saturation = saturation_per_s(folder, probes)
    if search.find == "max_rate" and saturation is None:
        basis = f"no request of the closed loop with {search.streams} streams was answered in its window, so there is no rate to begin from"
        return CapacitySummary(**spent, value=None, low=None, high=None, basis=basis)
    judged = judged_probes(folder, probes, slo, search)
    step = next_step(judged, terms_of(search, saturation)) if judged else None
    if not isinstance(step, Answer):
        return CapacitySummary(**spent, value=None, low=None, high=None, basis="the search has not finished", saturation_per_s=saturation, ended=False)
    value = step.load if search.find == "max_rate" else step.gap.low if step.gap.high is not None else None
    at = _probe_at(probes, step.gap.low, search)
    return CapacitySummary(
        **spent, value=value, low=step.interval.low, high=step.interval.high, saturation_per_s=saturation, stage=at.stage if at is not None else None,
        basis=_sentence(step, judged, search) + _doubt(value, saturation, search),
    )  # fmt: skip


def _doubt(value: float | None, saturation: float | None, search: Search) -> str:
    if search.find != "max_rate" or value is None or saturation is None or value <= _ABOVE * saturation:
        return ""
    completed = f"the closed loop of {search.streams} streams completed ({saturation:.4g} requests/s)"
    return f"; that is more than {completed}: longer windows (`duration_s`) show whether it lasts"


def _probe_at(probes: Sequence[TrialPlan], load: float | None, search: Search) -> TrialPlan | None:
    """The probe on the good side of the edge."""
    loads = {(probe.rate_per_s if search.find == "max_rate" else probe.concurrency): probe for probe in probes}
    return loads.get(load) if load is not None else None


def _words(load: float | None, search: Search) -> str:
    if search.find == "max_rate":
        return f"{load:.4g} requests/s"
    return "1 stream" if load == 1 else f"{load:.0f} streams"


def _sentence(answer: Answer, judged: Sequence[Probe], search: Search) -> str:
    low, high = answer.gap
    if answer.reason == "client":
        return "requests were late because this client was at its limit in every probe, so nothing is known of the server"
    if answer.reason == "never meets":
        decided = max((probe for probe in judged if probe.load == high), key=lambda probe: probe.judgement.llr, default=None)
        what = f" ({decided.judgement.metric})" if decided is not None and decided.judgement.metric else ""
        return f"the SLO is missed{what} even at {_words(high, search)}, the lowest load tried: there is no load that meets it"
    if answer.reason == "never misses":
        return f"the SLO is met up to {_words(low, search)}, the most that this client could offer: the edge lies higher"
    if answer.edge is not None:
        met, missed = _words(low, search), f" and missed at {_words(high, search)}" if high is not None else ""
        ended = "" if answer.reason == "found" else "; all probes were spent before it was as precise as asked"
        return f"the SLO is met at {met}{missed}; the edge is what all {len(judged)} probes together make most likely{ended}"
    sides = [f"{_words(load, search)}: {verb}" for load, verb in ((low, "the SLO is met"), (high, "it is missed")) if load is not None]
    between = ", ".join(sides)
    spent = "" if answer.reason == "found" else "; the search ended before it was as precise as asked: all probes were spent"
    unclear = sum(probe.judgement.verdict == "unclear" for probe in judged)
    close = f"; {unclear} of {len(judged)} probes were too close to the edge to tell" if unclear else ""
    return between + close + spent
