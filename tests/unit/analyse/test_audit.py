"""Each check of the audit: silent on a clean trial and where its data is missing, and said with its number where there is something to say."""

from __future__ import annotations

from typing import Any

import pytest

from perfbench.analyse.summarise import summarise
from perfbench.records import Audit

CLOSED = {"name": "one", "arrival": "closed", "concurrency": 1, "warmup_s": 2.0, "duration_s": 10.0, "drain_s": 8.0, "output": {"max_tokens": 64}}
POISSON = {**CLOSED, "arrival": "poisson", "concurrency": None, "rate_per_s": 4.0}
TRIAL = "adapter.one.r0"
CLEAN: dict[str, Any] = {"client_cpu_s": 1.0, "loop_lag_max_s": 0.01, "clock_step_max_s": 1e-5}


@pytest.fixture
def audited(run: Any, record: Any) -> Any:
    """Audit of a trial of 40 requests, of which some may be changed by their number, on a machine of 2 CPUs."""

    def audited(change: dict[int, dict[str, Any]] | None = None, *, stage: dict[str, Any] = CLOSED, system: str | None = None, **outcome: Any) -> Audit:
        run.manifest(
            [TRIAL], variants=["adapter"], load={"stages": [stage]}, hardware={"cpu": {"threads": 2}},
            prompt={"system": system, "user": "{{ prompt }}", "api": "chat"},
        )  # fmt: skip
        records = [record(TRIAL, 2.0 + k * 0.2, **{"prompt_id": str(k), **(change or {}).get(k, {})}) for k in range(40)]
        run.trial(TRIAL, records, **{**CLEAN, **outcome})
        run.server("adapter", ["adapter"])
        return summarise(run.folder).variants["adapter"].trials[0].audit

    return audited


def _only(audit: Audit, verdict: str, *parts: str) -> None:
    assert audit.verdict == verdict, audit
    assert len(audit.reasons) == 1, audit.reasons
    for part in parts:
        assert part in audit.reasons[0], audit.reasons[0]


def test_a_clean_trial_is_valid(audited: Any) -> None:
    audit = audited()
    assert (audit.verdict, audit.reasons) == ("valid", [])
    assert {"send lag", "client CPU", "reader lag", "clock step", "answered", "failed", "steady state"} <= {check.name for check in audit.checks}
    assert {check.verdict for check in audit.checks} == {"valid", "not checked"}
    assert all(check.sentence for check in audit.checks)


def test_missing_data_says_nothing(audited: Any) -> None:
    assert audited(client_cpu_s=None, loop_lag_max_s=None, clock_step_max_s=None).verdict == "valid"


@pytest.mark.parametrize(("lag", "verdict"), [(0.0, "valid"), (0.02, "valid"), (0.03, "suspect"), (0.3, "void")])
def test_send_lag_is_held_against_the_time_to_first_token(audited: Any, lag: float, verdict: str) -> None:
    """TTFT is 0.5 s: suspect above 25 ms, void above 250 ms."""
    audit = audited({k: {"scheduled_s": 2.0 + k * 0.2 - lag} for k in range(1, 40)}, stage=POISSON)
    if verdict == "valid":
        assert audit.verdict == "valid"
    else:
        _only(audit, verdict, f"{lag * 1e3:.1f} ms after their scheduled time")


@pytest.mark.parametrize(("held", "verdict"), [(0, "valid"), (1, "void"), (20, "void")])
def test_held_back_arrivals(audited: Any, held: int, verdict: str) -> None:
    """One of 40 is 2.5%."""
    audit = audited(stage=POISSON, held_back=held)
    assert audit.verdict == verdict
    assert not held or f"{held} arrivals were held back" in audit.reasons[0]


@pytest.mark.parametrize(("seconds", "verdict"), [(6.9, "valid"), (7.5, "suspect"), (9.6, "void")])
def test_client_cpu(audited: Any, seconds: float, verdict: str) -> None:
    audit = audited(client_cpu_s=seconds)
    assert audit.verdict == verdict
    assert verdict == "valid" or f"{seconds * 10:.0f}% of a core" in audit.reasons[0]


@pytest.mark.parametrize(("stamp", "lag", "verdict"), [("kernel", 0.2, "valid"), ("kernel", 9.0, "suspect"), ("user", 0.02, "suspect"), ("user", 0.2, "void")])
def test_reader_lag_matters_more_without_kernel_stamps(audited: Any, stamp: str, lag: float, verdict: str) -> None:
    assert audited(stamp=stamp, loop_lag_max_s=lag).verdict == verdict


def test_stamps_by_the_client(audited: Any) -> None:
    _only(audited({0: {"stamp": "user"}}), "suspect", "1 of 40 requests were stamped by the client")


@pytest.mark.parametrize(("step", "verdict"), [(0.0005, "valid"), (0.002, "suspect"), (0.1, "void")])
def test_clock_steps(audited: Any, step: float, verdict: str) -> None:
    assert audited(clock_step_max_s=step).verdict == verdict


@pytest.mark.parametrize(("failures", "verdict"), [(0, "valid"), (1, "suspect"), (4, "suspect"), (5, "void")])
def test_failed_requests(audited: Any, failures: int, verdict: str) -> None:
    """Four of 40 are exactly 10%."""
    audit = audited({k: {"status": "failed", "error": "timeout"} for k in range(failures)})
    assert audit.verdict == verdict
    assert not failures or f"{failures} of 40 requests failed ({failures} timeout)" in audit.reasons[0]


def test_a_drain_that_did_not_finish(audited: Any) -> None:
    audit = audited({39: {"status": "failed", "error": "cancelled"}})
    assert audit.verdict == "suspect"
    assert "1 requests still ran when the drain of 8 s ended; the slowest answers are missing" in audit.reasons


@pytest.mark.parametrize(("missed", "verdict"), [(0, "valid"), (1, "suspect"), (3, "void")])
def test_fixed_length(audited: Any, missed: int, verdict: str) -> None:
    audit = audited({k: {"n": 4} for k in range(missed)}, stage={**CLOSED, "output": {"fixed": 5}})
    assert audit.verdict == verdict
    assert not missed or f"{missed} of 40 answers do not have the fixed length of 5 tokens" in audit.reasons[0]


def test_answers_without_usage(audited: Any) -> None:
    _only(audited({3: {"output_tokens": None}}), "suspect", "1 of 40 answers came without usage")


def test_too_few_requests(run: Any, record: Any) -> None:
    run.manifest([TRIAL], variants=["adapter"])
    run.trial(TRIAL, [record(TRIAL, 2.0 + k * 0.5, prompt_id=str(k)) for k in range(19)])
    _only(summarise(run.folder).variants["adapter"].trials[0].audit, "suspect", "only 19 requests")


def test_prompts_sent_again_out_of_the_cache(audited: Any) -> None:
    """Twenty prompts twice; the second time 16 of 20 tokens were cached."""
    change = {k: {"prompt_id": str(k % 20), "cached_tokens": 16 if k >= 20 else 0} for k in range(40)}
    _only(audited(change), "suspect", "had 80% of their tokens in the prefix cache, at first 0%")


def test_a_shared_prefix_is_cached_every_time(audited: Any) -> None:
    change = {k: {"prompt_id": str(k % 20), "cached_tokens": 16} for k in range(40)}
    assert audited(change).verdict == "valid"


def _counter(sample: Any, name: str, growth: float, source: str = "server", **labels: str) -> list[Any]:
    """1,000 at the window's start; what grows outside it must not count."""
    values = [(0.5, 0.0), (1.9, 1000.0), (6.0, 1000.0 + growth / 2), (11.9, 1000.0 + growth), (15.0, 9999.0 + growth)]
    return [sample(t, source, name, value, **labels) for t, value in values]


@pytest.mark.parametrize(
    ("hits", "system", "verdict"), [(0.0, None, "valid"), (4.0, None, "valid"), (300.0, None, "suspect"), (300.0, "You are terse.", "valid")]
)
def test_prefix_cache_hits(run: Any, sample: Any, audited: Any, hits: float, system: str | None, verdict: str) -> None:
    """800 tokens queried; a shared system prompt may explain all of prompts that are equally long."""
    run.samples(_counter(sample, "prefix_cache_queries", 800.0, server="adapter") + _counter(sample, "prefix_cache_hits", hits, server="adapter"))
    audit = audited(system=system)
    assert audit.verdict == verdict
    assert verdict == "valid" or "38% of prompt tokens came out of the prefix cache" in audit.reasons[0]


def test_another_servers_counters_do_not_count(run: Any, sample: Any, audited: Any) -> None:
    run.samples(_counter(sample, "num_preemptions", 5.0, server="merged"))
    assert audited().verdict == "valid"


def test_preemptions(run: Any, sample: Any, audited: Any) -> None:
    run.samples(_counter(sample, "num_preemptions", 5.0, server="adapter"))
    _only(audited(), "suspect", "preempted 5 requests")


def test_a_counter_that_was_reset_says_nothing(run: Any, sample: Any, audited: Any) -> None:
    run.samples([sample(1.0, "server", "num_preemptions", 50.0, server="adapter"), sample(9.0, "server", "num_preemptions", 2.0, server="adapter")])
    assert audited().verdict == "valid"


@pytest.mark.parametrize(("bits", "device", "verdict"), [(0x04, "0", "valid"), (0x01, "0", "valid"), (0x40, "0", "suspect"), (0x40, "1", "valid")])
def test_throttling_of_the_servers_gpu(run: Any, sample: Any, audited: Any, bits: int, device: str, verdict: str) -> None:
    """The power cap is no throttling; nor is what another GPU does."""
    run.samples(
        [
            sample(1.0, "nvml", "vram_bytes", 1e9, server="adapter", device="0"),
            sample(3.0, "nvml", "clocks_event_reasons", 0.0, device=device, reasons=""),
            sample(4.0, "nvml", "clocks_event_reasons", float(bits), device=device, reasons="hw thermal slowdown"),
        ]
    )
    audit = audited()
    assert audit.verdict == verdict
    assert verdict == "valid" or audit.reasons == ["a GPU was throttled in 50% of readings (hw thermal slowdown)"]


def test_foreign_processes_on_the_gpu(run: Any, sample: Any, audited: Any) -> None:
    run.samples(
        [sample(1.0, "nvml", "vram_bytes", 1e9, server="adapter", device="0")]
        + [sample(t, "nvml", "foreign_gpu_processes", count, device="0") for t, count in ((3.0, 0.0), (4.0, 2.0), (15.0, 7.0))]
    )
    _only(audited(), "suspect", "up to 2 processes of others")


@pytest.mark.parametrize(("cores", "verdict"), [(0.05, "valid"), (0.2, "suspect"), (1.0, "void")])
def test_other_processes_on_the_machine(run: Any, sample: Any, audited: Any, cores: float, verdict: str) -> None:
    run.samples([sample(t, "host", "other_cpu_cores", value) for t, value in ((1.0, 2.0), (3.0, cores), (9.0, cores), (15.0, 2.0))])
    audit = audited()
    assert audit.verdict == verdict
    assert verdict == "valid" or f"other processes used {cores:.1f} of the machine's 2 cores" in audit.reasons[0]


def test_steal(run: Any, sample: Any, audited: Any) -> None:
    run.samples(_counter(sample, "machine_steal_s", 1.0, source="host"))
    _only(audited(), "suspect", "5% of this machine's CPU time")


def test_client_and_server_compete(run: Any, sample: Any, audited: Any) -> None:
    run.samples(_counter(sample, "machine_cpu_s", 19.8, source="host") + _counter(sample, "client_cpu_s", 2.0, source="client"))
    _only(audited(), "suspect", "all 2 cores were busy: client (0.2 cores) and server competed")


@pytest.mark.parametrize(("floor_s", "verdict"), [(0.001, "valid"), (0.05, "suspect"), (0.3, "void")])
def test_the_client_floor_is_held_against_the_time_to_first_token(run: Any, record: Any, floor_s: float, verdict: str) -> None:
    """TTFT is 0.5 s: suspect above 25 ms, void above 250 ms. The slowest of the floor's requests does not count."""
    import msgspec

    from perfbench.records import ClientFloor

    run.manifest([TRIAL], variants=["adapter"])
    floor = ClientFloor(rate_per_s=50, requests=50, ttft_p50_s=floor_s, ttft_p99_s=2.0, send_lag_p99_s=0.001)
    run.folder.write_manifest(msgspec.structs.replace(run.folder.manifest(), client_floor=floor))
    run.trial(TRIAL, [record(TRIAL, 2.0 + k * 0.2, prompt_id=str(k)) for k in range(40)], **CLEAN)
    audit = summarise(run.folder).variants["adapter"].trials[0].audit
    check = next(check for check in audit.checks if check.name == "client floor")
    assert (check.verdict, check.measured) == (verdict, pytest.approx(floor_s / 0.5))
    assert audit.verdict == verdict


@pytest.mark.parametrize(("stopped", "verdict"), [(None, "void"), ("over-saturated: stopped after 9 s", "suspect")])
def test_unanswered_requests_of_an_over_saturated_stage_do_not_void_it(audited: Any, stopped: str | None, verdict: str) -> None:
    """Half of the requests had no answer when the stage was stopped."""
    audit = audited({k: {"status": "failed", "error": "cancelled"} for k in range(20, 40)}, stage=POISSON, stopped_early=stopped)
    assert audit.verdict == verdict
    assert any("still ran when" in reason for reason in audit.reasons)
