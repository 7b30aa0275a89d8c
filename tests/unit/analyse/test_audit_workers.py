"""Of several load processes, each is looked at: one that is overloaded, late or on an uncertain clock is named."""

from __future__ import annotations

from typing import Any

import pytest

from perfbench.analyse.audit_workers import clock_doubt_s, worker_checks
from perfbench.records import TrialOutcome, WorkerOutcome

GOOD: dict[str, Any] = {
    "host": "h", "requests": 50, "client_cpu_s": 1.0, "send_lag_p99_s": 0.0005, "loop_lag_max_s": 0.001, "clock_offset_ns": 0, "clock_rtt_ns": None,
    "clock_drift_ns": None, "shared_folder": True,
}  # fmt: skip


def checks(**second: Any) -> dict[str, tuple[str, str]]:
    workers = [WorkerOutcome(worker=0, **GOOD), WorkerOutcome(worker=1, **(GOOD | second))]
    outcome = TrialOutcome(
        trial="t", started_ns=0, measure_from_ns=0, measure_until_ns=10_000_000_000, ended_ns=10_000_000_000, requests_ok=9, requests_failed=0,
        workers=workers,
    )  # fmt: skip
    return {check.name: (check.verdict, check.sentence) for check in worker_checks(outcome, 10.0, cpu=(0.7, 0.95), send_lag=(0.001, 0.010))}


def test_workers_with_nothing_wrong_are_valid() -> None:
    assert {verdict for verdict, _ in checks().values()} == {"valid"}


@pytest.mark.parametrize(
    ("second", "name", "verdict", "said"),
    [
        ({"client_cpu_s": 8.0}, "client CPU, worker 1", "suspect", "load worker 1 on h used 80% of a core"),
        ({"client_cpu_s": 9.9}, "client CPU, worker 1", "void", "load worker 1 on h used 99% of a core"),
        ({"send_lag_p99_s": 0.004}, "send lag, worker 1", "suspect", "load worker 1 on h sent up to 4.0 ms late (p99); above 1.0 ms"),
        ({"clock_rtt_ns": 4_000_000, "clock_drift_ns": -4_000_000}, "clock, worker 1", "suspect", "is known to 6.00 ms"),
        ({"clock_rtt_ns": 400_000, "clock_drift_ns": 0}, "clock, worker 1", "valid", "is known to 0.20 ms"),
    ],
)
def test_the_one_that_is_in_doubt_is_named(second: dict[str, Any], name: str, verdict: str, said: str) -> None:
    found = checks(**second)
    assert found[name][0] == verdict
    assert said in found[name][1]
    assert {other for key, (other, _) in found.items() if key != name} == {"valid"}


def test_one_clock_has_no_doubt() -> None:
    assert clock_doubt_s(WorkerOutcome(worker=0, **GOOD)) is None
