"""From run folders with known goodput to plan.json, plan.md, summary.json and the report: what is used, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from perfbench.cli import app
from perfbench.conclude import conclude
from perfbench.errors import InputError, PerfbenchError
from perfbench.plan.evidence import evidence_of
from perfbench.planning import keep_plan, make_plan, wanted_fine_tunes
from perfbench.records import CapacitySummary, Estimate, Plan, ReferenceCheck

CLOSED = {"name": "closed", "arrival": "closed", "concurrency": 1, "warmup_s": 2.0, "duration_s": 10.0, "drain_s": 8.0, "output": {"max_tokens": 64}}
OPEN = {"name": "open", "arrival": "poisson", "rate_per_s": 1.0, "warmup_s": 2.0, "duration_s": 10.0, "drain_s": 8.0, "output": {"max_tokens": 64}}
SLO = {"ttft_s": {"p50": 1.0}}


@pytest.fixture(autouse=True)
def _short_simulations(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is simulated is tested in test_check."""
    monkeypatch.setattr("perfbench.plan.check.REQUESTS", 500)


def _fill(run: Any, record: Any, counts: dict[str, int], *, late: tuple[str, ...] = (), void: tuple[str, ...] = (), **scenario: Any) -> Path:
    """`counts` are good requests that end in the window of each trial, ten seconds long."""
    variants = list(dict.fromkeys(trial.split(".")[0] for trial in counts))
    given = {"variants": variants, "load": {"stages": [CLOSED, OPEN]}, "slo": SLO, "cost": {"server_hour_usd": 36.0}, **scenario}
    run.manifest(list(counts), **given)
    for trial, count in counts.items():
        ttft, tpot = (1.5, 0.001) if trial in late else (0.5, 0.25)
        records = [record(trial, 2.0 + 8.0 * k / count, prompt_id=str(k), ttft=ttft, tpot=tpot) for k in range(count)]
        run.trial(trial, records, **({"client_cpu_s": 9.9} if trial in void else {}))
    conclude(run.folder)
    return Path(run.folder.path)


def _demand(run: Any, text: str = "peak_per_s: 8") -> Path:
    path = Path(run.folder.path).parent / "demand.yaml"
    path.write_text(text)
    return path


def _plan(run: Any, text: str = "peak_per_s: 8") -> Plan:
    return make_plan(run.folder, _demand(run, text))


def test_the_stage_with_the_most_goodput_within_the_slo(run: Any, record: Any) -> None:
    """2 a second in the closed loop, 4 in the open one: 8 / (4 x 0.8) = 2.5, so 3 servers and a spare."""
    _fill(run, record, {"merged.closed.r0": 20, "merged.open.r0": 40})
    plan = _plan(run).variants["merged"]
    assert plan.capacity_per_s is not None and plan.capacity_per_s.value == pytest.approx(4.0)
    assert plan.replicas is not None and plan.replicas.value == 3 and plan.usd_per_month is not None and plan.usd_per_month.value == 4 * 36 * 730
    assert plan.capacity_from.startswith("goodput of stage open (poisson)") and not any("closed loop sends" in warning for warning in plan.warnings)
    assert "no stage above it misses" in plan.capacity_from


def test_a_closed_stage_says_what_is_wrong_with_it(run: Any, record: Any) -> None:
    _fill(run, record, {"merged.closed.r0": 40, "merged.open.r0": 20})
    plan = _plan(run).variants["merged"]
    assert plan.capacity_per_s is not None and plan.capacity_per_s.value == pytest.approx(4.0)
    assert any("a closed loop sends no faster than it is answered" in warning for warning in plan.warnings)


def test_a_closed_stage_does_not_outweigh_arrivals_that_missed(run: Any, record: Any) -> None:
    """The open stage of 1 a second misses: the closed one with 4 says nothing of arrivals, one with 0.8 would."""
    trials = {"merged.closed.r0": 40, "merged.open.r0": 10, "adapter.closed.r0": 8, "adapter.open.r0": 10}
    _fill(run, record, trials, late=("merged.open.r0", "adapter.open.r0"))
    found = _plan(run).variants
    assert "arrivals of 1 requests/s miss the SLO, the lowest rate that was tried" in found["merged"].reason and found["merged"].replicas is None
    assert found["adapter"].capacity_per_s is not None and found["adapter"].capacity_per_s.value == pytest.approx(0.8)


def test_the_edge_was_seen_or_not(run: Any, record: Any) -> None:
    _fill(run, record, {"merged.closed.r0": 40, "merged.open.r0": 20}, late=("merged.closed.r0",))
    assert "no stage above it misses" not in _plan(run).variants["merged"].capacity_from


def test_a_search_comes_before_every_stage(run: Any, record: Any) -> None:
    """Its rate and interval are the capacity; without a probe of it, lengths are those of the best stage."""
    _fill(run, record, {"merged.closed.r0": 40})
    summary = run.folder.summary()
    capacity = CapacitySummary(find="max_rate", value=2.1, low=1.9, high=2.3, probes=5, server_s=60.0, basis="2 meets, 2.2 misses", stage="rate-0")
    changed = msgspec.structs.replace(summary.variants["merged"], capacity=capacity)
    found = evidence_of(run.folder, msgspec.structs.replace(summary, variants={"merged": changed})).variants["merged"]
    assert found.capacity_per_s == Estimate(value=2.1, ci95_low=1.9, ci95_high=2.3)
    assert found.capacity_from == "the search for the highest rate at the SLO: 2 meets, 2.2 misses" and found.output_tokens == 5.0
    none = msgspec.structs.replace(capacity, value=None, low=None, high=None, basis="the lowest load tried misses")
    changed = msgspec.structs.replace(summary.variants["merged"], capacity=none)
    found = evidence_of(run.folder, msgspec.structs.replace(summary, variants={"merged": changed})).variants["merged"]
    assert found.capacity_per_s is None and found.reason == "the search found no rate that meets the SLO: the lowest load tried misses"


def test_no_stage_within_the_slo_has_its_sentence_and_no_number(run: Any, record: Any) -> None:
    _fill(run, record, {"merged.closed.r0": 40, "adapter.closed.r0": 20}, late=("merged.closed.r0",))
    found = _plan(run, "peak_per_s: 8\nfine_tunes: {}")
    assert found.variants["merged"].reason == "no stage meets the SLO" and found.variants["merged"].replicas is None
    assert found.variants["adapter"].replicas is not None
    assert found.break_even is not None and found.break_even.reason == "`merged` has no capacity: no stage meets the SLO"


def test_void_trials_are_left_out_aloud_and_a_void_run_is_refused(run: Any, record: Any) -> None:
    trials = {"merged.closed.r0": 40, "merged.closed.r1": 20, "adapter.closed.r0": 20}
    _fill(run, record, trials, void=("merged.closed.r1", "adapter.closed.r0"))
    found = _plan(run)
    assert found.variants["adapter"].reason == "all of its trials are void"
    assert "1 of 2 trials are void and left out" in found.variants["merged"].warnings
    assert any("the run is not valid as a whole" in warning for warning in found.warnings)


def test_a_void_run(run: Any, record: Any) -> None:
    _fill(run, record, {"merged.closed.r0": 40}, void=("merged.closed.r0",))
    with pytest.raises(InputError, match="cannot be planned from: all of its trials are void"):
        _plan(run)


def test_nonsense_is_not_planned(run: Any, record: Any) -> None:
    _fill(run, record, {"merged.closed.r0": 40})
    run.folder.append_journal("reference_check", "merged", ReferenceCheck(variant="merged", verdict="fail", reason="nonsense"))
    conclude(run.folder)
    assert "the reference calls its answers nonsense" in _plan(run).variants["merged"].reason


def test_without_an_slo_it_is_the_raw_throughput(run: Any, record: Any) -> None:
    _fill(run, record, {"merged.closed.r0": 40}, slo={})
    assert "the scenario sets no SLO" in _plan(run).variants["merged"].capacity_from


def test_prices_of_the_demand_file_win_and_none_is_said(run: Any, record: Any) -> None:
    _fill(run, record, {"merged.closed.r0": 40}, cost=None)
    assert any("no price is known" in warning for warning in _plan(run).warnings)
    found = _plan(run, "peak_per_s: 8\ncost: {gpu_hour_usd: 9, currency: EUR}")
    assert found.currency == "EUR" and found.variants["merged"].server_hour_usd == 9.0 and found.warnings == []


def test_a_trace_is_read_for_its_rate_and_lengths(run: Any, record: Any) -> None:
    """Two minutes at one a second and a third one; rows without tokens are passed over."""
    _fill(run, record, {"merged.closed.r0": 40})
    rows = [f'{{"offset_s": {second}, "input_tokens": 200, "output_tokens": {0 if second == 7 else 50}}}' for second in range(150)]
    (Path(run.folder.path).parent / "t.jsonl").write_text("\n".join(rows) + "\n")
    found = _plan(run, "trace: {path: ./t.jsonl}")
    assert found.demand.peak_per_s == pytest.approx(1.0) and (found.demand.input_tokens, found.demand.output_tokens) == (200.0, 50.0)
    assert any("200 tokens in and 50 tokens out on average, those that were measured 20 in and 5 out" in warning for warning in found.warnings)
    with pytest.raises(PerfbenchError, match=r"trace\.path: .*bad\.csv"):
        (Path(run.folder.path).parent / "bad.csv").write_text("a,b\n")
        _plan(run, "trace: {path: ./bad.csv}")


def test_a_plan_is_kept_and_reports_show_it_again_and_again(run: Any, record: Any) -> None:
    folder = _fill(run, record, {"merged.closed.r0": 40, "adapter.closed.r0": 20})
    keep_plan(run.folder, _plan(run, "peak_per_s: 8\nfine_tunes: {counts: [1, 4], max_loras: 2}"))
    for _ in range(2):
        assert json.loads((folder / "plan.json").read_text()) == json.loads((folder / "summary.json").read_text())["plan"]
        page = (folder / "report.html").read_text()
        assert '<h2 id="plan">' in page and 'id="table-break-even"' in page and '"break-even":{' in page
        assert "What the demand needs" in (folder / "plan.md").read_text() and "What the demand needs" in (folder / "report.md").read_text()
        conclude(run.folder)


def test_the_command(run: Any, record: Any) -> None:
    folder = _fill(run, record, {"merged.closed.r0": 40, "adapter.closed.r0": 20})
    done = CliRunner().invoke(app, ["plan", str(folder), "--demand", str(_demand(run)), "--fine-tunes", "1,2", "--skew", "0,1.5", "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert [(point["fine_tunes"], point["skew"]) for point in found["break_even"]["points"]] == [(1, 0.0), (2, 0.0), (1, 1.5), (2, 1.5)]
    shown = CliRunner().invoke(app, ["plan", str(folder), "--demand", str(_demand(run))])
    assert shown.exit_code == 0 and "What the demand needs" in shown.stdout and "report.html#plan" in shown.stdout.replace("\n", "")


def test_nothing_to_say_ends_with_cannot_tell(run: Any, record: Any) -> None:
    folder = _fill(run, record, {"merged.closed.r0": 40}, late=("merged.closed.r0",))
    done = CliRunner().invoke(app, ["plan", str(folder), "--demand", str(_demand(run))])
    assert done.exit_code == 3 and "merged: no plan: no stage meets the SLO" in done.stdout


@pytest.mark.parametrize(
    ("flags", "says"), [({"counts": "1,x"}, "--fine-tunes: expected whole numbers above 0"), ({"skew": "-1"}, "--skew: expected numbers from 0")]
)
def test_flags_that_are_no_lists(flags: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        wanted_fine_tunes(None, **{"counts": None, "skew": None, "load_s": None, **flags})  # type: ignore[arg-type]


def test_evidence_names_the_time_to_ready_and_the_price(run: Any, record: Any) -> None:
    run.server("merged", ["merged"], ready_s=25.0)
    _fill(run, record, {"merged.closed.r0": 40}, serve={"args": {"tensor-parallel-size": 4}, "env": {}}, cost={"gpu_hour_usd": 2.0})
    found = evidence_of(run.folder, run.folder.summary()).variants["merged"]
    assert (found.ready_s, found.price.hour_usd, found.price.gpus) == (25.0, 8.0, 4)
