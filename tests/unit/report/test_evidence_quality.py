"""Tables of what stands behind a quality verdict: sandbox, people, load, public benchmarks. Nothing measured is no row, and foreign words stay words."""

from __future__ import annotations

import msgspec

from perfbench.records import BenchmarkResult, Estimate, HumanSummary, Manifest, Summary, UnderLoad
from perfbench.report import evidence
from perfbench.report.html import render_html
from perfbench.report.markdown import render_markdown
from perfbench.results import RunFolder

BUSY = UnderLoad(
    variant="merged", stage="poisson-2", metric="exact_match", n=40, idle=0.9, busy=0.65, difference=Estimate(value=-0.25, ci95_low=-0.4, ci95_high=-0.1),
    changed=12, verdict="fail", reason="below the margin <b>",
)  # fmt: skip
BENCHMARK = BenchmarkResult(
    task="ifeval <i>", variant="merged", tool="lm-eval", tool_version="0.4.13", task_file="/t.yaml", api="chat",
    metrics={"strict": [0.5, 0.01], "loose": [0.6, None]}, n=100, goal="to the letter", caution="only constraints", own_task_checked=False, command=[],
)  # fmt: skip
SANDBOX = {"level": "weak", "other_user": False, "leaks": ["/etc can be read"], "refused": {"bubblewrap": "`bwrap` is not installed"}}


def test_what_was_not_done_has_no_rows(summary: Summary) -> None:
    bare = msgspec.structs.replace(summary, under_load=[], benchmarks=[], sandbox=None)
    assert evidence.under_load_table(bare).rows == ()
    assert evidence.benchmark_table(bare.benchmarks).rows == ()
    assert evidence.sandbox_lines(bare) == []
    assert evidence.human_table({"base": None}).rows == ()


def test_the_figures_stand_in_their_cells() -> None:
    human = evidence.human_table({"base": HumanSummary(n=8, people=2, mean_score=0.25, agreement=0.875, kappa=None)})
    assert [cell.text for cell in human.rows[0]] == ["base", "8", "2", "25.0 %", "87.5 %", "—"]
    rows = evidence.benchmark_table([BENCHMARK]).rows
    assert [row[2].text for row in rows] == ["strict", "loose"]
    assert rows[0][3].text == "0.500 ± 0.0100"
    assert rows[1][3].text == "0.600"
    assert rows[0][-1].text == "only constraints; the own task had not been checked before"


def test_the_sandbox_says_what_it_does_not_hold(summary: Summary) -> None:
    lines = dict(evidence.sandbox_lines(msgspec.structs.replace(summary, sandbox=SANDBOX)))
    assert lines["level"] == "weak, as the user of this run"
    assert lines["does not hold"] == "/etc can be read"
    assert lines["bubblewrap was not used"] == "`bwrap` is not installed"


def test_both_reports_tell_them_and_obey_nothing(folder: RunFolder, summary: Summary, manifest: Manifest) -> None:
    full = msgspec.structs.replace(summary, under_load=[BUSY], benchmarks=[BENCHMARK], sandbox=SANDBOX)
    page = render_html(folder, full, manifest)
    for words in ("Quality under load", "Public benchmarks", "Code sandbox", "ifeval &lt;i&gt;", "below the margin &lt;b&gt;"):
        assert words in page
    text = render_markdown(full, manifest)
    assert "Quality under load" in text
    assert "-25.0 %" in text
