"""What a request costs.

    usd_per_request = server_hour_usd / 3600 / goodput_per_s

at the stage with the most goodput among those that meet the SLO. Repeats of a stage are taken together: their requests are judged as one
set, their windows add up. Void trials do not count. Answers of a fixed length are made to compare speed, not to be sold, so stages of natural
length decide where there are any. Without an SLO every request is good, and the price is the raw one; the basis says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import polars as pl

from perfbench.analyse.experiment import Experiment
from perfbench.analyse.slo import good, judgeable, slo_result
from perfbench.analyse.trials import AnalysedTrial
from perfbench.analyse.window import ended_in_window, window_s
from perfbench.records import CostSummary, QualityRecord


@dataclass(frozen=True)
class StageResult:
    """One stage of one variant over its usable repeats."""

    stage: str
    requests_per_s: float
    goodput_per_s: float | None
    """None without an SLO, or where usage is missing."""
    tokens_per_request: float | None
    """Mean output tokens of good requests (of all, without an SLO)."""
    met: bool | None
    """The SLO, over all requests scheduled in the windows; None without an SLO or where requests are too few."""


def stage_results(trials: Sequence[AnalysedTrial], experiment: Experiment) -> list[StageResult]:
    """Usable trials of one variant, pooled by stage, in the scenario's order; of natural length only, where such stages exist."""
    natural = {name for name, stage in experiment.stages.items() if stage.output.fixed is None and stage.output.trace != "fixed"}
    order = list(experiment.stages)
    chosen = [trial for trial in trials if trial.usable and (trial.plan.stage in natural or not natural)]
    chosen.sort(key=lambda trial: order.index(trial.plan.stage))
    return [_pooled(stage, list(group), experiment) for stage, group in groupby(chosen, key=lambda trial: trial.plan.stage)]


def _pooled(stage: str, trials: Sequence[AnalysedTrial], experiment: Experiment) -> StageResult:
    seconds = sum(window_s(trial.outcome) for trial in trials)
    ended = pl.concat([trial.requests.filter(ended_in_window(trial.outcome)) for trial in trials])
    slo = experiment.slo
    counted = ended.filter(good(slo)) if slo else ended
    tokens = counted["output_tokens"].mean() if counted["output_tokens"].null_count() == 0 else None
    result = slo_result(pl.concat([trial.measured for trial in trials]), slo)
    return StageResult(
        stage=stage,
        requests_per_s=len(ended) / seconds,
        goodput_per_s=len(counted) / seconds if slo and judgeable(ended, slo) else None,
        tokens_per_request=tokens if isinstance(tokens, float) else None,
        met=result["met"] if result else None,
    )


def cost_summary(trials: Sequence[AnalysedTrial], experiment: Experiment, quality: Sequence[QualityRecord], shared_with: Sequence[str]) -> CostSummary:
    """Prices of one variant; None with the sentence that says why in `basis`."""
    if experiment.cost is None:
        return _no_price("the scenario gives no price (cost.server_hour_usd)")
    results = stage_results(trials, experiment)
    if not results:
        return _no_price("no trial can be used: all are missing or void")
    hour = experiment.cost.server_hour_usd
    raw = max(results, key=lambda result: result.requests_per_s)
    raw_price = _price(hour, raw.requests_per_s)
    if not experiment.slo:
        sentence = f"{hour:g} USD an hour at {raw.requests_per_s:.3g} requests/s, the raw throughput of stage {raw.stage}: the scenario sets no SLO"
        return _summary(raw_price, raw, raw_price, quality, sentence + _shared(shared_with))
    at = best_at_slo(results)
    if at is None:
        return _no_price(_why_none(results), raw_price)
    price = _price(hour, at.goodput_per_s)
    sentence = f"{hour:g} USD an hour at {at.goodput_per_s:.3g} good requests/s in stage {at.stage}, the most goodput among stages that meet the SLO"
    return _summary(price, at, raw_price, quality, sentence + _shared(shared_with))


def best_at_slo(results: Sequence[StageResult]) -> StageResult | None:
    """The stage with the most goodput among those that meet the SLO; None where none does, or nothing good ended in a window."""
    meeting = [result for result in results if result.met and result.goodput_per_s]
    return max(meeting, key=lambda result: result.goodput_per_s or 0.0, default=None)


def _price(server_hour_usd: float, rate_per_s: float | None) -> float | None:
    return server_hour_usd / 3600 / rate_per_s if rate_per_s else None


def _why_none(results: Sequence[StageResult]) -> str:
    if any(result.met for result in results):
        return "no good request ended in the window of a stage that meets the SLO"
    if any(result.met is None for result in results):
        return "no stage is known to meet the SLO: some have too few requests for its percentile, or no usage"
    return "no stage meets the SLO"


def _shared(shared_with: Sequence[str]) -> str:
    return f"; its server also hosts {', '.join(shared_with)}, and is charged here alone" if shared_with else ""


def _summary(price: float | None, at: StageResult, raw_price: float | None, quality: Sequence[QualityRecord], basis: str) -> CostSummary:
    tokens = at.tokens_per_request
    passed = sum(record.passed for record in quality) / len(quality) if quality else 0.0
    if quality:
        basis += f"; {passed:.1%} of {len(quality)} held-out samples passed"
    return CostSummary(
        usd_per_request=price,
        usd_per_million_output_tokens=price / tokens * 1e6 if price is not None and tokens else None,
        usd_per_correct_request=price / passed if price is not None and passed else None,
        usd_per_request_raw=raw_price,
        basis=basis,
    )


def _no_price(reason: str, raw_price: float | None = None) -> CostSummary:
    return CostSummary(usd_per_request=None, usd_per_million_output_tokens=None, usd_per_correct_request=None, usd_per_request_raw=raw_price, basis=reason)
