"""The part of the audit that asks telemetry: did something else on the machine, or a state of the server, shape the figures?"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from perfbench.analyse.checks import graded
from perfbench.analyse.telemetry import Telemetry
from perfbench.analyse.window import window_s
from perfbench.records import AuditCheck, TrialOutcome

UNASKED_CACHE_SHARE = 0.01
"""Where no prefix is shared by intent, blocks of a few equal first tokens may still meet; 1% of all prompt tokens is more than that."""
OTHER_CPU_SHARE = (0.05, 0.25)
"""Share of the machine's cores that other processes used: 5% can move a CPU-bound latency by as much, a quarter decides it."""
STEAL_SHARE = (0.02, 0.20)
"""Share of the machine's time that the hypervisor gave to others."""
BUSY_SHARE = 0.97
"""With no idle time left, client and server wait for each other's cores."""
THROTTLE_BITS = 0x08 | 0x20 | 0x40 | 0x80
"""NVML clocks event reasons: hardware slow-down, software and hardware thermal slow-down, power brake. Not the software power cap (0x04): a card at full
load runs against it by design."""


def machine_checks(
    telemetry: Telemetry, outcome: TrialOutcome, measured: pl.DataFrame, *, server: str | None, cores: int | None, shares_prefix: bool
) -> Iterator[AuditCheck]:
    """All checks of one trial that need telemetry. `measured` holds the requests scheduled in the window."""
    if server is not None:
        yield from _prefix_cache(telemetry, outcome, measured, server, shares_prefix=shares_prefix)
        preemptions = telemetry.growth("num_preemptions", outcome, server=server)
        if preemptions is not None:
            said = f"the server preempted {preemptions:.0f} requests: its KV cache was full, and they were computed twice"
            yield graded("preemptions", preemptions, (0, None), said if preemptions else "the server preempted no request", "requests")
        yield from _gpus(telemetry, outcome, telemetry.devices_of(server))
    seconds = window_s(outcome)
    if cores and seconds > 0:
        yield from _cpus(telemetry, outcome, cores, seconds)


def _prefix_cache(telemetry: Telemetry, outcome: TrialOutcome, measured: pl.DataFrame, server: str, *, shares_prefix: bool) -> Iterator[AuditCheck]:
    """Hits are tokens. With a shared system prompt they are asked for, up to what it can explain: it is shorter than the shortest prompt."""
    hits = telemetry.growth("prefix_cache_hits", outcome, server=server)
    queries = telemetry.growth("prefix_cache_queries", outcome, server=server)
    if hits is None or not queries:
        return
    allowed, reason = UNASKED_CACHE_SHARE, "no prefix is shared by intent"
    if shares_prefix:
        shortest, mean = measured["prompt_tokens"].min(), measured["prompt_tokens"].mean()
        if not isinstance(shortest, int) or not isinstance(mean, float):
            return
        allowed, reason = min(1.0, shortest / mean), f"a shared system prompt explains {min(1.0, shortest / mean):.0%} at most"
    yield graded("prefix cache", hits / queries, (allowed, None), f"{hits / queries:.0%} of prompt tokens came out of the prefix cache; {reason}")


def _gpus(telemetry: Telemetry, outcome: TrialOutcome, devices: list[str]) -> Iterator[AuditCheck]:
    mine = pl.col("device").is_in(devices)
    reasons = telemetry.gauge("clocks_event_reasons", windows=[outcome]).filter(mine)
    throttled = reasons.filter((pl.col("value").cast(pl.Int64) & THROTTLE_BITS) != 0)
    if not reasons.is_empty():
        names = "; ".join(sorted(throttled["reasons"].drop_nulls().unique().to_list())) or ("slow-down" if len(throttled) else "none")
        share = len(throttled) / len(reasons)
        yield graded("GPU throttling", share, (0, None), f"a GPU was throttled in {share:.0%} of readings ({names})")
    foreign = telemetry.gauge("foreign_gpu_processes", windows=[outcome]).filter(mine)["value"].max()
    if isinstance(foreign, float):
        said = f"up to {foreign:.0f} processes of others were on the server's GPU" if foreign else "no process of others was on the server's GPU"
        yield graded("others on the GPU", foreign, (0, None), said, "processes")


def _cpus(telemetry: Telemetry, outcome: TrialOutcome, cores: int, seconds: float) -> Iterator[AuditCheck]:
    other = telemetry.gauge("other_cpu_cores", windows=[outcome])["value"].mean()
    if isinstance(other, float):
        yield graded("other processes", other / cores, OTHER_CPU_SHARE, f"other processes used {other:.1f} of the machine's {cores} cores")
    stolen = telemetry.growth("machine_steal_s", outcome)
    if stolen is not None:
        share = stolen / (cores * seconds)
        yield graded("stolen CPU", share, STEAL_SHARE, f"the hypervisor gave {share:.0%} of this machine's CPU time to others")
    busy, client = telemetry.growth("machine_cpu_s", outcome), telemetry.growth("client_cpu_s", outcome)
    if busy is not None and client:
        share = busy / (cores * seconds)
        used = f"{client / seconds:.1f} cores" if client >= 0.05 * seconds else "less than 0.1 of a core"
        said = f"all {cores} cores were busy: client ({used}) and server competed for them"
        yield graded("all cores busy", share, (BUSY_SHARE, None), said if share > BUSY_SHARE else f"{share:.0%} of {cores} cores were busy")
