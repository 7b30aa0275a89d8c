"""Which answers are shown, in which order, and that they cannot act."""

import polars as pl
import report_run

from perfbench.records import Manifest, Summary
from perfbench.report import answers
from perfbench.report.points import request_latencies
from perfbench.results import RunFolder


def text(answer: answers.Answer) -> str:
    return "".join(piece.text for piece in answer.pieces if piece.kind != "missing")


def test_every_sample_that_somebody_fails_is_there_and_no_other(folder: RunFolder, summary: Summary) -> None:
    failed = {record.sample_id for variant in summary.variants for record in folder.quality(variant) if not record.passed}
    browser = answers.failed_samples(folder, summary)
    assert {sample.sample_id for sample in browser.samples} == failed
    assert browser.note == f"{len(failed)} of 60 samples are failed by at least one variant; those that tell variants apart come first."
    counts = [len(sample.failing) for sample in browser.samples]
    assert counts == sorted(counts) and counts[0] == 1 and counts[-1] == 4


def test_a_sample_shows_the_answers_of_all_variants_side_by_side(folder: RunFolder, summary: Summary) -> None:
    sample = next(sample for sample in answers.failed_samples(folder, summary).samples if sample.sample_id == "s015")
    assert [answer.variant for answer in sample.answers] == ["base", "base+lora", "adapter", "merged"]
    assert sample.answers[0].note == "timed out after 120 s <b>"
    assert text(sample.answers[2]) == '{"intent": "HassTurnOn", "name": "lamp"}'
    assert sample.slices == ("room=den",)
    assert not sample.reference_passes


def test_long_answers_are_cut_aloud_and_controls_are_shown(folder: RunFolder, summary: Summary) -> None:
    outputs = {sample.sample_id: text(sample.answers[0]) for sample in answers.failed_samples(folder, summary).samples}
    assert outputs["s008"].endswith(f" … ({len(report_run.HOSTILE[8]) - 2000:,} more characters)")
    assert outputs["s007"] == "nul \u2400 escape \u241b[31mred\u241b[0m bell \u2407"
    assert "[U+202E]" in outputs["s006"] and "\u202e" not in outputs["s006"]


def test_more_samples_than_are_shown_are_counted(folder: RunFolder, summary: Summary, monkeypatch) -> None:
    monkeypatch.setattr(answers, "SAMPLES_SHOWN", 5)
    browser = answers.failed_samples(folder, summary)
    assert len(browser.samples) == 5
    assert browser.note.endswith("The first 5 are shown; all are in quality/*.parquet.")


def test_slowest_requests_are_measured_ones_in_falling_order(folder: RunFolder, manifest: Manifest) -> None:
    latencies = request_latencies(folder, manifest)
    table = answers.slowest_table(latencies, "merged")
    chosen = latencies.filter((pl.col("variant") == "merged") & pl.col("measured") & (pl.col("status") == "ok"))
    assert len(table.rows) == 10
    assert table.rows[0][0].text == chosen.sort("ttft_s", descending=True)["request_id"][0]


def test_failures_are_counted_by_trial_and_kind(folder: RunFolder, manifest: Manifest) -> None:
    latencies = request_latencies(folder, manifest)
    table = answers.failures_table(latencies)
    assert {row[0].text for row in table.rows} == {"adapter"} and {row[2].text for row in table.rows} == {"server"}
    assert sum(int(row[3].text) for row in table.rows) == (latencies["status"] == "failed").sum() > 0
    assert table.rows[0][4].text == report_run.HOSTILE[0]
