"""The HTML report: one file that opens offline, asks nothing of any network and treats every word of a model as untrusted.

Jinja escapes text and attributes; plot data is JSON with every character escaped that could end a script element; a content security
policy names each script by its hash, so that text which slipped through would still not run.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import msgspec
from markupsafe import Markup

from perfbench.records import Manifest, Plan, Summary
from perfbench.report import adapters, answer, answers, capacity, checks, contamination, differences, evidence, figures, foreign, plan, quality_details, tables
from perfbench.report.fidelity import fidelity_table
from perfbench.report.formats import visible
from perfbench.report.points import request_latencies
from perfbench.report.repeats import headline_stage, stage_names
from perfbench.results import RunFolder

_ESCAPED_IN_JSON = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029\u007f"}


def render_html(folder: RunFolder, summary: Summary, manifest: Manifest) -> str:
    """The whole report as the text of one HTML file."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("perfbench.report"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["symbols"] = tables.SYMBOLS
    style, script, plotly = _part("report.css"), _part("report.js"), _plotly()
    latencies = request_latencies(folder, manifest)
    planned = plan.plan_of(summary)
    plots = [*figures.all_figures(folder, summary, manifest, latencies), *plan.plan_figures(planned)]
    data = json_in_script({figure.key: figure.plot for figure in plots})
    return environment.get_template("report.html.j2").render(
        summary=summary,
        reasons=answer.first_reasons(summary.recommendation),
        reasons_behind=answer.further_reasons(summary.recommendation),
        manifest=manifest,
        policy=f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {_hash(script)} {_hash(plotly)}",
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        plotly=Markup(plotly),  # noqa: S704 - Plotly's own file
        plot_data=Markup(data),  # noqa: S704 - escaped by json_in_script
        plot_groups=_by_group(plots),
        **_tables(summary, manifest),
        **_plan(planned),
        browser=answers.failed_samples(folder, summary),
        slowest=[answers.slowest_table(latencies, name) for name in summary.variants],
        failures=answers.failures_table(latencies),
        foreign=foreign.foreign_table(folder.foreign()),
    )


def _tables(summary: Summary, manifest: Manifest) -> dict[str, Any]:
    """Everything that comes out of the summary and the manifest, by the name it has in the template."""
    stages = stage_names(summary)
    headline = headline_stage(summary)
    problems = evidence.audit_table(summary, problems_only=True)
    return {
        "main": tables.main_table(summary, manifest),
        "stages": tables.stage_table(summary),
        "roofline": evidence.roofline_table(summary),
        "adapters": adapters.adapters_table(summary),
        "capacity": capacity.capacity_table(summary),
        "stage_names": stages,
        "headline_stage": headline.stage if headline else None,
        "latency": [tables.latency_table(summary, stage) for stage in stages],
        "comparisons": differences.comparison_table(summary),
        "adapter_tax": [table for table in (differences.adapter_tax_table(summary, stage) for stage in stages) if table.rows],
        "memory": evidence.memory_table(summary),
        "cost": evidence.cost_table(summary),
        "quality": evidence.quality_table(summary),
        "fidelity": fidelity_table(summary),
        "labels": evidence.labels_table(summary),
        "gates": quality_details.gates_table(summary),
        "slices": quality_details.slices_table(summary),
        "signatures": quality_details.signature_lines(summary),
        "benchmarks": evidence.benchmark_table(summary.benchmarks),
        "under_load": evidence.under_load_table(summary),
        "human": evidence.human_table({name: variant.quality.human if variant.quality else None for name, variant in summary.variants.items()}),
        "confusion": evidence.confusion_tables(summary),
        "problems": problems,
        "audit": evidence.audit_table(summary),
        "findings": evidence.audit_findings_table(summary),
        "steady": checks.steady_table(summary),
        "stage_checks": checks.stage_checks(summary),
        "reference": evidence.reference_table(summary),
        "reference_examples": [
            (check.variant, {what: visible(text, answers.TEXT_LIMIT) for what, text in example.items()})
            for check in summary.reference
            for example in check.examples
        ],
        "contamination_note": contamination.contamination_note(summary),
        "contamination": contamination.contamination_table(summary),
        "contaminated_scores": contamination.scores_table(summary),
        "sandbox": evidence.sandbox_lines(summary),
        "not_measured": evidence.not_measured(summary, manifest),
        "manifest_lines": evidence.manifest_lines(manifest),
        "scenario_text": visible(manifest.scenario_text),
    }


def _plan(planned: Plan | None) -> dict[str, Any]:
    """The plan's part, by the name it has in the template; empty without a plan."""
    if planned is None:
        return {"plan_headline": "", "plan_lines": [], "plan_tables": [], "break_even_lines": [], "break_even_table": None}
    return {
        "plan_lines": [*plan.answer_lines(planned), *plan.warning_lines(planned)],
        "plan_headline": plan.headline(planned),
        "plan_tables": plan.tables(planned),
        "break_even_lines": plan.break_even_lines(planned),
        "break_even_table": plan.break_even_table(planned),
    }


def _by_group(plots: list[figures.Figure]) -> dict[str, list[figures.Figure]]:
    groups: dict[str, list[figures.Figure]] = {}
    for figure in plots:
        groups.setdefault(figure.group, []).append(figure)
    return groups


def json_in_script(value: Any) -> str:
    """JSON that may stand inside a script element: no `</script>`, no `<!--`, no line separators that a parser could trip over."""
    text = msgspec.json.encode(value).decode()
    return text.translate({ord(character): escape for character, escape in _ESCAPED_IN_JSON.items()})


def _part(name: str) -> str:
    return (resources.files("perfbench.report") / "templates" / name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    """plotly.js as its Python package brings it."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _hash(script: str) -> str:
    """The source expression that allows exactly this inline script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
