"""Single answers worth a look: held-out samples that failed, with the outputs of all variants side by side, and the worst requests.

Everything here was written by a model or a server: it is untrusted text, made visible here and escaped by the renderers. `latencies` is
what points.request_latencies gives.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from perfbench.records import QualityRecord, Summary
from perfbench.report import formats
from perfbench.report.marks import Piece, held_against, pieces
from perfbench.report.tables import Cell, Column, Table, reference_variant
from perfbench.results import RunFolder

SAMPLES_SHOWN = 300
TEXT_LIMIT = 2000
REQUESTS_SHOWN = 10
MESSAGE_LIMIT = 300


@dataclass(frozen=True)
class Answer:
    """What one variant said to one sample."""

    variant: str
    pieces: tuple[Piece, ...]
    """The output, with what the expected answer does not have, and what it has and the output has not."""
    passed: bool | None
    label: str
    note: str
    """Why there is no output, or how it ended."""
    details: tuple[tuple[str, str], ...] = ()
    """What the task says of it: tests that failed, constraints that were broken."""


@dataclass(frozen=True)
class SampleView:
    """One held-out sample with every variant's answer."""

    sample_id: str
    prompt: str
    expected: str
    contaminated: bool
    reference_passes: bool
    answers: tuple[Answer, ...]
    slices: tuple[str, ...] = ()
    """`column=value`, as the filter names them."""

    @property
    def failing(self) -> list[tuple[str, str]]:
        """(variant, label) of every answer that did not pass: what the filters look at."""
        return [(answer.variant, answer.label) for answer in self.answers if answer.passed is False]


@dataclass(frozen=True)
class SampleBrowser:
    """The samples to show, and a sentence on those left out."""

    samples: tuple[SampleView, ...]
    note: str
    labels: tuple[str, ...]
    """Labels of answers that did not pass."""
    reference: str
    """The variant that regressions are told by."""
    slices: tuple[str, ...] = ()


def failed_samples(folder: RunFolder, summary: Summary) -> SampleBrowser:
    """Samples that at least one variant fails, those that the fewest variants fail first: they tell variants apart."""
    reference = reference_variant(summary) or ""
    by_variant = {name: {record.sample_id: record for record in folder.quality(name)} for name in summary.variants}
    order = dict.fromkeys(sample_id for records in by_variant.values() for sample_id in records)
    found: list[tuple[int, list[QualityRecord]]] = []
    for sample_id in order:
        answers = [records[sample_id] for records in by_variant.values() if sample_id in records]
        failing = sum(record.passed is False for record in answers)
        if failing:
            found.append((failing, answers))
    found.sort(key=lambda entry: entry[0])
    shown = tuple(_sample_view(answers, reference) for _, answers in found[:SAMPLES_SHOWN])
    labels = sorted({record.label for _, answers in found for record in answers if record.passed is False})
    left_out = f" The first {len(shown):,} are shown; all are in quality/*.parquet." if len(found) > len(shown) else ""
    note = f"{len(found):,} of {len(order):,} samples are failed by at least one variant; those that tell variants apart come first.{left_out}"
    slices = tuple(dict.fromkeys(name for sample in shown for name in sample.slices))
    return SampleBrowser(shown, note if order else "", tuple(formats.one_line(label) for label in labels), reference, tuple(sorted(slices)))


def _sample_view(records: list[QualityRecord], reference: str) -> SampleView:
    first = records[0]
    return SampleView(
        sample_id=formats.one_line(first.sample_id, 200),
        prompt=formats.visible(first.prompt, TEXT_LIMIT),
        expected=formats.visible(first.expected, TEXT_LIMIT),
        contaminated=any(record.contaminated for record in records),
        reference_passes=any(record.passed for record in records if record.variant == reference),
        answers=tuple(
            Answer(
                record.variant, _pieces(record), record.passed, formats.one_line(record.label),
                formats.one_line(record.error or "", MESSAGE_LIMIT) if record.output is None else f"ended by: {record.finish_reason or 'not said'}",
                tuple((formats.one_line(what, MESSAGE_LIMIT), formats.visible(told, TEXT_LIMIT)) for what, told in record.details.items()),
            )
            for record in records
        ),
        slices=tuple(formats.one_line(f"{column}={value}", MESSAGE_LIMIT) for column, value in first.slices.items()),
    )  # fmt: skip


def _pieces(record: QualityRecord) -> tuple[Piece, ...]:
    """The answer as it is shown, in pieces: control characters made visible, cut aloud at TEXT_LIMIT."""
    output = record.output or ""
    shown = [Piece(formats.visible(piece.text), piece.kind) for piece in pieces(output[:TEXT_LIMIT], held_against(record)[:TEXT_LIMIT])]
    return (*shown, Piece(f" … ({len(output) - TEXT_LIMIT:,} more characters)", "same")) if len(output) > TEXT_LIMIT else tuple(shown)


def slowest_table(latencies: pl.DataFrame, variant: str) -> Table:
    """The answered requests of a variant that took longest to their first token, over all stages, inside the measured window."""
    answered = latencies.filter((pl.col("variant") == variant) & pl.col("measured") & (pl.col("status") == "ok"))
    columns = (
        Column("Request", align="left"), Column("Prompt", align="left"), Column("Trial", align="left"), Column("At", "seconds after the trial's start"),
        Column("TTFT"), Column("TPOT"), Column("E2E"), Column("Output tokens"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(formats.one_line(row["request_id"], 80)), Cell(formats.one_line(row["prompt_id"], 80)), Cell(row["trial"]),
            *(Cell(formats.seconds(row[name])) for name in ("t_s", "ttft_s", "tpot_s", "e2e_s")), Cell(formats.count(row["output_tokens"])),
        )
        for row in answered.sort("ttft_s", descending=True, nulls_last=True).head(REQUESTS_SHOWN).to_dicts()
    )  # fmt: skip
    return Table(f"slowest-{variant}", f"Slowest requests of {variant}", "By TTFT, in the measured window, over all stages.", columns, rows)


def failures_table(latencies: pl.DataFrame) -> Table:
    """Failed requests, by variant, trial and kind of error, each with one message."""
    failed = latencies.filter(pl.col("status") == "failed")
    grouped = failed.group_by("variant", "trial", "error", maintain_order=True).agg(pl.len().alias("requests"), pl.col("error_message").first())
    columns = (
        Column("Variant", align="left"), Column("Trial", align="left"), Column("Kind", align="left"), Column("Requests"),
        Column("Message of the first", align="left", prose=True),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(row["variant"]), Cell(row["trial"]), Cell(row["error"] or formats.DASH), Cell(formats.count(row["requests"])),
            Cell(formats.one_line(row["error_message"] or formats.DASH, MESSAGE_LIMIT)),
        )
        for row in grouped.to_dicts()
    )  # fmt: skip
    return Table("failures", "Failed requests", "Warm-up and drain too.", columns, rows)
