"""Whether a trial may be used: valid, suspect or void, with a sentence for everything that is not valid.

A check looks at requests scheduled in the measured window, at what the load process said, and (in audit_machine) at telemetry. Where its data was not
taken it says nothing: absence is named once, in `not_measured`. A void trial enters no verdict, comparison or price; a suspect one does, and is marked.
Every threshold stands here, with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from perfbench.analyse.audit_machine import machine_doubts
from perfbench.analyse.doubt import Doubt, graded
from perfbench.analyse.telemetry import Telemetry
from perfbench.analyse.window import scheduled_in_window, window_s
from perfbench.records import Audit, TrialOutcome
from perfbench.scenario.model import Stage

FAILED_SHARE = (0.01, 0.10)
"""Latencies describe the survivors: 1% of failures already moves a p99; at 10% even a p90 says nothing of the requests that were asked for."""
SEND_LAG_FLOOR_S = (0.001, 0.010)
SEND_LAG_OF_TTFT = (0.05, 0.50)
"""A late send distorts the arrival process by as much as it is late. Small against the time to first token, and below the floor, it moves no figure."""
HELD_BACK_SHARE = (0.0, 0.01)
"""An open loop that waits for a response is a closed one: a single arrival held back is worth saying, 1% of them voids the arrival process."""
CLIENT_CPU_SHARE = (0.70, 0.95)
"""The load process is one thread. Above 70% of a core its own queue grows (utilisation law); at 95% it, not the server, sets the pace."""
READER_LAG_S = {"kernel": (0.250, None), "user": (0.005, 0.050)}
"""With kernel stamps a late read changes no time, only how soon a closed loop sends again. Without them it is added to every latency."""
CLOCK_STEP_S = (0.001, 0.050)
"""Kernel stamps are of the wall clock; a step of it inside the trial is an error of that size in some stamps."""
FIXED_MISSED_SHARE = (0.0, 0.05)
"""Speed at equal length is only that where lengths are equal."""
MIN_REQUESTS = (20, 1)
"""Below 20 there is no p95; without any there is nothing."""


@dataclass(frozen=True)
class AuditInput:
    """What the checks look at. `requests` holds all requests of the trial, `server` is None for a run without server entries in its journal."""

    trial: str
    stage: Stage
    outcome: TrialOutcome
    requests: pl.DataFrame
    telemetry: Telemetry
    server: str | None
    cores: int | None
    shares_prefix: bool


def audit(given: AuditInput) -> Audit:
    """Run every check on one trial."""
    measured = given.requests.filter(scheduled_in_window(given.outcome))
    doubts = [*_client_doubts(given, measured), *_answer_doubts(given, measured)]
    doubts += machine_doubts(given.telemetry, given.outcome, measured, server=given.server, cores=given.cores, shares_prefix=given.shares_prefix)
    return Audit(verdict=worst(doubts), reasons=[doubt.sentence for doubt in sorted(doubts, key=lambda doubt: doubt.verdict != "void")])


def worst(doubts: Sequence[Doubt]) -> Literal["valid", "suspect", "void"]:
    """The worst verdict of all; valid when there is no doubt."""
    verdicts = {doubt.verdict for doubt in doubts}
    return "void" if "void" in verdicts else "suspect" if "suspect" in verdicts else "valid"


def _client_doubts(given: AuditInput, measured: pl.DataFrame) -> Iterator[Doubt]:
    """Is it the client that was measured?"""
    outcome = given.outcome
    yield from _send_lag(given.stage, measured)
    if given.stage.arrival != "closed" and outcome.held_back:
        share = outcome.held_back / max(1, len(given.requests))
        yield from graded(share, HELD_BACK_SHARE, f"{outcome.held_back} arrivals were held back at max_in_flight = {given.stage.max_in_flight}; "
                          "the load was no longer open-loop")  # fmt: skip
    seconds = window_s(outcome)
    if outcome.client_cpu_s is not None and seconds > 0:
        share = outcome.client_cpu_s / seconds
        yield from graded(share, CLIENT_CPU_SHARE, f"the load process used {share:.0%} of a core; above {CLIENT_CPU_SHARE[0]:.0%} it may be what was measured")
    if outcome.loop_lag_max_s is not None:
        yield from graded(outcome.loop_lag_max_s, READER_LAG_S[outcome.stamp], f"the client read a response up to {outcome.loop_lag_max_s * 1e3:.0f} ms late "
                          f"({outcome.stamp} stamps)")  # fmt: skip
    if outcome.clock_step_max_s is not None:
        yield from graded(outcome.clock_step_max_s, CLOCK_STEP_S, f"the wall clock stepped by {outcome.clock_step_max_s * 1e3:.1f} ms during the trial")
    by_user = int((measured["stamp"] == "user").sum())
    if by_user:
        yield Doubt("suspect", f"{by_user} of {len(measured)} requests were stamped by the client, not the kernel: their times include its own delay")


def _send_lag(stage: Stage, measured: pl.DataFrame) -> Iterator[Doubt]:
    lags, first = measured["send_lag_s"].drop_nulls(), measured["ttft_s"].median()
    if lags.is_empty() or not isinstance(first, float):
        return
    lag = lags.quantile(0.99, "higher")
    assert lag is not None
    suspect, void = (max(floor, share * first) for floor, share in zip(SEND_LAG_FLOOR_S, SEND_LAG_OF_TTFT, strict=True))
    late = "after its scheduled time" if stage.arrival != "closed" else "after its stream was free"
    yield from graded(lag, (suspect, void), f"requests were sent up to {lag * 1e3:.1f} ms {late} (p99); above {suspect * 1e3:.1f} ms that distorts the load")


def _answer_doubts(given: AuditInput, measured: pl.DataFrame) -> Iterator[Doubt]:
    """Are the answers such that their latencies can be used?"""
    answered = measured.filter(pl.col("status") == "ok")
    minimum, least = MIN_REQUESTS
    if len(answered) < least:
        yield Doubt("void", f"no request of the {len(measured)} in the measured window was answered")
    elif len(answered) < minimum:
        yield Doubt("suspect", f"only {len(answered)} requests were answered in the measured window; below {minimum} there is no p95")
    failed = len(measured) - len(answered)
    if failed and len(answered):
        kinds = measured.filter(pl.col("status") != "ok")["error"].fill_null("unknown").value_counts(sort=True)
        told = ", ".join(f"{count} {kind}" for kind, count in kinds.iter_rows())
        yield from graded(failed / len(measured), FAILED_SHARE, f"{failed} of {len(measured)} requests failed ({told}); latencies describe the others")
    cut = int((measured["error"] == "cancelled").sum())
    if cut:
        yield Doubt("suspect", f"{cut} requests still ran when the drain of {given.stage.drain_s:g} s ended; the slowest answers are missing")
    if len(answered) and (missing := answered["output_tokens"].null_count()):
        yield Doubt("suspect", f"{missing} of {len(answered)} answers came without usage, so they have no time per token")
    fixed = given.stage.output.fixed
    if fixed is not None and len(answered):
        missed = int((answered["output_tokens"] != fixed).sum())
        yield from graded(missed / len(answered), FIXED_MISSED_SHARE, f"{missed} of {len(answered)} answers do not have the fixed length of {fixed} tokens")
    yield from _repeated_prompts(answered)


def _repeated_prompts(answered: pl.DataFrame) -> Iterator[Doubt]:
    """A trial that needs more prompts than there are sends them again; then they must not come out of the prefix cache."""
    told = answered.filter(pl.col("cached_tokens").is_not_null() & (pl.col("prompt_tokens") > 0))
    share = pl.col("cached_tokens").sum() / pl.col("prompt_tokens").sum()
    first, again = (told.filter(pl.col("occurrence") == 0), told.filter(pl.col("occurrence") > 0))
    if first.is_empty() or again.is_empty():
        return
    before, after = first.select(share).item(), again.select(share).item()
    if after - before > 0.10:
        yield Doubt("suspect", f"prompts sent again had {after:.0%} of their tokens in the prefix cache, at first {before:.0%}; "
                    "give the load more prompts, or shorter stages")  # fmt: skip
