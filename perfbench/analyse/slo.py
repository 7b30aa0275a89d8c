"""Good requests, and stages that meet the SLO.

A request is good when it was answered and every latency that the SLO names is within its limit, whatever the percentile. Errors, time-outs and requests
cut off at the end of the drain are bad. An answer of one token has no time per output token, so it cannot miss it.
A stage meets a limit on p95 when at least 95% of its requests are within it: the failed count as infinitely slow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from perfbench.analyse.stats import percentile
from perfbench.scenario.model import SloLimit

_NEEDS_USAGE = frozenset({"tpot_s", "ntpot_s"})


def judgeable(requests: pl.DataFrame, slo: Mapping[str, SloLimit]) -> bool:
    """Whether the server told enough to judge requests by this SLO: token counts, where it limits a time per token."""
    answered = requests.filter(pl.col("status") == "ok")
    return not (_NEEDS_USAGE & set(slo)) or answered.is_empty() or answered["output_tokens"].null_count() == 0


def good(slo: Mapping[str, SloLimit], slower: float = 1.0) -> pl.Expr:
    """True for a request that meets every limit; or that would, were all its times `slower`."""
    within = [_within(metric, limit.limit_s / slower) for metric, limit in slo.items()]
    return pl.all_horizontal(pl.col("status") == "ok", *within)


def _within(metric: str, limit_s: float) -> pl.Expr:
    fits = (pl.col(metric) <= limit_s).fill_null(False)
    if metric == "tpot_s":
        return fits | (pl.col("output_tokens") <= 1).fill_null(False)
    return fits


def slo_result(requests: pl.DataFrame, slo: Mapping[str, SloLimit]) -> dict[str, Any] | None:
    """{met, limits: {METRIC: {percentile, limit, measured, met}}} over requests scheduled in a window; None without an SLO.

    `measured` is None where requests are too few for the percentile, or where the percentile falls on a request that failed; then `met` is None or False.
    """
    if not slo:
        return None
    limits = {metric: _limit_result(requests, metric, limit) for metric, limit in slo.items()}
    answers = [result["met"] for result in limits.values()]
    met = False if False in answers else None if None in answers else True
    return {"met": met, "limits": limits}


def _limit_result(requests: pl.DataFrame, metric: str, limit: SloLimit) -> dict[str, Any]:
    judged = requests
    if metric == "tpot_s":
        judged = requests.filter((pl.col("status") != "ok") | (pl.col("output_tokens") > 1).fill_null(True))
    told = judgeable(requests, {metric: limit})
    measured = percentile(judged[metric].fill_null(float("inf")).to_numpy(), limit.percentile) if told else None
    # Answers of one token alone: there is nothing that could be late.
    met = (True if told and len(requests) and judged.is_empty() else None) if measured is None else measured <= limit.limit_s
    finite = measured if measured != float("inf") else None
    return {"percentile": limit.percentile, "limit": limit.limit_s, "measured": finite, "met": met}
