"""Whether a trial may be used: valid, suspect or void, with a sentence for everything that is not valid.

A check looks at requests scheduled in the measured window, at what the load process said, at the steady state, and (in audit_machine) at telemetry. Each gives
what it measured, its thresholds and a sentence, also where it is valid. Where its data was not taken it says nothing: absence is named once, in
`not_measured`. A void trial enters no verdict, comparison or price; a suspect one does, and is marked. Every threshold stands here, with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from perfbench.analyse.audit_machine import machine_checks
from perfbench.analyse.audit_workers import worker_checks
from perfbench.analyse.checks import graded
from perfbench.analyse.telemetry import Telemetry
from perfbench.analyse.window import scheduled_in_window, window_s
from perfbench.records import Audit, AuditCheck, ClientFloor, SteadyState, TrialOutcome
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
AGAIN_FROM_CACHE = 0.10
"""Prompts sent again may hit the blocks that they share with all; a tenth more of their tokens than at first is the trial's own prompts coming back."""
FLOOR_OF_TTFT = (0.05, 0.50)
"""The client's own time is part of every TTFT: a twentieth is as much as variants are chosen by; at half, it is the client that was measured. Median against
median: the slowest of the fifty requests of a second is one hiccup of the machine. The floor holds the null server's own work: of it the client is a half to a
ninth (benchmarks.load.client_floor), so that at a twentieth it really adds 0.5% to 2.5%."""


@dataclass(frozen=True)
class AuditInput:
    """What the checks look at. `requests` holds all requests of the trial, `server` is None for a run without server entries in its journal."""

    trial: str
    stage: Stage
    driven: TrialOutcome
    """As the load process said."""
    outcome: TrialOutcome
    """The same with its window cut to the steady part."""
    steady: SteadyState
    requests: pl.DataFrame
    telemetry: Telemetry
    server: str | None
    cores: int | None
    shares_prefix: bool
    floor: ClientFloor | None = None


def audit(given: AuditInput) -> Audit:
    """Run every check on one trial."""
    measured = given.requests.filter(scheduled_in_window(given.outcome))
    checks = [*_client_checks(given, measured), *_answer_checks(given, measured), _steady(given.steady), *_level_shift(given.steady)]
    checks += machine_checks(given.telemetry, given.outcome, measured, server=given.server, cores=given.cores, shares_prefix=given.shares_prefix)
    doubts = sorted((check for check in checks if check.verdict in ("suspect", "void")), key=lambda check: check.verdict != "void")
    return Audit(verdict=worst(checks), reasons=[doubt.sentence for doubt in doubts], checks=checks)


def worst(checks: Sequence[AuditCheck]) -> Literal["valid", "suspect", "void"]:
    """The worst verdict of all; valid when there is no doubt."""
    verdicts = {check.verdict for check in checks}
    return "void" if "void" in verdicts else "suspect" if "suspect" in verdicts else "valid"


def _client_checks(given: AuditInput, measured: pl.DataFrame) -> Iterator[AuditCheck]:
    """Is it the client that was measured?"""
    outcome = given.driven
    yield from _send_lag(given.stage, measured)
    yield from _floor(given.floor, measured)
    if given.stage.arrival != "closed":
        share = outcome.held_back / max(1, len(given.requests))
        said = f"{outcome.held_back} arrivals were held back at max_in_flight = {given.stage.max_in_flight}; the load was no longer open-loop"
        yield graded("held back", share, HELD_BACK_SHARE, said if outcome.held_back else "no arrival was held back")
    seconds = window_s(outcome)
    yield from worker_checks(outcome, seconds, cpu=CLIENT_CPU_SHARE, send_lag=_send_lag_limits(measured))
    if not outcome.workers and outcome.client_cpu_s is not None and seconds > 0:
        share = outcome.client_cpu_s / seconds
        said = f"the load process used {share:.0%} of a core; above {CLIENT_CPU_SHARE[0]:.0%} it may be what was measured"
        yield graded("client CPU", share, CLIENT_CPU_SHARE, said, "cores")
    if outcome.loop_lag_max_s is not None:
        said = f"the client read a response up to {outcome.loop_lag_max_s * 1e3:.0f} ms late ({outcome.stamp} stamps)"
        yield graded("reader lag", outcome.loop_lag_max_s, READER_LAG_S[outcome.stamp], said, "s")
    if outcome.clock_step_max_s is not None:
        said = f"the wall clock stepped by {outcome.clock_step_max_s * 1e3:.1f} ms during the trial"
        yield graded("clock step", outcome.clock_step_max_s, CLOCK_STEP_S, said, "s")
    by_user = int(((measured["stamp"] == "user") & (measured["status"] == "ok")).sum())
    said = f"{by_user} of {len(measured)} requests were stamped by the client, not the kernel: their times include its own delay"
    yield graded("user stamps", by_user, (0, None), said if by_user else "every request was stamped by the kernel", "requests")


def _send_lag(stage: Stage, measured: pl.DataFrame) -> Iterator[AuditCheck]:
    lags, limits = measured["send_lag_s"].drop_nulls(), _send_lag_limits(measured)
    if lags.is_empty() or limits is None:
        return
    lag, (suspect, void) = lags.quantile(0.99, "higher"), limits
    assert lag is not None
    late = "after their scheduled time" if stage.arrival != "closed" else "after their stream was free"
    said = f"requests were sent up to {lag * 1e3:.1f} ms {late} (p99); above {suspect * 1e3:.1f} ms that distorts the load"
    yield graded("send lag", lag, (suspect, void), said, "s")


def _send_lag_limits(measured: pl.DataFrame) -> tuple[float, float] | None:
    """(suspect, void) in seconds; None where no request has a TTFT to hold them against."""
    first = measured["ttft_s"].median()
    if not isinstance(first, float):
        return None
    suspect, void = (max(floor, share * first) for floor, share in zip(SEND_LAG_FLOOR_S, SEND_LAG_OF_TTFT, strict=True))
    return suspect, void


def _floor(floor: ClientFloor | None, measured: pl.DataFrame) -> Iterator[AuditCheck]:
    first = measured["ttft_s"].median()
    if floor is None or not isinstance(first, float) or first <= 0:
        return
    share = floor.ttft_p50_s / first
    how = f"{floor.ttft_p50_s * 1e3:.2f} ms (p99 {floor.ttft_p99_s * 1e3:.2f} ms) against a server that answers at once, at {floor.rate_per_s:.3g} requests/s"
    yield graded("client floor", share, FLOOR_OF_TTFT, f"the client itself takes {how}: {share:.1%} of the TTFT's median")


def _answer_checks(given: AuditInput, measured: pl.DataFrame) -> Iterator[AuditCheck]:
    """Are the answers such that their latencies can be used?"""
    answered = measured.filter(pl.col("status") == "ok")
    yield _answered(len(answered), len(measured))
    failed = len(measured) - len(answered)
    cut = int((measured["error"] == "cancelled").sum())
    if len(answered):
        # Over-saturation leaves requests unanswered: that is what the trial shows (no SLO is met), not a flaw of it.
        expected = cut if given.steady.verdict == "over-saturated" else 0
        kinds = measured.filter(pl.col("status") != "ok")["error"].fill_null("unknown").value_counts(sort=True)
        told = ", ".join(f"{count} {kind}" for kind, count in kinds.iter_rows())
        said = f"{failed} of {len(measured)} requests failed ({told}); latencies describe the others" if failed else "no request failed"
        yield graded("failed", (failed - expected) / len(measured), FAILED_SHARE, said)
    ended = "the trial was stopped" if given.driven.stopped_early is not None else f"the drain of {given.stage.drain_s:g} s ended"
    said = f"{cut} requests still ran when {ended}; the slowest answers are missing" if cut else "every request was followed to its end"
    yield graded("cut off", cut, (0, None), said, "requests")
    if not len(answered):
        return
    missing = answered["output_tokens"].null_count()
    said = f"{missing} of {len(answered)} answers came without usage, so they have no time per token" if missing else "every answer came with usage"
    yield graded("usage", missing, (0, None), said, "requests")
    fixed = given.stage.output.fixed
    if fixed is not None:
        missed = int((answered["output_tokens"] != fixed).sum())
        said = f"{missed} of {len(answered)} answers do not have the fixed length of {fixed} tokens"
        yield graded("output length", missed / len(answered), FIXED_MISSED_SHARE, said)
    yield from _repeated_prompts(answered)


def _answered(answered: int, measured: int) -> AuditCheck:
    """The only check whose threshold lies below: too few is the doubt."""
    enough, least = MIN_REQUESTS
    if answered < least:
        said = f"none of the {measured} requests in the measured window was answered" if measured else "no request was due in the measured window"
        return AuditCheck(name="answered", verdict="void", measured=answered, unit="requests", sentence=said)
    few = answered < enough
    sentence = f"only {answered} requests were answered in the measured window; below {enough} there is no p95" if few else f"{answered} requests were answered"
    return AuditCheck(name="answered", verdict="suspect" if few else "valid", measured=answered, unit="requests", sentence=sentence)


def _repeated_prompts(answered: pl.DataFrame) -> Iterator[AuditCheck]:
    """A trial that needs more prompts than there are sends them again; then they must not come out of the prefix cache."""
    told = answered.filter(pl.col("cached_tokens").is_not_null() & (pl.col("prompt_tokens") > 0))
    share = pl.col("cached_tokens").sum() / pl.col("prompt_tokens").sum()
    first, again = (told.filter(pl.col("occurrence") == 0), told.filter(pl.col("occurrence") > 0))
    if first.is_empty() or again.is_empty():
        return
    before, after = first.select(share).item(), again.select(share).item()
    said = f"prompts sent again had {after:.0%} of their tokens in the prefix cache, at first {before:.0%}"
    much = after - before > AGAIN_FROM_CACHE
    yield graded("repeated prompts", after - before, (AGAIN_FROM_CACHE, None), said + ("; give the load more prompts, or shorter stages" if much else ""))


def _steady(steady: SteadyState) -> AuditCheck:
    """Without a steady state the figures describe this window and no other; they are used, and marked. What could not be told is no doubt: most short
    windows are too short, and a mark on every trial would mean nothing."""
    verdict: Literal["valid", "suspect", "not checked"] = "not checked"
    if steady.verdict in ("steady", "no steady state", "over-saturated"):
        verdict = "valid" if steady.verdict == "steady" else "suspect"
    return AuditCheck(name="steady state", verdict=verdict, sentence=steady.sentence, measured=steady.cut_s, unit="s")


def _level_shift(steady: SteadyState) -> Iterator[AuditCheck]:
    if steady.level_shift is not None:
        kept = " (the figures are of the part before it)" if steady.cut_s else ""
        yield AuditCheck(name="level shift", verdict="suspect", sentence=steady.level_shift + kept)
