"""Merge fidelity as tables: the verdict with what it rests on, and what the tokens say."""

from __future__ import annotations

from perfbench.analyse.metrics import metric_label
from perfbench.records import Estimate, FidelitySummary, Summary
from perfbench.report import formats
from perfbench.report.tables import Cell, Column, Mark, Table

_MARKS: dict[str, Mark] = {"equal": "pass", "not equal": "fail", "cannot tell": "cannot tell"}


def fidelity_table(summary: Summary) -> Table:
    """One row a merged variant, against the adapter."""
    columns = (
        Column("Merged", align="left"), Column("Type", "of the merged weights", align="left"), Column("Verdict", align="left"),
        Column("Metric", "right - left in the metric that decides, with its 90 % interval (TOST)"), Column("Margin", minor=True),
        Column("Flips", "samples that one passes and the other does not, with Wilson's 95 % interval"),
        Column("Answers differ", "greedy answers that differ in any token, with Wilson's 95 % interval"),
        Column("Drift", "mean |log-probability difference| of the same token after the same tokens, nats; largest below"),
        Column("First difference", "place of the first differing token, from 0: the median; smallest and largest below", minor=True),
        Column("Near-ties", "first differences that the adapter itself nearly made", minor=True),
        Column("Why", align="left", minor=True, prose=True),
    )  # fmt: skip
    rows = tuple(_row(one) for one in summary.fidelity)
    caption = (
        "equal: the 90 % interval of the difference in the task's metric lies within the margin. Tokens and log-probabilities are from the servers, "
        "on prefixes that both share."
    )
    return Table("fidelity", "Merge fidelity: merged against adapter", caption, columns, rows, details="Below a figure: its interval, or its range.")


def _row(one: FidelitySummary) -> tuple[Cell, ...]:
    places = one.first_differences
    middle = formats.count(places[len(places) // 2]) if places else formats.DASH
    return (
        Cell(one.right),
        Cell(one.dtype or formats.DASH),
        Cell(one.verdict, mark=_MARKS[one.verdict]),
        Cell(formats.signed(formats.percent(one.difference)), _signed_interval(one), title="" if one.metric is None else metric_label(one.metric)),
        Cell(formats.DASH if one.margin is None else f"±{formats.percent(one.margin)}"),
        _share_cell(one.flip_rate),
        _share_cell(one.differing),
        Cell(formats.quantity(one.drift_mean_abs, ""), formats.quantity(one.drift_max_abs, "") if one.drift_max_abs is not None else ""),
        Cell(middle, f"{places[0]:,} … {places[-1]:,}" if places else ""),
        Cell(formats.DASH if one.near_ties is None else f"{one.near_ties:,} of {len(places):,}"),
        Cell(_why(one)),
    )


def _signed_interval(one: FidelitySummary) -> str:
    if one.ci90_low is None or one.ci90_high is None:
        return ""
    return formats.joined(formats.signed(formats.percent(one.ci90_low)), formats.signed(formats.percent(one.ci90_high)))


def _share_cell(share: Estimate | None) -> Cell:
    return Cell(formats.DASH) if share is None else Cell(formats.percent(share.value), formats.interval(share.ci95_low, share.ci95_high, "share"))


def _why(one: FidelitySummary) -> str:
    parts = [one.reason]
    if one.n_to_decide is not None:
        parts.append(f"about {one.n_to_decide:,} samples would tell")
    if one.asked_again_differing is not None:
        parts.append(f"asked again, {one.left} itself differs in {formats.percent(one.asked_again_differing.value)} of its answers")
    if one.not_measured:
        parts.append(f"not measured: {one.not_measured}")
    return "; ".join(parts)
