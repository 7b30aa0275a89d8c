"""Searches against servers whose capacity is known: the truth server's queue is one that theory computes exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfbench.analyse.summarise import summarise
from perfbench.load.engine import LoadProcess
from perfbench.load.messages import Progress
from perfbench.records import Audit, Summary
from perfbench.run import continue_run, dry_run_lines, run_scenario
from perfbench.scenario import Scenario
from tests.truth.conftest import TruthServer, make_spec, read_records, request_body

ATTEMPTS = 3
"""Other work on the machine makes the server slower than it is; then it is asked again."""

Servers = Callable[..., TruthServer]


def _scenario(folder: Path, url: str, search: dict[str, Any], slo: dict[str, Any], tokens: int = 1) -> Scenario:
    (folder / "rows.jsonl").write_text("".join(json.dumps({"id": f"p{n}", "prompt": f"say {n}"}) + "\n" for n in range(50)))
    return Scenario.model_validate_json(
        json.dumps(
            {
                "name": "search",
                "endpoints": {"truth": {"url": url, "model": "truth"}},
                "load": {"data": str(folder / "rows.jsonl"), "search": {"output": {"fixed": tokens}, "warmup_s": 0.3, "drain_s": 3.0, **search}},
                "slo": slo,
                "cost": {"server_hour_usd": 3.6},
            }
        )
    )


def _searched(folder: Path, scenario: Scenario) -> Summary:
    return run_scenario(scenario, scenario_file=None, parent=folder / "results", quiet=True).summary()


def rate_of_fixed_servers(servers: int, service_s: float, limit_s: float, percent: float = 95) -> float:
    """The highest Poisson rate at which so many servers with fixed service times answer `percent` of requests within `limit_s`, first come first served.

    Customer n waits for customer n - servers: W(n) = max(0, W(n - servers) + service - (A(n) - A(n - servers))), which is Lindley's recursion in strands.
    """
    gaps = np.random.default_rng(0).exponential(1.0, 400_000)
    low, high = 0.1 * servers / service_s, servers / service_s
    for _ in range(20):
        rate = (low + high) / 2
        arrivals = np.cumsum(gaps)[: len(gaps) // servers * servers].reshape(-1, servers) / rate
        steps = np.concatenate([np.zeros((1, servers)), np.cumsum(service_s - np.diff(arrivals, axis=0), axis=0)])
        waits = steps - np.minimum.accumulate(steps, axis=0)
        low, high = (rate, high) if np.percentile(waits + service_s, percent) <= limit_s else (low, rate)
    return low


def test_the_rate_of_a_queue_with_known_capacity(capacity_server: Servers, tmp_path: Path) -> None:
    """8 slots of 20 ms: 400 requests/s at most. p95 within 40 ms allows for a wait of one service time."""
    server = capacity_server("--slots", "8", "--ttft", "20")
    search = {"find": "max_rate", "streams": 32, "duration_s": 5.0, "precision": 0.1}
    truth = rate_of_fixed_servers(8, 0.020, 0.040)
    for attempt in range(ATTEMPTS):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        variant = _searched(folder, _scenario(folder, server.url, search, {"ttft_s": {"p95": 0.040}})).variants["truth"]
        found = variant.capacity
        assert found is not None
        if found.value == pytest.approx(truth, rel=0.12):
            break
    assert found is not None
    assert found.value == pytest.approx(truth, rel=0.12)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high
    assert found.saturation_per_s == pytest.approx(400, rel=0.08)
    assert found.probes == len(variant.probes)
    assert [trial.stage for trial in variant.probes] == [f"search-rate-{number}" for number in range(found.probes)]
    # Probes that are clear end before their time: all of them, whole, would take 5.3 s and a drain each.
    assert found.server_s < 0.95 * 5.3 * found.probes
    assert variant.trials == []
    at = next(trial for trial in variant.probes if trial.stage == found.stage)
    assert found.goodput_per_s == at.rates.goodput_per_s
    if at.audit.verdict != "void":
        assert found.goodput_per_s is not None
        assert variant.cost.usd_per_request == pytest.approx(3.6 / 3600 / found.goodput_per_s)
        assert f"in stage {found.stage}" in variant.cost.basis


def test_streams_up_to_the_knee_of_a_batch(capacity_server: Servers, tmp_path: Path) -> None:
    """Knee 8: n streams stretch 10 ms a token to 10 n / 8. p95 within 19 ms holds up to 15 streams."""
    server = capacity_server("--knee", "8", "--ttft", "10", "--gap", "10")
    search = {"find": "max_concurrency", "streams": 8, "duration_s": 1.2}
    found = _searched(tmp_path, _scenario(tmp_path, server.url, search, {"tpot_s": {"p95": 0.019}}, tokens=9)).variants["truth"].concurrency
    assert found is not None
    assert found.value is not None
    assert 13 <= found.value <= 15
    assert found.find == "max_concurrency"
    assert "streams: the SLO is met" in found.basis


def test_an_slo_that_no_load_meets_has_no_figure(capacity_server: Servers, tmp_path: Path) -> None:
    server = capacity_server("--slots", "4", "--ttft", "20")
    search = {"find": "max_concurrency", "streams": 2, "duration_s": 1.0}
    summary = _searched(tmp_path, _scenario(tmp_path, server.url, search, {"ttft_s": {"p50": 0.010}}))
    found = summary.variants["truth"].concurrency
    assert found is not None
    assert (found.value, found.low, found.stage) == (None, None, None)
    assert found.basis.startswith("the SLO is missed (ttft_s) even at 1 stream, the lowest load tried: there is no load that meets it")
    assert summary.variants["truth"].cost.usd_per_request is None


def test_an_slo_that_never_binds_says_so(capacity_server: Servers, tmp_path: Path) -> None:
    server = capacity_server("--ttft", "5")
    search = {"find": "max_concurrency", "streams": 4, "max_in_flight": 12, "duration_s": 1.0}
    found = _searched(tmp_path, _scenario(tmp_path, server.url, search, {"ttft_s": {"p50": 0.5}})).variants["truth"].concurrency
    assert found is not None
    assert (found.value, found.low, found.high) == (None, 12, None)
    assert found.basis.startswith("the SLO is met up to 12 streams, the most that this client could offer: the edge lies higher")


def test_a_search_that_was_cut_off_goes_on_where_it_was(capacity_server: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = capacity_server("--slots", "8", "--ttft", "20")
    scenario = _scenario(tmp_path, server.url, {"find": "max_concurrency", "streams": 4, "duration_s": 1.0}, {"ttft_s": {"p90": 0.035}})
    whole, driven = LoadProcess.run, 0

    def interrupted(self: LoadProcess, spec: Any, on_progress: Any = None) -> Any:
        nonlocal driven
        driven += 1
        if driven == 3:
            raise KeyboardInterrupt
        return whole(self, spec, on_progress)

    monkeypatch.setattr(LoadProcess, "run", interrupted)
    with pytest.raises(Exception, match="interrupted"):
        run_scenario(scenario, scenario_file=None, parent=tmp_path / "results", quiet=True, measure_floor=False)
    (folder,) = (tmp_path / "results").iterdir()
    finished = continue_run(folder, quiet=True, measure_floor=False)
    found = finished.summary().variants["truth"].concurrency
    assert found is not None
    assert found.value is not None
    assert 8 <= found.value <= 14
    assert found.probes == driven - 1 == len(finished.probes())
    assert len(finished.finished("trial_finished")) == found.probes


def test_late_requests_are_counted_while_a_trial_runs(load_process: LoadProcess, capacity_server: Servers, tmp_path: Path) -> None:
    """A third of the requests take 60 ms to the first token and 20 ms a token; the limits lie between."""
    bodies = [request_body(ttft_ms=60, gap_ms=20, tokens=4), *[request_body(ttft_ms=10, gap_ms=5, tokens=4)] * 2]
    offsets_s = [0.01 * number for number in range(150)]
    limits_s = {"ttft_s": 0.04, "ttft_scheduled_s": 0.04, "tpot_s": 0.012, "e2e_s": 0.08, "ntpot_s": 0.02}
    spec = make_spec(
        tmp_path / "t", capacity_server("--slots", "0").url, bodies, offsets_s=offsets_s, warmup_s=0.3, duration_s=1.2, limits_s=limits_s, report_every_s=0.1
    )
    reports: list[Progress] = []
    load_process.run(spec, reports.append)
    last = reports[-1]
    assert set(last.judged) == set(limits_s)
    assert len(reports) >= 10
    for metric in limits_s:
        assert 100 <= last.judged[metric] <= 120
        assert last.late[metric] / last.judged[metric] == pytest.approx(1 / 3, abs=0.08)
    assert all(earlier.judged["ttft_s"] <= later.judged["ttft_s"] for earlier, later in pairwise(reports))


def test_a_server_that_answers_nothing_is_late_at_once(load_process: LoadProcess, capacity_server: Servers, tmp_path: Path) -> None:
    spec = make_spec(
        tmp_path / "t", capacity_server("--slots", "0").url, [request_body(fault="hang")], offsets_s=[0.01 * number for number in range(50)], duration_s=0.6,
        drain_s=0.1, limits_s={"ttft_s": 0.1}, report_every_s=0.1,
    )  # fmt: skip
    reports: list[Progress] = []
    load_process.run(spec, reports.append)
    assert reports[-1].late["ttft_s"] == reports[-1].judged["ttft_s"] >= 30


@pytest.mark.parametrize(("drain", "failed"), [(True, 0), (False, 4)])
def test_a_trial_may_be_ended_with_its_drain_or_without(
    load_process: LoadProcess, capacity_server: Servers, tmp_path: Path, *, drain: bool, failed: int
) -> None:
    """Answers of 3 s: the short drain of a plain cancel cuts them off, the trial's own does not."""
    body = request_body(ttft_ms=10, gap_ms=100, tokens=30)
    spec = make_spec(tmp_path / "t", capacity_server("--slots", "0").url, [body], concurrency=4, duration_s=20, drain_s=8.0, report_every_s=0.2)
    ended = False

    def end(report: Progress) -> None:
        nonlocal ended
        if not ended:
            ended = True
            load_process.cancel(drain=drain)

    outcome = load_process.run(spec, end)
    assert outcome.requests_failed == failed
    assert outcome.requests_ok == 4 - failed
    assert outcome.measure_until_ns - outcome.measure_from_ns < 2e9
    assert outcome.client_cpu_s is not None
    assert len(read_records(Path(spec.records_path))) == 4


def test_a_run_that_only_searches_is_judged_by_its_probes(capacity_server: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Valid with an answer, also where the answer is that no load meets the SLO; not where the search was cut off, or its probes are void.

    The audit itself is set aside: a busy machine makes it void.
    """
    verdict: Any = "valid"
    monkeypatch.setattr("perfbench.analyse.summarise.audit", lambda _: Audit(verdict=verdict, reasons=[], checks=[]))
    server = capacity_server("--slots", "4", "--ttft", "20")
    scenario = _scenario(tmp_path, server.url, {"find": "max_concurrency", "streams": 2, "duration_s": 1.0}, {"ttft_s": {"p50": 0.010}})
    assert dry_run_lines(scenario)[-1] == "# searches: at most 16 probes, 0.3 minutes of load; a clear probe ends earlier"
    folder = run_scenario(scenario, scenario_file=None, parent=tmp_path / "results", quiet=True, measure_floor=False)
    assert folder.summary().valid
    verdict = "void"
    assert not summarise(folder).valid
    verdict = "valid"
    probes = folder.probes()
    journal = folder.path / "journal.jsonl"
    kept = [line for line in journal.read_text().splitlines() if f'"{probes[-1].trial}"' not in line]
    journal.write_text("\n".join(kept) + "\n")
    cut_off = summarise(folder)
    assert not cut_off.valid
    assert cut_off.variants["truth"].concurrency is not None
    assert cut_off.variants["truth"].concurrency.basis.startswith("the search has not finished")
