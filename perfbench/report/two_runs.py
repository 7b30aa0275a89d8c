"""A comparison of two runs and a gate's answer as tables, Markdown for a pull request and JUnit XML for a CI system."""

from __future__ import annotations

from xml.etree import ElementTree

from perfbench.analyse.metrics import metric_label, paired_things
from perfbench.records import GateCheck, GateResult, RunComparison, RunDifference, Unlike
from perfbench.report import formats
from perfbench.report.markdown import escape, escape_line, table_markdown
from perfbench.report.tables import Cell, Column, Mark, Table, metric_title

_GATE_MARKS: dict[str, Mark] = {"pass": "pass", "regression": "fail", "cannot tell": "cannot tell"}
_ONE_FIGURE = ("rate", "peak", "price", "share")


def comparison_tables(comparison: RunComparison) -> list[Table]:
    """One table a variant."""
    return [_variant_table(comparison, variant) for variant in dict.fromkeys(one.variant for one in comparison.differences)]


def _variant_table(comparison: RunComparison, variant: str) -> Table:
    columns = (
        Column("Stage", align="left"), Column("Metric", align="left"), Column("Change"), Column("95 % interval"), Column("Verdict", align="left"),
        Column("Baseline", minor=True), Column("Run", minor=True), Column("Note", align="left", minor=True, prose=True),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(one.stage or formats.DASH), Cell(_metric_name(one.metric, one.statistic), title=metric_title(one.metric)),
            Cell(_change(one)), Cell(_interval(one)), Cell(one.verdict, mark=one.verdict),
            Cell(formats.quantity(one.baseline, one.unit)), Cell(formats.quantity(one.value, one.unit)), Cell(_note(one)),
        )
        for one in comparison.differences if one.variant == variant
    )  # fmt: skip
    caption = (
        "Run minus baseline, paired by prompt or by part of the window; the verdict is on the run, and allows for how many there are (Holm). "
        "An interval knows requests and repeats, and allows for what another start of the servers changes; not for another day of the machine: "
        "two runs of the same thing show that. Rates and prices spread an answer over the time that it took, and can differ a little from those "
        "of each run's own report. What would tell is counted over more repeats, each with servers started anew."
    )
    return Table(f"runs-{variant}", f"{variant}: run against baseline", caption, columns, rows)


def _metric_name(metric: str, statistic: str) -> str:
    return metric_label(metric) if statistic in _ONE_FIGURE or metric == "energy_j_per_request" else f"{metric_label(metric)} {statistic}"


def _change(one: RunDifference) -> str:
    """As a share of the baseline; a share itself, in points."""
    if one.unit == "share" or one.relative is None:
        return formats.signed(formats.quantity(one.difference, one.unit))
    return formats.share_of(one.relative)


def _interval(one: RunDifference) -> str:
    if one.unit == "share" or one.relative is None:
        return _signed_range(one.ci95_low, one.ci95_high, one.unit)
    return _signed_range(one.relative_ci95_low, one.relative_ci95_high, "share")


def _signed_range(low: float | None, high: float | None, unit: str) -> str:
    return formats.DASH if low is None or high is None else formats.joined(*(formats.signed(formats.quantity(end, unit)) for end in (low, high)))


def _note(one: RunDifference) -> str:
    return "; ".join(part for part in (one.note, would_tell(one.metric, one.n, one.n_to_decide)) if part)


def would_tell(metric: str, n: int, n_to_decide: int | None) -> str:
    """`about 1,234 paired requests would tell, it had 120`, or nothing."""
    return "" if n_to_decide is None else f"about {n_to_decide:,} {paired_things(metric)} would tell, it had {n:,}"


def gate_table(result: GateResult) -> Table:
    """Every check; those that did not pass first."""
    columns = (
        Column("Where", align="left", prose=True), Column("Metric", align="left"), Column("Change"), Column("95 % interval"), Column("Allowed"),
        Column("Verdict", align="left", minor=True), Column("Baseline", minor=True), Column("Run", minor=True),
        Column("Why", align="left", minor=True, prose=True),
    )  # fmt: skip
    order = {"regression": 0, "cannot tell": 1, "pass": 2}
    rows = tuple(
        (
            Cell(" · ".join(part for part in (one.variant, one.stage) if part)),
            Cell(_metric_name(one.metric, one.statistic), title=metric_title(one.metric)),
            Cell(formats.signed(formats.quantity(one.change, _scale(one))), mark=_GATE_MARKS[one.verdict]),
            Cell(_signed_range(one.ci95_low, one.ci95_high, _scale(one))), Cell(formats.quantity(one.allowed, _scale(one))), Cell(one.verdict),
            Cell(formats.quantity(one.baseline, one.unit)), Cell(formats.quantity(one.value, one.unit)), Cell(_why(one)),
        )
        for one in sorted(result.checks, key=lambda check: order[check.verdict])
    )  # fmt: skip
    caption = "Allowed: how far the change may go for the worse. pass: the whole interval is within; regression: the whole interval is beyond."
    return Table("gate", f"Gate: {result.verdict}", caption, columns, rows)


def _scale(one: GateCheck) -> str:
    return "share" if one.relative else one.unit


def _why(one: GateCheck) -> str:
    return "; ".join(part for part in (one.reason, would_tell(one.metric, one.n, one.n_to_decide)) if part)


def unlike_lines(unlike: list[Unlike]) -> list[str]:
    """What differs and was allowed to, a line each."""
    return [f"allowed to differ ({one.kind}): {one.what}" for one in unlike]


def comparison_markdown(comparison: RunComparison) -> str:
    """For a pull request."""
    head = f"## Run {escape(comparison.run)} against {escape(comparison.baseline)}"
    lines = [*unlike_lines(comparison.unlike), *comparison.only_in_one]
    return "\n\n".join([head, *_listed(lines), *(table_markdown(table) for table in comparison_tables(comparison))]) + "\n"


def gate_markdown(result: GateResult) -> str:
    """For a pull request."""
    head = f"## Gate: {result.verdict}"
    runs = f"Run {escape(result.run)} against {escape(result.baseline)}"
    lines = [*unlike_lines(result.unlike), *unchecked_lines(result)]
    return "\n\n".join([head, runs, *_listed(lines), table_markdown(gate_table(result))]) + "\n"


def unchecked_lines(result: GateResult) -> list[str]:
    """What no rule could be checked for, a line each: a variant that is gone must not pass in silence."""
    return [f"not checked: {what}" for what in result.only_in_one]


def _listed(lines: list[str]) -> list[str]:
    return ["\n".join(f"- {escape_line(line)}" for line in lines)] if lines else []


def gate_junit(result: GateResult) -> str:
    """One test case a check: regression is a failure, cannot tell is skipped with its reason (the exit code tells the two apart from pass), and so is
    what only one of the runs has."""
    verdicts = [check.verdict for check in result.checks]
    gone = len(result.only_in_one)
    counts = {"tests": len(verdicts) + gone, "failures": verdicts.count("regression"), "skipped": verdicts.count("cannot tell") + gone, "errors": 0}
    suite = ElementTree.Element("testsuite", {"name": "perfbench gate", **{name: str(count) for name, count in counts.items()}})
    for check in result.checks:
        where = ".".join(part for part in (check.variant, check.stage) if part)
        case = ElementTree.SubElement(suite, "testcase", {"classname": _xml(where), "name": f"{check.metric} {check.statistic} (rule {check.rule + 1})"})
        said = _xml(_sentence(check))
        if check.verdict == "regression":
            ElementTree.SubElement(case, "failure", {"message": said, "type": "regression"})
        elif check.verdict == "cannot tell":
            ElementTree.SubElement(case, "skipped", {"message": said})
        else:
            ElementTree.SubElement(case, "system-out").text = said
    for what in result.only_in_one:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "not checked", "name": _xml(what)})
        ElementTree.SubElement(case, "skipped", {"message": _xml(what)})
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _sentence(check: GateCheck) -> str:
    scale = _scale(check)
    change = formats.signed(formats.quantity(check.change, scale))
    interval = _signed_range(check.ci95_low, check.ci95_high, scale)
    figures = f"{formats.quantity(check.baseline, check.unit)} -> {formats.quantity(check.value, check.unit)}"
    return f"{figures}, {change} (95% interval {interval}), allowed {formats.quantity(check.allowed, scale)}: {_why(check)}"


def _xml(text: str) -> str:
    """Control characters have no place in XML 1.0."""
    return formats.one_line(text)
