"""From a run folder to its summary and reports: no server, no GPU, on any machine, as often as one likes."""

from __future__ import annotations

import msgspec

from perfbench.analyse.summarise import summarise
from perfbench.plan.measured import with_roofline
from perfbench.report.html import render_html
from perfbench.report.markdown import render_markdown
from perfbench.report.model_card import render_model_card
from perfbench.results import RunFolder


def conclude(folder: RunFolder) -> None:
    """Analyse the run and write summary.json, report.html, report.md and model_card.md into its folder."""
    folder.recover_telemetry()
    manifest = folder.manifest()
    plan = folder.plan()
    summary = msgspec.structs.replace(with_roofline(summarise(folder), manifest), plan=msgspec.to_builtins(plan) if plan is not None else None)
    folder.write_summary(summary)
    folder.write_text("report.html", render_html(folder, summary, manifest))
    folder.write_text("report.md", render_markdown(summary, manifest))
    folder.write_text("model_card.md", render_model_card(summary, manifest))
