"""The part of the audit that looks at each load process of a trial that several drove: the worst of them must not hide behind the others."""

from __future__ import annotations

from collections.abc import Iterator

from perfbench.analyse.checks import graded
from perfbench.records import AuditCheck, TrialOutcome, WorkerOutcome

CLOCK_DOUBT_S = (0.005, None)
"""Latencies are taken on one machine and know no other clock. Only the order of requests of different machines, and the edges of the window, are off by it."""


def worker_checks(
    outcome: TrialOutcome, seconds: float, *, cpu: tuple[float, float | None], send_lag: tuple[float, float | None] | None
) -> Iterator[AuditCheck]:
    """CPU, send lag and clock of every worker; nothing for a trial that one process drove. `send_lag` holds the limits in seconds, None without any TTFT."""
    for worker in outcome.workers:
        who = f"load worker {worker.worker} on {worker.host}"
        if worker.client_cpu_s is not None and seconds > 0:
            share = worker.client_cpu_s / seconds
            said = f"{who} used {share:.0%} of a core; above {cpu[0]:.0%} it may be what was measured"
            yield graded(f"client CPU, worker {worker.worker}", share, cpu, said, "cores")
        if worker.send_lag_p99_s is not None and send_lag is not None:
            said = f"{who} sent up to {worker.send_lag_p99_s * 1e3:.1f} ms late (p99); above {send_lag[0] * 1e3:.1f} ms that distorts the load"
            yield graded(f"send lag, worker {worker.worker}", worker.send_lag_p99_s, send_lag, said, "s")
        doubt_s = clock_doubt_s(worker)
        if doubt_s is not None:
            said = f"the clock of {who} is known to {doubt_s * 1e3:.2f} ms (half of the quickest round trip, and its drift in the trial)"
            yield graded(f"clock, worker {worker.worker}", doubt_s, CLOCK_DOUBT_S, said, "s")


def clock_doubt_s(worker: WorkerOutcome) -> float | None:
    """How far the worker's times may be off the master's; None where both read one clock."""
    if worker.clock_rtt_ns is None:
        return None
    return (worker.clock_rtt_ns / 2 + abs(worker.clock_drift_ns or 0)) / 1e9
