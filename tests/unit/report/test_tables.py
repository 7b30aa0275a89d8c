"""What stands in the tables, cell by cell."""

import msgspec
import pytest

from perfbench.records import (
    AdapterSummary,
    Audit,
    CapacitySummary,
    Comparison,
    CostSummary,
    Estimate,
    Manifest,
    MemorySummary,
    Rates,
    Recommendation,
    RequestCounts,
    Summary,
    TrialSummary,
    VariantSummary,
)
from perfbench.report import differences, evidence, tables
from perfbench.report.adapters import adapters_table
from perfbench.report.tables import Cell


def _row(table: tables.Table, *heading: str) -> tuple[Cell, ...]:
    return next(row for row in table.rows if [cell.text for cell in row[: len(heading)]] == list(heading))


def test_main_table_has_a_row_a_variant_and_marks_the_recommended_one(summary: Summary, manifest: Manifest) -> None:
    table = tables.main_table(summary, manifest)
    assert [row[0].text for row in table.rows] == ["base", "base+lora", "adapter", "merged"]
    assert table.emphasised == {3}
    assert _row(table, "merged")[0].detail == "recommended"
    assert [column.name for column in table.columns] == ["Variant", "TTFT p95", "TPOT p95", "Tokens/s", "At the SLO", "Memory", "$/1M requests", "Quality"]
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_main_table_shows_the_mean_over_repeats_with_its_range(summary: Summary, manifest: Manifest) -> None:
    percentiles = [trial.metrics["tpot_s"].p95 * 1e3 for trial in summary.variants["adapter"].trials if trial.stage == "poisson-2"]
    cell = _row(tables.main_table(summary, manifest), "adapter")[2]
    assert cell.text == f"{sum(percentiles) / 2:.1f} ms"
    assert cell.detail == f"range {min(percentiles):.1f} … {max(percentiles):.1f} ms"
    assert cell.mark == "worse"


def test_goodput_at_the_slo_is_of_each_variants_own_best_stage(summary: Summary, manifest: Manifest) -> None:
    """merged is the only one that meets the SLO at closed-4, where it does more; adapter meets it nowhere once its trials miss it."""
    table = tables.main_table(summary, manifest)
    rates = [trial.rates.goodput_per_s for trial in summary.variants["merged"].trials if trial.stage == "closed-4"]
    assert _row(table, "merged")[4].text == f"{sum(rates) / 2:.2f} /s"
    assert _row(table, "merged")[4].title == "at stage closed-4"
    assert "each variant's best stage: merged at closed-4." in table.caption
    alike = {name: msgspec.structs.replace(variant, at_slo=summary.variants["merged"].at_slo) for name, variant in summary.variants.items()}
    one = tables.main_table(msgspec.structs.replace(summary, variants=alike), manifest)
    assert "Goodput at the SLO, and the price by it, are of stage closed-4." in one.caption
    missed = [msgspec.structs.replace(trial, slo={"met": False, "limits": {}}) for trial in summary.variants["adapter"].trials]
    changed = {**summary.variants, "adapter": msgspec.structs.replace(summary.variants["adapter"], trials=missed, at_slo=None)}
    cell = _row(tables.main_table(msgspec.structs.replace(summary, variants=changed), manifest), "adapter")[4]
    assert (cell.text, cell.mark) == ("no stage", "fail")
    assert _row(tables.main_table(msgspec.structs.replace(summary, slo={}), manifest), "merged")[4].text == "—"


def test_capacity_is_a_column_where_it_was_searched_for(summary: Summary, manifest: Manifest) -> None:
    found = CapacitySummary(find="max_rate", value=6.4, low=6.1, high=6.8, probes=7, server_s=80.0, basis="seven probes")
    changed = {**summary.variants, "merged": msgspec.structs.replace(summary.variants["merged"], capacity=found)}
    table = tables.main_table(msgspec.structs.replace(summary, variants=changed), manifest)
    assert table.columns[5].name == "Up to"
    assert _row(table, "merged")[5] == Cell("6.40 /s", "6.10 /s to 6.80 /s", title="seven probes")
    assert _row(table, "base")[5] == Cell("—")


def test_a_price_has_the_interval_of_the_rate_that_it_rests_on(summary: Summary, manifest: Manifest) -> None:
    cost = msgspec.structs.replace(
        summary.variants["merged"].cost, usd_per_request=0.002, intervals={"usd_per_request": Estimate(value=0.002, ci95_low=0.0018, ci95_high=0.0023)}
    )
    changed = msgspec.structs.replace(summary, variants={"merged": msgspec.structs.replace(summary.variants["merged"], cost=cost)})
    assert _row(tables.main_table(changed, manifest), "merged")[6].detail == "$0.00180 … $0.00230"
    assert tables.main_table(changed, manifest).columns[6].name == "$/request"
    assert _row(evidence.cost_table(changed), "merged")[1] == Cell("$0.00200", "$0.00180 … $0.00230")


def test_a_price_of_many_zeros_is_of_a_million_requests(summary: Summary, manifest: Manifest) -> None:
    """In the whole column, interval and all; the cost table has the price of one."""
    price = summary.variants["merged"].cost.usd_per_request
    assert _row(tables.main_table(summary, manifest), "merged")[6].text == f"${price * 1e6:.1f}"
    assert _row(evidence.cost_table(summary), "merged")[1].text == f"${price:.7f}"


def test_marks_come_from_the_comparison_whichever_way_round(summary: Summary) -> None:
    one = Comparison(left="merged", right="base", metric="e2e_s", stage="x", difference=1.0, ci95_low=0.5, ci95_high=1.5, relative=0.1, n=9, verdict="worse")
    changed = msgspec.structs.replace(summary, comparisons=[one])
    assert tables.verdict_against(changed, "base", "merged", "e2e_s", "x") == "better"
    assert tables.verdict_against(changed, "merged", "base", "e2e_s", "x") == "worse"
    assert tables.verdict_against(changed, "base", "merged", "e2e_s", "y") is None


def test_host_memory_is_never_called_vram(summary: Summary) -> None:
    variant = summary.variants["base"]
    assert tables.memory_cell(variant) == Cell("2.20 GiB", detail="host")
    on_gpu = msgspec.structs.replace(variant, memory=msgspec.structs.replace(variant.memory, vram_bytes_peak=2**33))
    assert tables.memory_cell(on_gpu) == Cell("8.00 GiB")
    nothing = MemorySummary(vram_bytes_peak=None, vram_bytes_steady=None, host_rss_bytes_peak=None, kv_cache_tokens=None, ledger={})
    assert tables.memory_cell(msgspec.structs.replace(variant, memory=nothing)) == Cell("—")


def test_quality_cell_holds_the_deciding_metric_its_interval_and_the_verdict(summary: Summary, manifest: Manifest) -> None:
    merged = summary.variants["merged"]
    cell = tables.quality_cell(merged)
    assert (cell.text, cell.detail, cell.mark) == ("80.0 %", "71.0 … 86.0 %", "pass")
    assert merged.quality is not None
    other = msgspec.structs.replace(merged, quality=msgspec.structs.replace(merged.quality, metric="json_valid"))
    assert tables.quality_cell(other).text == "90.0 %"
    not_run = msgspec.structs.replace(merged, quality=msgspec.structs.replace(merged.quality, metric="rubric_score"))
    assert (tables.quality_cell(not_run).text, tables.quality_cell(not_run).title) == ("—", merged.quality.reason)  # no other metric in its place
    assert tables.quality_cell(msgspec.structs.replace(merged, quality=None)) == Cell("—")
    assert "Quality is exact_match." in tables.main_table(summary, manifest).caption


def test_stage_table_names_the_limit_that_was_missed(summary: Summary) -> None:
    row = _row(tables.stage_table(summary), "closed-4", "adapter")
    assert (row[-1].text, row[-1].mark) == ("missed", "fail")
    assert row[-1].title.startswith("TPOT p95 5") and row[-1].title.endswith("> 40.0 ms")
    assert row[-2] == Cell("4 of 184", mark="fail")
    assert _row(tables.stage_table(summary), "poisson-2", "base+lora")[1].mark == "suspect"
    assert _row(tables.stage_table(summary), "closed-1", "base")[-1] == Cell("met", mark="pass")


def test_open_loop_stages_show_latency_from_the_scheduled_time(summary: Summary) -> None:
    trials = [trial for trial in summary.variants["base"].trials if trial.stage == "poisson-2"]
    mean = sum(trial.metrics["e2e_scheduled_s"].p95 for trial in trials) / 2
    assert _row(tables.stage_table(summary), "poisson-2", "base")[4].text == f"{mean:.2f} s"


def test_percentiles_that_were_too_few_for_are_a_dash(summary: Summary) -> None:
    row = _row(tables.latency_table(summary, "closed-1"), "TTFT", "base")
    assert row[-2].text == "—"  # p99 of fewer than 100 requests
    assert row[-1].text == "92"


def test_adapter_tax_goes_step_by_step_from_base_to_merged(summary: Summary) -> None:
    table = differences.adapter_tax_table(summary, "closed-1")
    assert [row[0].text for row in table.rows] == ["base → base+lora", "base+lora → adapter", "base → adapter", "base → merged", "adapter → merged"]
    assert [column.name for column in table.columns] == ["Step", "TTFT", "TPOT", "output tokens/s", "What it is"]
    one = next(one for one in summary.comparisons if (one.left, one.right, one.metric, one.stage) == ("base", "adapter", "tpot_s", "closed-1"))
    cell = _row(table, "base → adapter")[2]
    assert cell.text == f"+{one.difference * 1e3:.1f} ms, +{one.relative * 100:.1f} %"
    assert cell.mark == "worse"
    assert cell.detail == f"+{one.ci95_low * 1e3:.2f} … +{one.ci95_high * 1e3:.1f} ms"


def test_a_comparison_without_figures_is_dashes(summary: Summary) -> None:
    one = Comparison(
        left="base", right="adapter", metric="ttft_s", stage="s", difference=None, ci95_low=None, ci95_high=None, relative=None, n=0, verdict="cannot tell"
    )
    row = differences.comparison_table(msgspec.structs.replace(summary, comparisons=[one])).rows[0]
    assert [cell.text for cell in row] == ["base → adapter", "TTFT", "s", "—", "—", "cannot tell", "—", "0", "—"]


def test_memory_table_shows_the_ledger_and_who_shares_a_server(summary: Summary) -> None:
    table = evidence.memory_table(summary)
    assert [cell.text for cell in _row(table, "adapter")] == [
        "adapter", "—", "—", "2.23 GiB", "0.251 GiB", "1.00 GiB", "0.0293 GiB", "0.949 GiB", "46,592", "—", "base+lora",
    ]  # fmt: skip


def test_cost_table_says_what_a_figure_rests_on(summary: Summary) -> None:
    row = _row(evidence.cost_table(summary), "merged")
    assert [cell.text for cell in row[1:5]] == ["$0.0000116", "$0.445", "$0.0000145", "$0.0000112"]
    assert row[5].text == "$0.10 an hour for the machine, 2.40 good requests per second at stage closed-4"


def test_labels_add_up_to_the_samples(summary: Summary) -> None:
    table = evidence.labels_table(summary)
    assert [sum(int(row[place].text) for row in table.rows) for place in range(1, 5)] == [60, 60, 60, 60]


def test_audit_shows_problems_alone_or_every_trial(summary: Summary) -> None:
    problems = evidence.audit_table(summary, problems_only=True)
    assert [row[0].text for row in problems.rows] == ["base+lora · poisson-2 · r2"]
    assert problems.rows[0][3].text == "The client used 0.93 of its core: latencies may be its own."
    assert len(evidence.audit_table(summary).rows) == 24


def test_what_was_not_measured_is_named_once(summary: Summary, manifest: Manifest) -> None:
    assert list(evidence.not_measured(summary, manifest)) == ["vram_bytes", "energy_j_per_request"]


def test_confusion_is_a_table_of_counts(summary: Summary) -> None:
    quality = msgspec.structs.replace(summary.variants["base"].quality, confusion={"yes": {"yes": 3, "no": 1}, "no": {"no": 2}})
    variants = {"base": msgspec.structs.replace(summary.variants["base"], quality=quality)}
    (table,) = evidence.confusion_tables(msgspec.structs.replace(summary, variants=variants))
    assert [[cell.text for cell in row] for row in table.rows] == [["yes", "3", "1"], ["no", "0", "2"]]


@pytest.mark.parametrize(("name", "unit"), [("tpot_s", "s"), ("goodput_per_s", "1/s"), ("exact_match", "share"), ("unheard_of", "")])
def test_units_come_from_the_metric_table(summary: Summary, name: str, unit: str) -> None:
    assert tables.metric_unit(summary, name) == unit


def test_findings_that_differ_in_their_figures_alone_are_one_row():
    table = evidence.audit_findings_table(_audited("only 5 requests", "only 7 requests", "clock stepped"))
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["2", "suspect", "only 5 requests (figures of the first)", "base · stage0 · r0"],
        ["1", "suspect", "clock stepped", "base · stage2 · r0"],
    ]
    assert table.title == "Audit: 0 valid, 3 suspect, 0 void"


def _audited(*reasons: str) -> Summary:
    rates = Rates(requests_per_s=None, output_tokens_per_s=None, goodput_per_s=None)
    trials = [
        TrialSummary(
            stage=f"stage{number}", repeat=0, arrival="closed", audit=Audit(verdict="suspect", reasons=[reason]),
            requests=RequestCounts(ok=1, failed=0), metrics={}, rates=rates,
        )
        for number, reason in enumerate(reasons)
    ]  # fmt: skip
    memory = MemorySummary(vram_bytes_peak=None, vram_bytes_steady=None, host_rss_bytes_peak=None, kv_cache_tokens=None, ledger={})
    cost = CostSummary(
        usd_per_request=None, usd_per_million_output_tokens=None, usd_per_correct_request=None, usd_per_request_raw=None, basis="no price"
    )
    variant = VariantSummary(trials=trials, memory=memory, cost=cost, quality=None)
    return Summary(
        schema_version=1, run_id="r", scenario="s", valid=True, variants={"base": variant}, comparisons=[],
        recommendation=Recommendation(serve=None, reasons=[]), plan=None,
    )  # fmt: skip


@pytest.mark.parametrize("variants", [["adapter"], ["adapter", "merged"]])
def test_adapters_are_told_apart_by_variant_where_several_spread_theirs(summary: Summary, variants: list[str]) -> None:
    changed = dict(summary.variants)
    for name in variants:
        trials = [
            msgspec.structs.replace(trial, adapters={"mine": AdapterSummary(requests=trial.requests, metrics=trial.metrics)})
            for trial in changed[name].trials if trial.stage == "closed-4"
        ]  # fmt: skip
        changed[name] = msgspec.structs.replace(changed[name], trials=trials)
    table = adapters_table(msgspec.structs.replace(summary, variants=changed))
    named = [column.name for column in table.columns][:3]
    if len(variants) == 1:
        assert named == ["Stage", "Adapter", "Requests"] and [row[1].text for row in table.rows] == ["all together", "mine"]
    else:
        assert named == ["Stage", "Variant", "Adapter"]
        assert [(row[1].text, row[2].text) for row in table.rows] == [(name, what) for name in variants for what in ("all together", "mine")]
    assert adapters_table(summary).rows == ()
