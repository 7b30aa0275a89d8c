"""The planned size put to the test: a simulation of the replicas at the peak, with the service times that the run measured.

Arrivals are Poisson at the peak's rate, lengths are drawn from the requests that were measured, behind each router (plan.simulate). An SLO of p95 is met when
at least 95% of the simulated requests are within its limit. Where the best router misses it at the planned size, the smallest size that meets it is looked for,
up to twice the planned one. Of a large fleet a part is simulated, at its part of the rate: a replica sees the same arrivals there.

How a server slows down under more requests is known from closed-loop stages of several loads. Where only one load was measured it is not: then a server is
simulated as if it served no more than that many at once, which is safe, and said. Beyond the most streams that were measured the times are extrapolated, and
where the simulation goes there often, that is said too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np
import polars as pl

from perfbench.analyse.experiment import Experiment
from perfbench.plan.evidence import VariantEvidence
from perfbench.plan.service import MIN_REQUESTS, ClosedStage, closed_stages, fit_service
from perfbench.plan.simulate import ROUTERS, Floats, Router, Served, Service, poisson_requests, simulate
from perfbench.records import Demand, Simulated, VariantPlan
from perfbench.scenario.model import SloLimit

MOST_REPLICAS = 16
"""That are simulated; the least-outstanding router looks at every one of them for every request."""
REQUESTS = 10_000
_BEST: Router = "least-outstanding"
_P95 = 95
_FALLS_BEHIND = 3.0
"""Times to the end in the last quarter of the simulation over those in the first: where the queue grows all the time they are 4.2 times as long."""
_SEED = 0
_HELD_REQUESTS = 100
"""Of a Poisson trial; the p95 of fewer says little."""
_BEYOND = 1.5
"""Times the most streams that were measured: so far a line through them is trusted."""

Lengths = list[tuple[float, float]]


def checked(plan: VariantPlan, evidence: VariantEvidence, demand: Demand, experiment: Experiment) -> VariantPlan:
    """The plan with what the simulation says of it; as it is where there is none to check. Says in its warnings why nothing could be simulated."""
    if plan.replicas is None or plan.replicas.value is None:
        return plan
    stages = closed_stages(evidence.trials, experiment)
    service = service_of(stages, evidence.name, experiment)
    lengths = _lengths(evidence)
    warnings = list(plan.warnings)
    loads = _loads(stages)
    if service is not None and len(loads) == 1:
        streams = loads[0]
        service = replace(service, slots=min(service.slots or streams, streams))
        warnings.append(f"simulated as if a server took no more than {streams} at once: closed-loop stages of one load only do not tell how it slows down")
    if service is None or not lengths:
        reason = "the planned size is not simulated: no closed-loop stage has enough answered requests to tell how the server serves"
        return msgspec.structs.replace(plan, warnings=[*plan.warnings, reason])
    warnings += _held_to_measured(service, evidence, experiment)
    replicas = int(plan.replicas.value)
    found = [simulation(service, lengths, demand.peak_per_s, replicas, router, experiment.slo) for router in ROUTERS]
    measured = loads[-1]
    best = next(one for one in found if one.router == _BEST)
    together = min(best.in_service_p95, service.slots or math.inf)
    if together > _BEYOND * measured:
        more = f"the simulation often serves {together:.0f} requests at once on a server, where at most {measured:.0f} were measured"
        warnings.append(f"{more}: its times are extrapolated")
    if best.meets is False:
        warnings.append(_larger(service, lengths, demand.peak_per_s, replicas, experiment.slo))
    return msgspec.structs.replace(plan, simulated=found, warnings=warnings)


def _held_to_measured(service: Service, evidence: VariantEvidence, experiment: Experiment) -> list[str]:
    """How far the simulation is off in the run's own Poisson trials, which it was not fitted on: the sentence, or nothing where there are none."""
    off = []
    for trial in evidence.trials:
        stage = experiment.stage_of(trial.plan)
        answered = trial.measured.filter((pl.col("status") == "ok") & pl.col("ttft_s").is_not_null()).select("ttft_s", "prompt_tokens", "output_tokens")
        if trial.usable and stage.arrival == "poisson" and stage.rate_per_s and len(answered.drop_nulls()) == len(answered) >= _HELD_REQUESTS:
            pairs = [(float(prompt), float(answer)) for _, prompt, answer in answered.iter_rows()]
            found = simulation(service, pairs, stage.rate_per_s, 1, _BEST, {})
            measured = _percentile(answered["ttft_s"].to_numpy(), _P95)
            if found.ttft_p95_s is not None and measured:
                off.append(found.ttft_p95_s / measured - 1)
    if not off:
        return []
    told = f"{min(off):+.0%}" if len(off) == 1 else f"{min(off):+.0%} to {max(off):+.0%}"
    trials = "1 Poisson trial" if len(off) == 1 else f"{len(off)} Poisson trials"
    return [f"held to {trials} of this run that it was not fitted on, the simulation's p95 of TTFT is {told} off"]


def service_of(stages: Sequence[ClosedStage], variant: str, experiment: Experiment) -> Service | None:
    """How a replica of the variant serves. What we start ourselves is vLLM, which works in steps; of an endpoint that is not known."""
    args = experiment.serve_args_of(variant)
    slots, batch_tokens = (int(given) if given.isdecimal() and int(given) else None for given in (
        str(args.get(flag, "")) for flag in ("max-num-seqs", "max-num-batched-tokens")
    ))  # fmt: skip
    return fit_service(stages, slots=slots, in_steps=variant not in experiment.endpoints, batch_tokens=batch_tokens)


def _loads(stages: Sequence[ClosedStage]) -> list[int]:
    """Numbers of streams that were measured with enough requests, ascending."""
    requests: Counter[int] = Counter()
    for stage in stages:
        requests[stage.streams] += len(stage.ttft_s)
    return sorted(streams for streams, count in requests.items() if count >= MIN_REQUESTS)


def _lengths(evidence: VariantEvidence) -> Lengths:
    """(prompt, answer) tokens of everything that was measured and answered."""
    found: Lengths = []
    for trial in evidence.trials:
        if trial.usable:
            told = trial.measured.filter(pl.col("status") == "ok").select("prompt_tokens", "output_tokens").drop_nulls()
            found += [(float(prompt), float(answer)) for prompt, answer in told.iter_rows()]
    return found


def simulation(service: Service, lengths: Lengths, rate_per_s: float, replicas: int, router: Router, slo: Mapping[str, SloLimit]) -> Simulated:
    """One size behind one router at one rate."""
    part = min(replicas, MOST_REPLICAS)
    requests = poisson_requests(lengths, rate_per_s=rate_per_s * part / replicas, count=REQUESTS, seed=_SEED)
    served = simulate(service, requests, replicas=part, router=router, seed=_SEED)
    begin = len(served.ttft_s) // 10  # until the replicas are as full as they stay
    values = _values(served, requests.output_tokens, begin)
    quarters = np.array_split(values["e2e_s"], 4)
    stable = bool(quarters[3].mean() < _FALLS_BEHIND * quarters[0].mean())
    return Simulated(
        router=router, replicas=replicas, rate_per_s=rate_per_s, stable=stable,
        ttft_p95_s=_percentile(values["ttft_s"], _P95) if stable else None, tpot_p95_s=_percentile(values["tpot_s"], _P95) if stable else None,
        meets=_meets(values, slo) if stable else False if slo else None, in_service_p95=_in_service(requests.arrival_s, served, part, begin),
    )  # fmt: skip


def _values(served: Served, output_tokens: Floats, begin: int) -> dict[str, Floats]:
    """Latencies by the names of the SLO. Nothing waits in a client here: times from sending and from the schedule are the same."""
    e2e_s = served.e2e_s[begin:]
    return {"ttft_s": served.ttft_s[begin:], "tpot_s": served.tpot_s[begin:], "e2e_s": e2e_s, "ntpot_s": e2e_s / np.maximum(output_tokens[begin:], 1)}


def _in_service(arrival_s: Floats, served: Served, replicas: int, begin: int) -> float:
    """Requests on a replica, waiting ones included, that an arrival finds there, itself included: the 95th percentile."""
    found = []
    for replica in range(replicas):
        mine = served.replica == replica
        due, ended = arrival_s[mine], np.sort(arrival_s[mine] + served.e2e_s[mine])
        found.append((np.arange(1, len(due) + 1) - np.searchsorted(ended, due, side="right"))[due >= arrival_s[begin]])
    return float(np.quantile(np.concatenate(found), _P95 / 100))


def _meets(values: Mapping[str, Floats], slo: Mapping[str, SloLimit]) -> bool | None:
    """None without an SLO. An answer of one token has no time per token to miss."""
    if not slo:
        return None
    found = [(_percentile(values[metric.replace("_scheduled_s", "_s")], limit.percentile), limit.limit_s) for metric, limit in slo.items()]
    return all(value is None or value <= limit_s for value, limit_s in found)


def _percentile(values: Floats, percent: float) -> float | None:
    told = values[~np.isnan(values)]
    return float(np.quantile(told, percent / 100, method="inverted_cdf")) if len(told) else None


def _larger(service: Service, lengths: Lengths, rate_per_s: float, replicas: int, slo: Mapping[str, SloLimit]) -> str:
    """The smallest size up to twice the planned one that meets the SLO behind the best router, in a sentence."""
    low, high = replicas, 2 * replicas
    if not simulation(service, lengths, rate_per_s, high, _BEST, slo).meets:
        return f"simulated, neither {replicas} replicas meet the SLO at the peak nor twice as many: under arrivals at random the measured service is too slow"
    while high - low > 1:
        middle = math.ceil((low + high) / 2)
        low, high = (low, middle) if simulation(service, lengths, rate_per_s, middle, _BEST, slo).meets else (middle, high)
    return f"simulated, {replicas} replicas miss the SLO at the peak and {high} meet it: plan for {high}"
