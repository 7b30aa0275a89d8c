"""The metric table: complete, written to docs, and each formula right on one hand-made request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from perfbench.analyse.metrics import BY_NAME, METRICS, metrics_markdown
from perfbench.analyse.window import read_requests, trial_outcomes
from perfbench.records import LatencyMetric

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_docs_are_made_from_the_table() -> None:
    assert DOCS.read_text(encoding="utf-8") == metrics_markdown(), "run: perfbench metrics > docs/metrics.md"


def test_every_metric_has_one_complete_row() -> None:
    assert len(BY_NAME) == len(METRICS)
    assert set(get_args(LatencyMetric)) <= set(BY_NAME)
    for metric in METRICS:
        assert all(metric.describe().values()), metric.name
        assert (metric.per_request is None) == (metric.computed_in is not None), metric.name
        if metric.computed_in is not None:
            assert (DOCS.parents[1] / "perfbench" / metric.computed_in).is_file(), metric.name


def _row(run: Any, record: Any) -> dict[str, Any]:
    run.trial("adapter.one.r0", [record])
    return read_requests(run.folder, trial_outcomes(run.folder))["adapter.one.r0"].row(0, named=True)


def test_formulas(run: Any, record: Callable[..., Any]) -> None:
    """Scheduled 3.0, sent 3.25, tokens at 3.75, 4.0, 4.25, 4.5, 4.75."""
    row = _row(run, record("adapter.one.r0", 3.25, scheduled_s=3.0))
    expected = {
        "ttft_s": 0.5, "ttft_scheduled_s": 0.75, "tpot_s": 0.25, "ntpot_s": 0.3, "e2e_s": 1.5, "e2e_scheduled_s": 1.75, "send_lag_s": 0.25,
        "prompt_tokens": 20.0, "output_tokens": 5.0,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_one_token_has_no_time_per_output_token(run: Any, record: Callable[..., Any]) -> None:
    row = _row(run, record("adapter.one.r0", 3.0, n=1))
    assert row["tpot_s"] is None
    assert row["ttft_s"] == row["e2e_s"] == row["ntpot_s"] == 0.5


def test_tokens_come_from_usage_not_from_chunks(run: Any, record: Callable[..., Any]) -> None:
    row = _row(run, record("adapter.one.r0", 3.0, n=3, output_tokens=9))
    assert row["tpot_s"] == pytest.approx(0.5 / 8, abs=1e-12)


def test_without_usage_there_is_no_time_per_token(run: Any, record: Callable[..., Any]) -> None:
    row = _row(run, record("adapter.one.r0", 3.0, output_tokens=None))
    assert (row["tpot_s"], row["ntpot_s"], row["output_tokens"]) == (None, None, None)
    assert row["e2e_s"] == 1.5


def test_of_a_failed_request_only_the_send_is_measured(run: Any, record: Callable[..., Any]) -> None:
    """It broke after its second token: what it had sent by then is no latency."""
    broken = record("adapter.one.r0", 3.0, scheduled_s=2.5, n=2, error="disconnected")
    broken = type(broken)(**{**{name: getattr(broken, name) for name in broken.__struct_fields__}, "status": "failed"})
    row = _row(run, broken)
    assert row["send_lag_s"] == 0.5
    assert {row[name] for name in ("ttft_s", "ttft_scheduled_s", "tpot_s", "ntpot_s", "e2e_s", "e2e_scheduled_s", "output_tokens")} == {None}


def test_a_request_that_was_never_sent_has_no_lag(run: Any, record: Callable[..., Any]) -> None:
    row = _row(run, record("adapter.one.r0", 3.0, status="failed", error="connect", sent_ns=None))
    assert row["send_lag_s"] is None


def test_every_figure_of_a_summary_is_defined() -> None:
    """What stands in summary.json as a number with a name of its own has its formula, source and rule for "not measured"."""
    from perfbench.analyse.metrics import BY_NAME
    from perfbench.records import CostSummary, MemorySummary, Rates
    from perfbench.report.evidence import LEDGER_LABELS

    told = {"basis", "intervals", "currency", "ledger", "shared_with"}
    fields = {*Rates.__struct_fields__, *CostSummary.__struct_fields__, *MemorySummary.__struct_fields__, *LEDGER_LABELS} - told
    names = {name.removesuffix("_peak").removesuffix("_steady") for name in fields}
    assert names <= set(BY_NAME), names - set(BY_NAME)
    assert all(metric.formula and metric.meaning and metric.source and metric.none_when for metric in BY_NAME.values())
