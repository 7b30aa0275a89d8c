"""One trial with hand-set times: which requests count for latencies and which for rates, and every figure exactly."""

from __future__ import annotations

import math
from typing import Any

import pytest

from perfbench.analyse.summarise import summarise
from perfbench.records import TrialSummary

TRIAL = "adapter.one.r0"
CLOSE = {"abs": 1e-9}


def _summarised(run: Any, records: list[Any], **scenario: Any) -> TrialSummary:
    run.manifest([TRIAL], **{"variants": ["adapter"], **scenario})
    run.trial(TRIAL, records)
    return summarise(run.folder).variants["adapter"].trials[0]


def test_latencies_by_schedule_rates_by_end(run: Any, record: Any) -> None:
    """The window is [2, 12). One request from the warm-up ends in it, two are inside, one begins in it and ends in the drain."""
    trial = _summarised(
        run,
        [
            record(TRIAL, 1.0, prompt_id="a", ttft=1.0, tpot=0.25, n=5),  # ends at 3.0: rate only
            record(TRIAL, 2.0, prompt_id="b", ttft=0.5, tpot=0.25, n=5),  # the first moment of the window; ends at 3.5
            record(TRIAL, 6.0, prompt_id="c", ttft=0.25, tpot=0.5, n=3),  # ends at 7.25
            record(TRIAL, 11.0, prompt_id="d", ttft=0.75, tpot=0.5, n=4),  # ends at 13.25: latency only
            record(TRIAL, 12.0, prompt_id="e", ttft=9.0, tpot=9.0, n=2),  # the first moment after the window: neither
        ],
    )
    assert trial.requests.ok == 3 and trial.requests.failed == 0
    assert trial.metrics["ttft_s"].n == 3
    assert trial.metrics["ttft_s"].mean == pytest.approx((0.5 + 0.25 + 0.75) / 3, **CLOSE)
    assert trial.metrics["tpot_s"].mean == pytest.approx((0.25 + 0.5 + 0.5) / 3, **CLOSE)
    assert trial.metrics["e2e_s"].mean == pytest.approx((1.5 + 1.25 + 2.25) / 3, **CLOSE)
    assert trial.metrics["ntpot_s"].mean == pytest.approx((1.5 / 5 + 1.25 / 3 + 2.25 / 4) / 3, **CLOSE)
    assert trial.metrics["ttft_s"].p50 == pytest.approx(0.5, **CLOSE)
    assert trial.metrics["ttft_s"].p90 is None and trial.metrics["ttft_s"].ci95_low is None
    assert trial.rates.requests_per_s == pytest.approx(0.3, **CLOSE)
    assert trial.rates.output_tokens_per_s == pytest.approx((5 + 5 + 3) / 10, **CLOSE)
    assert trial.rates.goodput_per_s is None and trial.slo is None


def test_inter_chunk_latency_pools_gaps_and_never_crosses_requests(run: Any, record: Any) -> None:
    """Gaps: 4 x 0.25, 2 x 0.5, and none from the answer of one chunk between them."""
    trial = _summarised(
        run, [record(TRIAL, 3.0, tpot=0.25, n=5), record(TRIAL, 5.0, n=1), record(TRIAL, 6.0, tpot=0.5, n=3), record(TRIAL, 1.0, tpot=9.0, n=2)]
    )
    icl = trial.metrics["icl_s"]
    assert (icl.n, icl.mean, icl.p50) == (6, pytest.approx(2.0 / 6, **CLOSE), pytest.approx(0.25, **CLOSE))
    assert trial.metrics["tpot_s"].n == 2


def test_inter_chunk_interval_is_over_requests(run: Any, record: Any) -> None:
    """Sixteen requests with 2 gaps each, in pairs of mean k/8 s: the interval is that of 8 batch means 1/8..8/8, not of 32 gaps."""
    gaps = [mean / 8 * share for mean in (1, 8, 2, 7, 3, 6, 4, 5) for share in (0.5, 1.5)]
    trial = _summarised(run, [record(TRIAL, 3.0 + k / 8, prompt_id=str(k), tpot=gap, n=3) for k, gap in enumerate(gaps)])
    icl = trial.metrics["icl_s"]
    half = 2.3646242 * (6**0.5 / 8) / 8**0.5 / 0.5625
    assert (icl.mean, icl.ci95_low, icl.ci95_high) == pytest.approx((0.5625, 0.5625 * math.exp(-half), 0.5625 * math.exp(half)), abs=1e-6)


def test_nothing_answered_is_none_and_never_zero(run: Any, record: Any) -> None:
    trial = _summarised(run, [record(TRIAL, 3.0, status="failed", error="timeout")], slo={"ttft_s": {"p50": 1.0}})
    assert (trial.requests.ok, trial.requests.failed) == (0, 1)
    ttft = trial.metrics["ttft_s"]
    assert (ttft.mean, ttft.p50, ttft.ci95_low, ttft.n) == (None, None, None, 0)
    assert (trial.rates.requests_per_s, trial.rates.output_tokens_per_s, trial.rates.goodput_per_s) == (0.0, 0.0, 0.0)
    assert trial.audit.verdict == "void"


def test_a_trial_without_any_record(run: Any) -> None:
    trial = _summarised(run, [])
    assert trial.requests.ok == trial.requests.failed == 0
    assert trial.audit.reasons == ["no request was due in the measured window"]


def test_goodput_counts_errors_as_bad_and_one_token_as_no_tpot(run: Any, record: Any) -> None:
    """TTFT within 1 s and TPOT within 0.3 s: of seven requests in the window, `b` is late, `c` slow, `d` failed; `e` of one token is good."""
    records = [
        record(TRIAL, 3.0, prompt_id="a"),
        record(TRIAL, 4.0, prompt_id="b", ttft=1.5),
        record(TRIAL, 5.0, prompt_id="c", tpot=0.5),
        record(TRIAL, 6.0, prompt_id="d", status="failed", error="timeout"),
        record(TRIAL, 7.0, prompt_id="e", n=1),
        record(TRIAL, 8.0, prompt_id="f", ttft=1.0, tpot=0.25),
        record(TRIAL, 1.0, prompt_id="g", ttft=2.0),  # late, ends in the window
    ]
    trial = _summarised(run, records, slo={"ttft_s": {"p50": 1.0}, "tpot_s": {"p50": 0.3}})
    assert trial.rates.goodput_per_s == pytest.approx(0.3, **CLOSE)
    assert trial.rates.requests_per_s == pytest.approx(0.6, **CLOSE)
    assert trial.slo == {
        "met": True,
        "limits": {
            "ttft_s": {"percentile": 50, "limit": 1.0, "measured": pytest.approx(0.5), "met": True},
            "tpot_s": {"percentile": 50, "limit": 0.3, "measured": pytest.approx(0.25), "met": True},
        },
    }


def test_failed_requests_are_infinitely_slow_for_the_slo(run: Any, record: Any) -> None:
    """Of ten requests two failed: p50 is of the answered ones, p90 falls on a failure, so it is missed though no latency was."""
    records = [record(TRIAL, 2.0 + k, prompt_id=str(k), **({"status": "failed", "error": "http"} if k < 2 else {})) for k in range(10)]
    limits = _summarised(run, records, slo={"ttft_s": {"p90": 9.0}, "e2e_s": {"p50": 9.0}}).slo
    assert limits is not None
    assert limits["limits"]["ttft_s"] == {"percentile": 90, "limit": 9.0, "measured": None, "met": False}
    assert limits["limits"]["e2e_s"]["met"] is True and limits["met"] is False


def test_slo_is_not_known_on_too_few_requests(run: Any, record: Any) -> None:
    slo = _summarised(run, [record(TRIAL, 3.0), record(TRIAL, 5.0)], slo={"ttft_s": {"p95": 9.0}}).slo
    assert slo == {"met": None, "limits": {"ttft_s": {"percentile": 95, "limit": 9.0, "measured": None, "met": None}}}


def test_slo_on_time_per_token_needs_usage(run: Any, record: Any) -> None:
    trial = _summarised(run, [record(TRIAL, 3.0, output_tokens=None), record(TRIAL, 5.0, output_tokens=None)], slo={"tpot_s": {"p50": 9.0}})
    assert trial.rates.goodput_per_s is None and trial.rates.output_tokens_per_s is None and trial.rates.requests_per_s == pytest.approx(0.2)
    assert trial.slo is not None and trial.slo["met"] is None


def test_records_of_interrupted_trials_are_left_out(run: Any, record: Any) -> None:
    from perfbench.result_tables import write_records

    write_records(run.folder.interrupted_path(run.folder.spool_path(TRIAL, 0)), [record(TRIAL, 4.0, ttft=7.0)])
    assert _summarised(run, [record(TRIAL, 3.0)]).metrics["ttft_s"].mean == pytest.approx(0.5)


def test_energy_is_of_the_servers_devices_over_the_window(run: Any, record: Any, sample: Any) -> None:
    """Device 0 hosts the server: 100 J at the window's start, 180 J at its end, over 2 requests. Device 1 does not."""
    run.server("adapter", ["adapter"])
    readings = [(1.0, 90.0), (2.0, 100.0), (7.0, 140.0), (12.0, 180.0), (13.0, 500.0)]
    run.samples(
        [sample(2.0, "nvml", "vram_bytes", 5e9, server="adapter", device="0")]
        + [sample(t, "nvml", "energy_j", joules, device="0") for t, joules in readings]
        + [sample(t, "nvml", "energy_j", 10 * joules, device="1") for t, joules in readings]
    )
    energy = _summarised(run, [record(TRIAL, 3.0), record(TRIAL, 5.0)]).metrics["energy_j_per_request"]
    assert (energy.mean, energy.n, energy.p50) == (40.0, 2, None)


def test_without_a_counter_there_is_no_energy(run: Any, record: Any) -> None:
    assert "energy_j_per_request" not in _summarised(run, [record(TRIAL, 3.0)]).metrics
