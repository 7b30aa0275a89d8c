"""How many replicas carry a demand, and what that costs.

    replicas       = ceil(peak / (capacity x (1 - head_room))), at least 1; from the ends of the capacity's interval follow those of the replicas'
    usd_per_month  = (replicas + spares) x server_hour_usd x hours_per_month
    usd_per_request = usd_per_month / requests of the month; per token and per correct request as in analyse/cost.py
    utilisation    = rate of the hour / (capacity x all replicas)
    autoscaled     the same rule hour by hour, each hour's own peak in the proportion of the busiest hour's, spares always on; a start costs the time to ready

A deployment is idle at night and a benchmark is not: prices here are above those of analyse/cost.py by as much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from perfbench.plan.demand import HEAD_ROOM, HEAD_ROOM_REASON, HOURS, DemandFile
from perfbench.plan.evidence import VariantEvidence
from perfbench.records import Autoscaled, Demand, Estimate, VariantPlan

_J_PER_KWH = 3.6e6
_LENGTHS_ALIKE = 0.2
"""Mean lengths of demand and measurement within so much of each other are taken for the same."""


@dataclass(frozen=True)
class Rule:
    """How safely, and at which prices."""

    head_room: float
    spare_replicas: int
    hours_per_month: float
    usd_per_kwh: float | None
    currency: str

    @property
    def head_room_reason(self) -> str:
        return HEAD_ROOM_REASON if self.head_room == HEAD_ROOM else "as the demand file says"


def rule_of(given: DemandFile, usd_per_kwh: float | None, currency: str) -> Rule:
    """The rule that a demand file asks for."""
    return Rule(given.head_room, given.spare_replicas, given.hours_per_month, usd_per_kwh, currency)


def replicas_for(rate_per_s: float, capacity_per_s: float | None, head_room: float) -> int | None:
    """At least one; None for a capacity that is not known or nothing."""
    if not capacity_per_s:
        return None
    # The tolerance keeps 12 / (5 x 0.8) at 3 where floating point makes it 3.0000000000000004.
    return max(1, math.ceil(rate_per_s / (capacity_per_s * (1 - head_room)) - 1e-9))


def plan_variant(evidence: VariantEvidence, demand: Demand, rule: Rule) -> VariantPlan:
    """Replicas, GPUs, prices and hours of one variant, or the sentence that says why not."""
    capacity = evidence.capacity_per_s
    if capacity is None or not capacity.value:
        return VariantPlan(reason=evidence.reason or "no good request was served: goodput is zero")
    replicas = _replicas(demand, capacity, rule)
    assert replicas.value is not None  # the capacity has a value
    whole = int(replicas.value) + rule.spare_replicas
    month = _per_month(replicas, evidence, rule)
    # Of the measured requests, which are what the plan counts: the demand's own may be longer, and then cost more each.
    passed, tokens = evidence.pass_share, evidence.output_tokens
    request = month.value / demand.requests_per_month if month is not None and month.value is not None else None
    return VariantPlan(
        reason="",
        capacity_per_s=capacity,
        capacity_from=evidence.capacity_from,
        replicas=replicas,
        spare_replicas=rule.spare_replicas,
        gpus_per_replica=evidence.price.gpus,
        gpus=whole * evidence.price.gpus if evidence.price.gpus is not None else None,
        server_hour_usd=evidence.price.hour_usd,
        usd_per_month=month,
        usd_per_request=request,
        usd_per_million_output_tokens=request / tokens * 1e6 if request is not None and tokens else None,
        usd_per_correct_request=request / passed if request is not None and passed else None,
        energy_usd_per_month=_energy(evidence, demand, rule),
        utilisation_by_hour=[rate / (capacity.value * whole) for rate in demand.hourly_per_s],
        utilisation_at_peak_one_down=demand.peak_per_s / (capacity.value * (whole - 1)) if whole > 1 else None,
        autoscaled=autoscale(demand, capacity.value, whole, evidence, rule),
        warnings=list(evidence.warnings),
    )


def _replicas(demand: Demand, capacity: Estimate, rule: Rule) -> Estimate:
    low, value, high = (replicas_for(demand.peak_per_s, one, rule.head_room) for one in (capacity.ci95_high, capacity.value, capacity.ci95_low))
    return Estimate(value=value, ci95_low=low, ci95_high=high)


def _per_month(replicas: Estimate, evidence: VariantEvidence, rule: Rule) -> Estimate | None:
    hour = evidence.price.hour_usd
    if hour is None:
        return None
    ends = (replicas.value, replicas.ci95_low, replicas.ci95_high)
    value, low, high = (None if count is None else (count + rule.spare_replicas) * hour * rule.hours_per_month for count in ends)
    return Estimate(value=value, ci95_low=low, ci95_high=high)


def _energy(evidence: VariantEvidence, demand: Demand, rule: Rule) -> float | None:
    if rule.usd_per_kwh is None or evidence.energy_j_per_request is None:
        return None
    return demand.requests_per_month * evidence.energy_j_per_request / _J_PER_KWH * rule.usd_per_kwh


def autoscale(demand: Demand, capacity_per_s: float, fixed: int, evidence: VariantEvidence, rule: Rule) -> Autoscaled:
    """Replicas hour by hour. A start is paid from its beginning, so each adds the time to ready."""
    busiest = max(demand.hourly_per_s)
    burst = demand.peak_per_s / busiest if busiest else 1.0
    by_hour = [(replicas_for(rate * burst, capacity_per_s, rule.head_room) or 1) + rule.spare_replicas for rate in demand.hourly_per_s]
    starts = sum(max(0, here - before) for before, here in zip([by_hour[-1], *by_hour[:-1]], by_hour, strict=True))
    hours_a_day = sum(by_hour) + starts * (evidence.ready_s or 0.0) / 3600
    hour = evidence.price.hour_usd
    return Autoscaled(
        replicas_by_hour=by_hour,
        usd_per_month=None if hour is None else hours_a_day / HOURS * hour * rule.hours_per_month,
        saved_share=1 - hours_a_day / (fixed * HOURS),
        starts_per_day=starts,
        ready_s=evidence.ready_s,
    )


def length_warning(demand: Demand, variants: Sequence[VariantEvidence]) -> list[str]:
    """A capacity in requests holds for requests like those it was measured with: the sentence for a demand whose mean lengths are others."""
    with_capacity = [one for one in variants if one.capacity_per_s is not None]
    asked, measured = [], []
    apart = False
    for wanted, had, way in (
        (demand.input_tokens, [one.prompt_tokens for one in with_capacity], "in"), (demand.output_tokens, [one.output_tokens for one in with_capacity], "out"),
    ):  # fmt: skip
        told = [value for value in had if value]
        if not wanted or not told:
            continue
        low, high = min(told), max(told)
        apart |= wanted < low * (1 - _LENGTHS_ALIKE) or wanted > high * (1 + _LENGTHS_ALIKE)
        asked.append(f"{wanted:,.0f} tokens {way}")
        measured.append(f"{low:,.0f} {way}" if f"{low:.0f}" == f"{high:.0f}" else f"{low:,.0f} to {high:,.0f} {way}")
    if not apart:
        return []
    return [
        f"the demand's requests have {' and '.join(asked)} on average, those that were measured {' and '.join(measured)}: the capacity is that of the measured "
        "ones, and this plan counts requests like them. Measure a workload of the demand's lengths before you buy: a stage with `arrival: trace` replays "
        "a trace"
    ]  # fmt: skip
