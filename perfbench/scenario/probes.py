"""The stage that a probe of a search drives: like a stage of the scenario, with the load that the search chose."""

from __future__ import annotations

from perfbench.records import TrialPlan
from perfbench.scenario.model import Stage
from perfbench.scenario.search import Search

PROBE_PREFIX = "search-"
"""Stages of a scenario are not named so where it has a search."""


def probe_stage(plan: TrialPlan, search: Search, first: Stage | None) -> Stage:
    """`first` is the scenario's first stage: answers are as long as there, unless the search says otherwise."""
    output = search.output or (first.output if first is not None else None)
    assert output is not None
    closed = plan.concurrency is not None
    return Stage(
        name=plan.stage,
        arrival="closed" if closed else search.arrival,
        concurrency=plan.concurrency,
        rate_per_s=plan.rate_per_s,
        burstiness=None if closed else search.burstiness,
        warmup_s=search.warmup_s,
        duration_s=search.duration_s,
        drain_s=search.drain_s,
        max_in_flight=search.max_in_flight,
        output=output,
        response_format=first.response_format if first is not None and search.output is None else None,
    )
