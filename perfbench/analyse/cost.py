"""What a request costs.

    usd_per_request        = server_hour_usd / 3600 / goodput_per_s
    server_hour_usd        = as given, or gpu_hour_usd x GPUs of the server
    energy_usd_per_request = usd_per_kwh x energy_j_per_request / 3.6e6, beside the price of the hour and not in it

at the stage with the most goodput among those that meet the SLO. Repeats of a stage are taken together: their requests are judged as one
set, their windows add up. Void trials do not count. Answers of a fixed length are made to compare speed, not to be sold, so stages of natural
length decide where there are any. Without an SLO every request is good, and the price is the raw one; the basis says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import polars as pl

from perfbench.analyse.experiment import Experiment
from perfbench.analyse.slo import good, judgeable, slo_result
from perfbench.analyse.stages import rate_together
from perfbench.analyse.stats import Interval
from perfbench.analyse.trials import AnalysedTrial
from perfbench.analyse.window import ended_in_window, window_s
from perfbench.records import CapacitySummary, CostSummary, Estimate, QualityRecord
from perfbench.scenario.model import Cost

_J_PER_KWH = 3.6e6
_PARALLEL_FLAGS = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")


@dataclass(frozen=True)
class StageResult:
    """One stage of one variant over its usable repeats."""

    stage: str
    arrival: str
    requests_per_s: float
    goodput_per_s: float | None
    """None without an SLO, or where usage is missing."""
    goodput_interval: Interval
    """95%, see intervals.py; of all requests, without an SLO. None where the trials are too short for one."""
    tokens_per_request: float | None
    """Mean output tokens of good requests (of all, without an SLO)."""
    prompt_tokens: float | None
    """Mean prompt tokens of the same."""
    energy_j_per_request: float | None
    met: bool | None
    """The SLO, over all requests scheduled in the windows; None without an SLO or where requests are too few."""


@dataclass(frozen=True)
class ServerPrice:
    """What one server costs an hour; `reason` says why that is not known."""

    hour_usd: float | None
    gpus: int | None
    reason: str = ""


def stage_results(trials: Sequence[AnalysedTrial], experiment: Experiment) -> list[StageResult]:
    """Usable trials of one variant, pooled by stage, in the scenario's order; of natural length only, where such stages exist."""
    natural = {name for name, stage in experiment.stages.items() if stage.output.fixed is None and stage.output.trace != "fixed"}
    order = list(experiment.stages)
    chosen = [trial for trial in trials if trial.usable and trial.plan.search is None and (trial.plan.stage in natural or not natural)]
    chosen.sort(key=lambda trial: order.index(trial.plan.stage))
    return [_pooled(stage, list(group), experiment) for stage, group in groupby(chosen, key=lambda trial: trial.plan.stage)]


def edge_results(probes: Sequence[AnalysedTrial], found: Sequence[CapacitySummary], experiment: Experiment) -> list[StageResult]:
    """The probe at the highest load that a search saw meet the SLO, as one more stage. Its sequential test says that it does. A probe that ended early may have
    had more arrivals than its rate brings in the long run, which no server is paid for: its rates are at most that."""
    rates = [one for one in found if one.find == "max_rate" and one.stage is not None]
    # Streams of a closed loop carry more than arrivals at random can use; they count where no rate was found.
    at = {one.stage for one in rates or found if one.stage is not None}
    chosen = [trial for trial in probes if trial.plan.stage in at and trial.usable]
    return [_at_most(replace(_pooled(trial.plan.stage, [trial], experiment), met=True), trial.plan.rate_per_s) for trial in chosen]


def _at_most(result: StageResult, rate_per_s: float | None) -> StageResult:
    if rate_per_s is None:
        return result
    good, (low, high) = result.goodput_per_s, result.goodput_interval
    return replace(
        result, requests_per_s=min(result.requests_per_s, rate_per_s), goodput_per_s=None if good is None else min(good, rate_per_s),
        goodput_interval=Interval(None if low is None else min(low, rate_per_s), None if high is None else min(high, rate_per_s)),
    )  # fmt: skip


def _pooled(stage: str, trials: Sequence[AnalysedTrial], experiment: Experiment) -> StageResult:
    seconds = sum(window_s(trial.outcome) for trial in trials)
    ended = pl.concat([trial.requests.filter(ended_in_window(trial.outcome)) for trial in trials])
    slo = experiment.slo
    counted = ended.filter(good(slo)) if slo else ended
    result = slo_result(pl.concat([trial.measured for trial in trials]), slo)
    return StageResult(
        stage=stage,
        arrival=trials[0].plan.arrival,
        requests_per_s=len(ended) / seconds,
        goodput_per_s=len(counted) / seconds if slo and judgeable(ended, slo) else None,
        goodput_interval=_rate_interval(trials, experiment),
        tokens_per_request=_mean(counted, "output_tokens"),
        prompt_tokens=_mean(counted, "prompt_tokens"),
        energy_j_per_request=_energy(trials),
        met=result["met"] if result else None,
    )


def _mean(requests: pl.DataFrame, column: str) -> float | None:
    mean = requests[column].mean() if requests[column].null_count() == 0 else None
    return mean if isinstance(mean, float) else None


def _rate_interval(trials: Sequence[AnalysedTrial], experiment: Experiment) -> Interval:
    """Of the rate at which good requests end, each repeat a cluster."""
    found = rate_together("goodput_per_s" if experiment.slo else "requests_per_s", trials)
    return Interval(found.ci95_low, found.ci95_high)


def _energy(trials: Sequence[AnalysedTrial]) -> float | None:
    """Joules a request over all repeats; None unless every one has a counter."""
    found = [trial.summary.metrics.get("energy_j_per_request") for trial in trials]
    told = [(one.mean, one.n) for one in found if one is not None and one.mean is not None]
    requests = sum(n for _, n in told)
    return sum(mean * n for mean, n in told) / requests if requests and len(told) == len(found) else None


def gpus_per_server(serve_args: Mapping[str, Any]) -> int:
    """GPUs that one vLLM server takes by its flags: tensor x pipeline x data parallel."""
    count = 1
    for flag in _PARALLEL_FLAGS:
        given = str(serve_args.get(flag, 1))
        count *= int(given) if given.isdigit() and int(given) else 1
    return count


def server_price(cost: Cost | None, experiment: Experiment, variant: str) -> ServerPrice:
    """What an hour of the variant's server costs."""
    ours = variant not in experiment.endpoints
    gpus = gpus_per_server(experiment.serve_args_of(variant)) if ours else None
    if cost is None:
        return ServerPrice(None, gpus, "the scenario gives no price (cost.server_hour_usd or cost.gpu_hour_usd)")
    if cost.server_hour_usd is not None:
        return ServerPrice(cost.server_hour_usd, gpus)
    assert cost.gpu_hour_usd is not None  # validation has seen to it
    if gpus is None:
        return ServerPrice(None, None, "how many GPUs an endpoint has is not known; give cost.server_hour_usd instead of cost.gpu_hour_usd")
    return ServerPrice(cost.gpu_hour_usd * gpus, gpus)


def cost_summary(
    results: Sequence[StageResult], experiment: Experiment, quality: Sequence[QualityRecord], shared_with: Sequence[str], *, variant: str
) -> CostSummary:
    """Prices of one variant from its stages and the edges of its searches; None with the sentence that says why in `basis`."""
    price = server_price(experiment.cost, experiment, variant)
    if experiment.cost is None or price.hour_usd is None:
        return _no_price(price.reason, experiment, price)
    if not results:
        return _no_price("no trial can be used: all are missing or void", experiment, price)
    hour, currency = price.hour_usd, experiment.cost.currency
    raw = max(results, key=lambda result: result.requests_per_s)
    raw_price = _price(hour, raw.requests_per_s)
    if not experiment.slo:
        at = raw
        sentence = f"{hour:g} {currency} an hour at {raw.requests_per_s:.3g} requests/s, the raw throughput of stage {raw.stage}: the scenario sets no SLO"
        at_slo = raw_price
    else:
        best = best_at_slo(results)
        if best is None:
            return _no_price(why_none_at_slo(results), experiment, price, raw_price)
        at = best
        sentence = f"{hour:g} {currency} an hour at {at.goodput_per_s:.3g} good requests/s in stage {at.stage}, the most goodput among stages that meet the SLO"
        at_slo = _price(hour, at.goodput_per_s)
    return _summary(at_slo, at, raw_price, quality, sentence + _shared(shared_with), experiment.cost, price)


def best_at_slo(results: Sequence[StageResult]) -> StageResult | None:
    """The stage with the most goodput among those that meet the SLO; None where none does, or nothing good ended in a window."""
    meeting = [result for result in results if result.met and result.goodput_per_s]
    return max(meeting, key=lambda result: result.goodput_per_s or 0.0, default=None)


def _price(server_hour_usd: float, rate_per_s: float | None) -> float | None:
    return server_hour_usd / 3600 / rate_per_s if rate_per_s else None


def why_none_at_slo(results: Sequence[StageResult]) -> str:
    """The sentence for `best_at_slo` being None."""
    if any(result.met for result in results):
        return "no good request ended in the window of a stage that meets the SLO"
    if any(result.met is None for result in results):
        return "no stage is known to meet the SLO: some have too few requests for its percentile, or no usage"
    return "no stage meets the SLO"


def _shared(shared_with: Sequence[str]) -> str:
    return f"; its server also hosts {', '.join(shared_with)}, and is charged here alone" if shared_with else ""


def pass_share(quality: Sequence[QualityRecord]) -> float | None:
    """Share of held-out samples passed, of those that it is known of; None without a quality check."""
    known = [record.passed for record in quality if record.passed is not None]
    return sum(known) / len(known) if known else None


def _summary(
    at_slo: float | None, at: StageResult, raw_price: float | None, quality: Sequence[QualityRecord], basis: str, cost: Cost, price: ServerPrice
) -> CostSummary:
    tokens, passed = at.tokens_per_request, pass_share(quality)
    if passed is not None:
        basis += f"; {passed:.1%} of {len(quality)} held-out samples passed"
    energy = None
    if cost.usd_per_kwh is not None and at.energy_j_per_request is not None:
        energy = cost.usd_per_kwh * at.energy_j_per_request / _J_PER_KWH
        basis += f"; {at.energy_j_per_request:.3g} J a request at {cost.usd_per_kwh:g} {cost.currency} a kWh come on top"
    elif cost.usd_per_kwh is not None:
        basis += "; electricity is not in it: there is no energy counter"
    return CostSummary(
        usd_per_request=at_slo,
        usd_per_million_output_tokens=at_slo / tokens * 1e6 if at_slo is not None and tokens else None,
        usd_per_correct_request=at_slo / passed if at_slo is not None and passed else None,
        usd_per_request_raw=raw_price,
        basis=basis,
        intervals=_intervals(at_slo, at, quality),
        energy_usd_per_request=energy,
        server_hour_usd=price.hour_usd,
        gpus_per_server=price.gpus,
        currency=cost.currency,
    )


def _intervals(price: float | None, at: StageResult, quality: Sequence[QualityRecord]) -> dict[str, Estimate]:
    """By the name of the price. Tokens a good request is taken as known: it varies far less than the rate. The share that passed is independent of
    the rate (other requests, asked before), so its relative error adds in quadrature."""
    low, high = at.goodput_interval
    rate = at.goodput_per_s if at.goodput_per_s is not None else at.requests_per_s
    if price is None or not low or high is None:
        return {}
    dear, cheap = rate / low, rate / high
    found = {"usd_per_request": _scaled(price, cheap, dear)}
    if at.tokens_per_request:
        found["usd_per_million_output_tokens"] = _scaled(price / at.tokens_per_request * 1e6, cheap, dear)
    passed, least, most = _passed_interval(quality)
    if passed and least and most is not None:
        both = [math.exp(sign * math.hypot(math.log(one), math.log(other))) for sign, one, other in ((-1, cheap, most / passed), (1, dear, passed / least))]
        found["usd_per_correct_request"] = _scaled(price / passed, *both)
    return found


def _scaled(value: float, low: float, high: float) -> Estimate:
    return Estimate(value=value, ci95_low=value * low, ci95_high=value * high)


def _passed_interval(quality: Sequence[QualityRecord]) -> tuple[float | None, float | None, float | None]:
    """Share of samples passed, with Wilson's interval."""
    from perfbench.quality.intervals import wilson

    share = pass_share(quality)
    if share is None:
        return None, None, None
    told = [record.passed for record in quality if record.passed is not None]
    low, high = wilson(float(sum(told)), len(told))
    return share, low, high


def _no_price(reason: str, experiment: Experiment, price: ServerPrice, raw_price: float | None = None) -> CostSummary:
    return CostSummary(
        usd_per_request=None, usd_per_million_output_tokens=None, usd_per_correct_request=None, usd_per_request_raw=raw_price, basis=reason,
        server_hour_usd=price.hour_usd, gpus_per_server=price.gpus, currency=experiment.cost.currency if experiment.cost is not None else "USD",
    )  # fmt: skip
