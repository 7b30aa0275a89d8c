"""The plan as tables, sentences and curves; the figures in it are tested in tests/unit/plan."""

from __future__ import annotations

import msgspec
import pytest
import report_run

from perfbench.records import Manifest, Plan, Summary, VariantPlan
from perfbench.report import plan as report_plan
from perfbench.report.html import render_html
from perfbench.report.markdown import render_markdown, render_plan
from perfbench.results import RunFolder


@pytest.fixture
def plan() -> Plan:
    return report_run.plan()


@pytest.fixture
def planned(summary: Summary, plan: Plan) -> Summary:
    return msgspec.structs.replace(summary, plan=msgspec.to_builtins(plan))


def test_a_variant_without_a_plan_has_dashes_and_its_sentence(plan: Plan) -> None:
    table = report_plan.plan_table(plan)
    assert [cell.text for cell in table.rows[1]] == ["adapter", *["—"] * 10]
    assert any(line == "adapter: no plan: no stage meets the SLO." for line in report_plan.answer_lines(plan))


def test_figures_with_their_interval_in_the_currency(plan: Plan) -> None:
    row = report_plan.plan_table(plan).rows[0]
    assert [(cell.text, cell.detail) for cell in row[1:3]] == [("5.00 /s", "4.00 … 6.00 /s"), ("3", "3 … 4")]
    assert row[5].text == "EUR 5,840" and row[8].text == "—"
    assert [cell.text for cell in report_plan.simulation_table(plan).rows[0]][4:] == ["—", "—", "missed"]


def test_the_curve_leaves_out_what_cannot_be_said(plan: Plan) -> None:
    figures = {figure.key: figure for figure in report_plan.plan_figures(plan)}
    adapters, merged = figures["break-even"].plot["data"]
    assert adapters["y"] == [400.0, None] and merged["y"] == [300.0, 1800.0] and merged["x"] == [1, 9]
    assert figures["plan-hours"].plot["data"][0]["y"][-1] == 0.5


def test_the_page_shows_it_and_obeys_none_of_its_words(folder: RunFolder, planned: Summary, manifest: Manifest) -> None:
    page = render_html(folder, planned, manifest)
    assert '<h2 id="plan">Plan</h2>' in page and 'href="#plan"' in page and 'id="table-break-even"' in page
    assert "a &lt;script&gt;" in page and "it is &lt;b&gt;far" in page


def test_a_page_without_a_plan_says_nothing_of_one(folder: RunFolder, summary: Summary, manifest: Manifest) -> None:
    assert 'id="plan"' not in render_html(folder, summary, manifest)


def test_markdown(plan: Plan, planned: Summary, manifest: Manifest) -> None:
    text = render_plan(plan)
    assert text.startswith("## Plan") and "What the demand needs" in text and "Adapters against merged models" in text and "<script>" not in text
    assert "What the demand needs" in render_markdown(planned, manifest)


def test_the_plan_begins_with_what_to_do(plan: Plan) -> None:
    assert report_plan.headline(plan).startswith("The run does not say which variant to serve")
    serve = msgspec.structs.replace(plan, serve="merged")
    assert report_plan.headline(serve) == (
        "Serve merged on 3 servers for the peak of 12.0 requests/s, 1 spare, 8 GPUs in all: EUR 5,840 a month, EUR 1,000 a million requests. "
        "Simulated, so many fall behind at the peak: see below."
    )
    assert report_plan.headline(msgspec.structs.replace(plan, serve="adapter")) == "No plan for adapter, which the run recommends: no stage meets the SLO."


def test_hours_that_are_all_alike_have_a_sentence_and_no_table(plan: Plan) -> None:
    merged = plan.variants["merged"]
    assert merged.autoscaled is not None
    flat = msgspec.structs.replace(merged, autoscaled=msgspec.structs.replace(merged.autoscaled, replicas_by_hour=[4] * 24))
    alike = msgspec.structs.replace(plan, variants={"merged": flat})
    assert "autoscaling" in [table.key for table in report_plan.tables(plan)]
    assert "autoscaling" not in [table.key for table in report_plan.tables(alike)]
    assert any("autoscaling by the hour saves nothing" in line for line in report_plan.answer_lines(alike))


def test_without_any_plan_there_is_no_number(plan: Plan) -> None:
    nothing = VariantPlan(reason="no stage meets the SLO")
    none = msgspec.structs.replace(plan, variants={"adapter": nothing, "merged": nothing})
    assert report_plan.headline(none).startswith("There is no plan, and no number of servers") and report_plan.tables(none) == []
    assert "adapter, merged: no plan: no stage meets the SLO." in report_plan.answer_lines(none)
