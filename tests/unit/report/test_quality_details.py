"""Gates and slices, from hand-made summaries."""

from __future__ import annotations

import msgspec
import pytest
from report_run import write_run

from perfbench.records import Estimate, GateSummary, SliceSummary, Summary
from perfbench.report.quality_details import gates_table, signature_lines, slices_table


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return write_run(tmp_path_factory.mktemp("quality")).summary()


def with_quality(summary: Summary, **fields: object) -> Summary:
    merged = summary.variants["merged"]
    assert merged.quality is not None
    changed = msgspec.structs.replace(merged, quality=msgspec.structs.replace(merged.quality, **fields))
    return msgspec.structs.replace(summary, variants={**summary.variants, "merged": changed})


def test_one_deciding_metric_needs_no_table_of_its_own(summary: Summary) -> None:
    assert gates_table(summary).rows == ()
    assert slices_table(summary).rows == ()
    assert signature_lines(summary) == []


def test_every_gate_has_a_row_with_its_interval(summary: Summary) -> None:
    better = GateSummary(
        metric="chrf", margin=0.05, verdict="pass", reason="fine", difference=Estimate(value=0.02, ci95_low=-0.01, ci95_high=0.05), n=30
    )
    unclear = GateSummary(metric="bleu", margin=0.05, verdict="inconclusive", reason="few", n=30, n_to_decide=210)
    rows = gates_table(with_quality(summary, gates=[better, unclear])).rows
    assert [[cell.text for cell in row] for row in rows] == [
        ["merged", "chrf", "pass", "5.0 %", "+0.020", "30", "—", "fine"],
        ["merged", "bleu", "inconclusive", "5.0 %", "—", "30", "210", "few"],
    ]
    assert rows[0][4].detail


def test_slices_name_column_and_value(summary: Summary) -> None:
    part = SliceSummary(n=12, value=Estimate(value=0.75, ci95_low=0.5, ci95_high=0.9), difference=Estimate(value=-0.25))
    changed = with_quality(summary, slices={"language": {"de": part}}, signatures={"bleu": "nrefs:1|tok:13a"}, metric="accuracy")
    (row,) = slices_table(changed).rows
    assert [cell.text for cell in row] == ["language: de", "merged", "accuracy", "75.0 %", "-0.250", "12"]
    sizes = {str(number): msgspec.structs.replace(part, n=200 if number == 149 else 1) for number in range(150)}
    many = slices_table(with_quality(summary, slices={"id": sizes}))
    assert (len(many.rows), many.rows[0][0].text) == (100, "id: 149")
    assert "50 more are in summary.json" in many.caption
    assert signature_lines(changed) == [("bleu", "nrefs:1|tok:13a")]
