"""Tables of differences: every paired comparison that the run made, and the adapter's way from base to merged as steps."""

from __future__ import annotations

from collections.abc import Sequence

from perfbench.analyse.compare import RATES
from perfbench.analyse.metrics import metric_label, paired_things
from perfbench.analyse.starts import CLOSED_TTFT_SD, START_SD
from perfbench.records import Comparison, Summary
from perfbench.report import formats
from perfbench.report.repeats import usable_trials
from perfbench.report.tables import Cell, Column, Table, metric_title, metric_unit

_MOST_NAMED = 4
ADAPTER_STEPS = (
    ("base", "base+lora", "LoRA enabled, adapter idle"),
    ("base+lora", "adapter", "adapter in use"),
    ("base", "adapter", "whole adapter tax"),
    ("base", "merged", "merged against base"),
    ("adapter", "merged", "merged instead of adapter"),
)
"""(left, right, what the step is): what each one costs is right - left."""


def difference_cells(comparison: Comparison, unit: str) -> tuple[Cell, Cell, Cell]:
    """Difference with its interval, relative difference, verdict."""
    low, high = (formats.signed(formats.quantity(bound, unit)) for bound in (comparison.ci95_low, comparison.ci95_high))
    bounds = "" if comparison.ci95_low is None or comparison.ci95_high is None else formats.joined(low, high)
    return (
        Cell(formats.signed(formats.quantity(comparison.difference, unit)), bounds),
        Cell(formats.share_of(comparison.relative)),
        Cell(comparison.verdict, mark=comparison.verdict),
    )


def comparison_table(summary: Summary) -> Table:
    """Every comparison, in the order in which analyse gives them."""
    columns = (
        Column("Comparison", align="left"), Column("Metric", align="left"), Column("Stage", align="left"),
        Column("Difference", "right - left, with its 95 % interval"), Column("Relative", "difference over left"), Column("Verdict", align="left"),
        Column("From answer length", "the part of the difference that comes from answers of another length, with its 95 % interval"),
        Column("Pairs", "prompts that both answered; parts of windows for rates, repeats for memory"),
        Column("Would tell", "pairs that would tell with 80 % power, if they come from more repeats, each with its own starts of the servers"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(f"{one.left} → {one.right}"), Cell(metric_label(one.metric), title=metric_title(one.metric)), Cell(one.stage or formats.DASH),
            *difference_cells(one, metric_unit(summary, one.metric)), _length_cell(one, metric_unit(summary, one.metric)), Cell(formats.count(one.n)),
            Cell(formats.count(one.n_to_decide)),
        )
        for one in summary.comparisons
    )  # fmt: skip
    caption = (
        "Right minus left, paired by prompt; the verdict is on the right one. same: the whole interval is too small to choose by. "
        f"cannot tell: the difference may be chance.{_provisos(summary, summary.comparisons)}"
    )
    return Table("comparisons", "Differences", caption, columns, rows)


def _provisos(summary: Summary, shown: Sequence[Comparison]) -> str:
    """What a reader of these differences has to know, in sentences; empty where there is nothing."""
    return "".join((_by_chance(summary, shown), _rates_are_spread(shown), _left_out(summary, shown), started_once(shown)))


def _by_chance(summary: Summary, shown: Sequence[Comparison]) -> str:
    """Why a verdict may be withheld though the interval leaves out 0; empty where none is."""
    withheld = [one for one in shown if one.verdict == "cannot tell" and one.ci95_low is not None and one.ci95_high is not None]
    if not any(one.ci95_low > 0 or one.ci95_high < 0 for one in withheld):  # type: ignore[operator]  # neither is None
        return ""
    tested = sum(one.ci95_low is not None for one in summary.comparisons)
    return f" An interval that leaves out 0 may still be cannot tell: of {tested:,} comparisons some do so by chance (verdicts are adjusted by Holm)."


def _rates_are_spread(shown: Sequence[Comparison]) -> str:
    if not any(one.metric in RATES for one in shown):
        return ""
    return " For rates an answer is spread over the time that it took, so that they can differ from those counted in a short window."


def _left_out(summary: Summary, shown: Sequence[Comparison]) -> str:
    """Latencies are of requests that both answered: where one fails, it is its slow ones that may be missing."""
    failed = []
    for name, stage in dict.fromkeys((name, one.stage) for one in shown for name in (one.left, one.right) if name in summary.variants):
        trials = usable_trials(summary.variants[name], stage)
        count = sum(trial.requests.failed for trial in trials)
        if count:
            failed.append(f"{name} at {stage}: {count:,} of {count + sum(trial.requests.ok for trial in trials):,}")
    more = f" and {len(failed) - _MOST_NAMED:,} more" if len(failed) > _MOST_NAMED else ""
    return f" Failed requests are in no pair ({', '.join(failed[:_MOST_NAMED])}{more})." if failed else ""


def how_sure(one: Comparison) -> str:
    """The verdict; where it cannot tell, what would."""
    if one.verdict != "cannot tell":
        return one.verdict
    if one.ci95_low is None:
        return "cannot tell: too few for an interval"
    if one.n_to_decide is None:
        return "cannot tell: no practical number would"
    return f"cannot tell: about {one.n_to_decide:,} {paired_things(one.metric)} would, it had {one.n:,}"


def started_once(comparisons: Sequence[Comparison]) -> str:
    """The sentence for servers whose other starts no repeat has seen; empty where there are none."""
    if not any(one.starts == 1 for one in comparisons):
        return ""
    usual, first, queued = START_SD["closed"], CLOSED_TTFT_SD, START_SD["open"]
    return (
        f" Servers were started once: intervals allow for what another start of each would change ({usual:.1%} of the figure, a TTFT {first:.1%}, in open loop "
        f"{queued:.1%})."
    )


def _length_cell(comparison: Comparison, unit: str) -> Cell:
    part = comparison.from_length
    if part is None:
        return Cell(formats.DASH)
    low, high = (formats.signed(formats.quantity(bound, unit)) for bound in (part.ci95_low, part.ci95_high))
    bounds = "" if part.ci95_low is None or part.ci95_high is None else formats.joined(low, high)
    return Cell(formats.signed(formats.quantity(part.value, unit)), bounds)


def steps_of(summary: Summary) -> list[tuple[str, str, str]]:
    """ADAPTER_STEPS, then a step for each variation that was compared."""
    compared = dict.fromkeys((one.left, one.right) for one in summary.comparisons if one.right in summary.variations)
    return [*ADAPTER_STEPS, *((left, right, "variation") for left, right in compared)]


def adapter_steps(summary: Summary, metric: str, stage: str) -> list[tuple[str, str, Comparison]]:
    """(step, what it is, comparison) for each step from base to merged, and each variation, that the run compared; memory is of no stage."""
    found = {(one.left, one.right): one for one in summary.comparisons if one.metric == metric and one.stage in (stage, "")}
    return [(f"{left} → {right}", what, found[left, right]) for left, right, what in steps_of(summary) if (left, right) in found]


def adapter_metrics(summary: Summary, stage: str) -> list[str]:
    """The metrics that have at least one step at this stage; none where only memory has."""
    if not any(one.stage == stage for one in summary.comparisons):
        return []
    return [metric for metric in dict.fromkeys(one.metric for one in summary.comparisons) if adapter_steps(summary, metric, stage)]


def adapter_tax_table(summary: Summary, stage: str) -> Table:
    """What LoRA serving costs at one stage: a row a step, a column a metric."""
    metrics = adapter_metrics(summary, stage)
    steps = {metric: {step: one for step, _, one in adapter_steps(summary, metric, stage)} for metric in metrics}
    meanings = {step: what for metric in metrics for step, what, _ in adapter_steps(summary, metric, stage)}
    columns = (
        Column("Step", align="left"),
        *(Column(metric_label(metric), metric_title(metric), minor=place > 1) for place, metric in enumerate(metrics)),
        Column("What it is", align="left", prose=True, minor=True),
    )
    rows = tuple(
        (Cell(step), *(_step_cell(steps[metric].get(step), metric_unit(summary, metric)) for metric in metrics), Cell(meanings[step]))
        for step in (f"{left} → {right}" for left, right, _ in steps_of(summary)) if step in meanings
    )  # fmt: skip
    shown = [one for found in steps.values() for one in found.values()]
    caption = f"What each step adds (right minus left, paired by prompt), and whether it is for the better.{_provisos(summary, shown)}"
    return Table(f"adapter-tax-{stage}", f"Adapter tax at stage {stage}", caption, columns, rows, details="Below each figure: its 95 % interval.")


HEADLINE_METRICS = ("ttft_s", "ttft_scheduled_s", "tpot_s", "output_tokens_per_s", "vram_bytes", "host_rss_bytes")
HEADLINE_STEPS = {
    ("base", "base+lora"): "what enabling LoRA costs", ("base+lora", "adapter"): "what using the adapter costs",
    ("base", "adapter"): "what enabling and using cost", ("adapter", "merged"): "what merging saves",
}  # fmt: skip


def tax_table(summary: Summary, stage: str) -> Table:
    """The adapter tax in a form that fits a terminal and a pull request: a row a step and metric, the interval in a column of its own. Then what else was
    compared: endpoints, and whatever is no step from base to merged."""
    columns = (
        Column("Step", align="left"), Column("Metric", align="left"), Column("Change"), Column("95 % interval"), Column("Relative", minor=True),
        Column("Verdict", align="left", minor=True, prose=True), Column("From answer length", "the part that comes from answers of another length", minor=True),
        Column("What it is", align="left", prose=True, minor=True),
    )  # fmt: skip
    steps = [(left, right, HEADLINE_STEPS.get((left, right), what)) for left, right, what in steps_of(summary)]
    if any((one.left, one.right) == ("base", "base+lora") for one in summary.comparisons):
        steps = [step for step in steps if step[:2] != ("base", "adapter")]  # the sum of two that are shown
    known = {step[:2] for step in steps_of(summary)}
    others = [pair for pair in dict.fromkeys((one.left, one.right) for one in summary.comparisons) if pair not in known]
    steps += [(left, right, "side by side") for left, right in others]
    rows = tuple(
        _tax_row(summary, one, what)
        for left, right, what in steps if (left, right) in HEADLINE_STEPS or right in summary.variations or (left, right) in others
        for metric in HEADLINE_METRICS
        for one in summary.comparisons if (one.left, one.right, one.metric) == (left, right, metric) and one.stage in (stage, "")
    )  # fmt: skip
    shown = [one for one in summary.comparisons if one.stage in (stage, "")]
    caption = f"Right minus left, paired by prompt (rates by part of the window, memory by repeat).{_provisos(summary, shown)}"
    title = "Adapter tax" if any((one.left, one.right) in HEADLINE_STEPS for one in summary.comparisons) else "Differences"
    return Table(f"tax-{stage}", f"{title} at stage {stage}", caption, columns, rows)


def _tax_row(summary: Summary, one: Comparison, what: str) -> tuple[Cell, ...]:
    unit = metric_unit(summary, one.metric)
    difference, relative, verdict = difference_cells(one, unit)
    length = one.from_length.value if one.from_length is not None else None
    return (
        Cell(f"{one.left} → {one.right}"), Cell(metric_label(one.metric), title=metric_title(one.metric)), Cell(difference.text, mark=verdict.mark),
        Cell(difference.detail or formats.DASH), relative, Cell(how_sure(one)), Cell(formats.signed(formats.quantity(length, unit))), Cell(what),
    )  # fmt: skip


def _step_cell(comparison: Comparison | None, unit: str) -> Cell:
    if comparison is None:
        return Cell(formats.DASH)
    difference, relative, verdict = difference_cells(comparison, unit)
    text = difference.text if relative.text == formats.DASH else f"{difference.text}, {relative.text}"
    return Cell(text, difference.detail, verdict.mark)
