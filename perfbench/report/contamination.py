"""Which held-out samples also stand in the training text, and what the scores are with and without them."""

from __future__ import annotations

from typing import Any

from perfbench.records import Estimate, Summary
from perfbench.report import formats
from perfbench.report.tables import Cell, Column, Table

_SHOWN_ROWS = 100
_KINDS = {"exact": "equal", "ngram": "13 words in a row", "fuzzy": "alike"}


def contamination_note(summary: Summary) -> str:
    """What is known of the held-out samples, in one sentence; empty where none were asked."""
    found = summary.contamination
    if not any(variant.quality is not None for variant in summary.variants.values()):
        return ""
    if found is None:
        return "Whether the fine-tune has seen the held-out samples in training is unknown: the scenario names no training data (quality.train_data)."
    equal, grams, alike = (len(found.get(kind) or []) for kind in _KINDS)
    left_out = f"{equal:,} equal one and {'is' if equal == 1 else 'are'} left out of the verdict" if equal else "none equals one"
    told = f"{left_out}, {grams:,} share 13 words in a row with one, {alike:,} are alike to one (similarity of at least 90)"
    return f"{found['samples']:,} held-out samples against {found['training_rows']:,} training rows: {told}."


def contamination_table(summary: Summary) -> Table:
    """One row for each sample that stands in the training text or resembles it, the equal ones first."""
    columns = (
        Column("Sample", align="left"), Column("Match", align="left"), Column("Similarity"), Column("Held-out text", align="left", prose=True),
        Column("Training row"), Column("Training text", align="left", prose=True),
    )  # fmt: skip
    found = [(word, match) for kind, word in _KINDS.items() for match in (summary.contamination or {}).get(kind) or []]
    rows = tuple(_row(word, match) for word, match in found[:_SHOWN_ROWS])
    more = f" {len(found) - _SHOWN_ROWS:,} more are in summary.json." if len(found) > _SHOWN_ROWS else ""
    caption = f"Equal ones are left out of the verdict, the others are a warning. Training rows count from 0.{more}"
    return Table("contamination", "Held-out samples that the training text holds", caption, columns, rows)


def _row(word: str, match: dict[str, Any]) -> tuple[Cell, ...]:
    ratio = match.get("ratio")
    return (
        Cell(formats.one_line(match["sample_id"])), Cell(word, mark="fail" if word == "equal" else "suspect"),
        Cell(formats.DASH if ratio is None else f"{ratio:.1f}"), Cell(formats.one_line(match["text"])), Cell(formats.count(match["training_row"])),
        Cell(formats.one_line(match["training_text"])),
    )  # fmt: skip


def scores_table(summary: Summary) -> Table:
    """Every deciding metric with and without the samples that equal a training row; empty where there are none."""
    columns = (
        Column("Variant", align="left"), Column("Metric", align="left"), Column("With them"), Column("Without them"), Column("Samples left out"),
    )  # fmt: skip
    left_out = len((summary.contamination or {}).get("exact") or [])
    checked = {name: variant.quality for name, variant in summary.variants.items() if variant.quality is not None} if left_out else {}
    rows = []
    for name, quality in checked.items():
        metrics = dict.fromkeys([*([quality.metric] if quality.metric else []), *(gate.metric for gate in quality.gates)])
        for metric in metrics:
            both = quality.metrics.get(metric), (quality.without_contaminated or {}).get(metric)
            rows.append((Cell(name), Cell(metric), *(_figure(one) for one in both), Cell(formats.count(left_out))))
    caption = "A score that is higher with them may owe that to training: there the model may have seen the answers."
    return Table(
        "contaminated-scores", "Scores with and without the samples that equal a training row", caption, columns, tuple(rows),
        details="Below a figure: its 95 % interval.",
    )  # fmt: skip


def _figure(estimate: Estimate | None) -> Cell:
    if estimate is None or estimate.value is None:
        return Cell(formats.DASH)
    return Cell(formats.percent(estimate.value), formats.interval(estimate.ci95_low, estimate.ci95_high, "share"))
