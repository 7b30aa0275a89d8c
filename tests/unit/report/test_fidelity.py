"""The fidelity table, the adapter tax that fits a terminal, and how they stand in the reports."""

from __future__ import annotations

from typing import Any

import msgspec

from perfbench.records import Comparison, Estimate, FidelitySummary, Manifest, RequestCounts, Summary
from perfbench.report.differences import adapter_steps, comparison_table, tax_table
from perfbench.report.fidelity import fidelity_table
from perfbench.report.markdown import render_markdown

EQUAL = FidelitySummary(
    left="adapter", right="merged", dtype="bfloat16", verdict="equal", reason="exact_match differs by +0.000", metric="exact_match", margin=0.05, samples=100,
    difference=-0.01, ci90_low=-0.03, ci90_high=0.02, flip_rate=Estimate(value=0.02, ci95_low=0.005, ci95_high=0.07), answers=64,
    differing=Estimate(value=0.1, ci95_low=0.05, ci95_high=0.2), asked_again_differing=Estimate(value=0.0), first_differences=[3, 7, 12], near_ties=2,
    drift_tokens=1200, drift_mean=0.0, drift_mean_abs=0.0004, drift_max_abs=0.028,
)  # fmt: skip
BARE = FidelitySummary(left="adapter", right="merged-float16", dtype=None, verdict="cannot tell", reason="the task was not measured", not_measured="task: none")


def _comparison(left: str, right: str, metric: str, stage: str = "closed-1", **given: Any) -> Comparison:
    values: dict[str, Any] = {"difference": 0.1, "ci95_low": 0.05, "ci95_high": 0.15, "relative": 0.5, "n": 40, "verdict": "worse"}
    return Comparison(left=left, right=right, metric=metric, stage=stage, **{**values, **given})


def test_rows_hold_verdict_intervals_and_tokens(summary: Summary) -> None:
    table = fidelity_table(msgspec.structs.replace(summary, fidelity=[EQUAL, BARE]))
    equal, bare = ([cell.text for cell in row] for row in table.rows)
    assert equal[:10] == ["merged", "bfloat16", "equal", "-1.0 %", "±5.0 %", "2.0 %", "10.0 %", "0.000400", "7", "2 of 3"]
    assert "asked again, adapter itself differs in 0.0 % of its answers" in equal[10]
    assert table.rows[0][3].detail == "-3.0 % … +2.0 %" or table.rows[0][3].detail == "-3.0 … +2.0 %"
    assert table.rows[0][8].detail == "3 … 12"
    assert bare[1:10] == ["—", "cannot tell", "—", "—", "—", "—", "—", "—", "—"]


def test_it_stands_in_the_markdown_report(summary: Summary, manifest: Manifest) -> None:
    text = render_markdown(msgspec.structs.replace(summary, fidelity=[EQUAL]), manifest)
    assert "Merge fidelity: merged against adapter" in text
    assert "Merge fidelity" not in render_markdown(summary, manifest)


def test_the_tax_in_steps_with_memory_and_variations(summary: Summary) -> None:
    comparisons = [
        _comparison("base", "base+lora", "tpot_s"), _comparison("base", "adapter", "tpot_s"), _comparison("base+lora", "adapter", "tpot_s"),
        _comparison("adapter", "merged", "tpot_s", verdict="better"), _comparison("base", "base+lora", "host_rss_bytes", "", difference=2.0**30, ci95_low=None),
        _comparison("adapter", "rank-64", "tpot_s"), _comparison("adapter", "merged", "tpot_s", "closed-4"),
    ]  # fmt: skip
    changed = msgspec.structs.replace(summary, comparisons=comparisons, variations={"rank-64": "adapter"})
    rows = [[cell.text for cell in row] for row in tax_table(changed, "closed-1").rows]
    assert [(row[0], row[1]) for row in rows] == [
        ("base → base+lora", "TPOT"), ("base → base+lora", "host memory"), ("base+lora → adapter", "TPOT"), ("adapter → merged", "TPOT"),
        ("adapter → rank-64", "TPOT"),
    ]  # fmt: skip
    assert rows[0][2:6] == ["+100 ms", "+50.0 … +150 ms", "+50.0 %", "worse"] and rows[0][7] == "what enabling LoRA costs"
    assert rows[1][2:4] == ["+1.00 GiB", "—"]
    assert [step for step, _, _ in adapter_steps(changed, "tpot_s", "closed-1")][-1] == "adapter → rank-64"


def test_a_verdict_withheld_from_an_interval_without_0_is_explained(summary: Summary) -> None:
    withheld = _comparison("adapter", "merged", "tpot_s", verdict="cannot tell")
    assert withheld.ci95_low is not None and withheld.ci95_low > 0
    shown = msgspec.structs.replace(summary, comparisons=[withheld, _comparison("base", "adapter", "tpot_s")])
    assert "of 2 comparisons some do so by chance" in tax_table(shown, "closed-1").caption
    told = msgspec.structs.replace(summary, comparisons=[_comparison("base", "adapter", "tpot_s")])
    assert "by chance" not in tax_table(told, "closed-1").caption


def test_endpoints_are_held_against_each_other_though_no_step_of_the_tax(summary: Summary) -> None:
    variants = {"old": summary.variants["base"], "new": summary.variants["merged"]}
    table = tax_table(msgspec.structs.replace(summary, variants=variants, comparisons=[_comparison("old", "new", "tpot_s")]), "closed-1")
    assert table.title == "Differences at stage closed-1"
    assert [[cell.text for cell in row[:2]] for row in table.rows] == [["old → new", "TPOT"]]


def test_the_tax_says_what_would_tell_and_what_failed(summary: Summary) -> None:
    unsure = _comparison("adapter", "merged", "tpot_s", verdict="cannot tell", n_to_decide=1234)
    rate = _comparison("adapter", "merged", "output_tokens_per_s", verdict="cannot tell", ci95_low=None, ci95_high=None)
    trials = [msgspec.structs.replace(trial, requests=RequestCounts(ok=95, failed=5)) for trial in summary.variants["merged"].trials]
    variants = {**summary.variants, "merged": msgspec.structs.replace(summary.variants["merged"], trials=trials)}
    table = tax_table(msgspec.structs.replace(summary, comparisons=[unsure, rate], variants=variants), "closed-1")
    assert [row[5].text for row in table.rows] == [
        "cannot tell: about 1,234 paired requests would, it had 40", "cannot tell: too few for an interval",
    ]  # fmt: skip
    assert "merged at closed-1: 10 of 200" in table.caption and "For rates an answer is spread" in table.caption
    assert "Failed requests" not in tax_table(msgspec.structs.replace(summary, comparisons=[unsure]), "closed-1").caption


def test_a_difference_says_what_comes_from_length_and_how_many_would_tell(summary: Summary) -> None:
    one = _comparison("base", "adapter", "e2e_s", from_length=Estimate(value=-0.2, ci95_low=-0.3, ci95_high=-0.1), n_to_decide=1234, verdict="cannot tell")
    (row,) = comparison_table(msgspec.structs.replace(summary, comparisons=[one])).rows
    assert [cell.text for cell in row[6:]] == ["-200 ms", "40", "1,234"]
    assert row[6].detail == "-300 … -100 ms"
