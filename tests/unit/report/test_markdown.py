"""Markdown for a pull request: exact lines, and foreign text that does nothing."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.records import Audit, Manifest, Recommendation, Summary
from perfbench.report.markdown import escape, escape_line, render_markdown, table_markdown
from perfbench.report.tables import Cell, Column, Table


def test_what_stands_behind_five_reasons_is_folded(summary: Summary, manifest: Manifest) -> None:
    many = Recommendation(serve="merged", reasons=[f"reason {number}" for number in range(6)], details=["detail <b>"])
    text = render_markdown(msgspec.structs.replace(summary, recommendation=many), manifest)
    shown, folded = text.split("<details><summary>Each stage and verdict behind this</summary>")
    assert "- reason 4" in shown and "reason 5" not in shown
    assert folded.split("</details>")[0].strip() == "- reason 5\n- detail \\<b\\>"


def test_the_answer_and_its_reasons_come_first(summary: Summary, manifest: Manifest) -> None:
    lines = render_markdown(summary, manifest).splitlines()
    assert lines[:3] == ["## Serve **merged**", "", "- merged answers as well as adapter: exact\\_match 78.3 % and 78.3 %."]


def test_every_table_row_has_as_many_cells_as_its_head(summary: Summary, manifest: Manifest) -> None:
    widths: list[int] = []
    for line in render_markdown(summary, manifest).splitlines():
        if line.startswith("|"):
            widths.append(line.replace("\\|", "").count("|"))
        elif widths:
            assert len(set(widths)) == 1
            widths = []


def test_a_table_to_the_character() -> None:
    columns = (Column("Variant", align="left"), Column("TTFT"))
    table = Table("t", "Title", "Caption.", columns, ((Cell("a|b"), Cell("1.5 s", "1 … 2 s", "better")),), frozenset({0}), "Ranges.")
    assert table_markdown(table) == (
        "**Title**\n\n| Variant | TTFT |\n|---|---:|\n| **a\\|b** | **1.5 s** ▲<br><sub>1 … 2 s</sub> |\n\n<sub>Caption. Ranges.</sub>"
    )
    assert table_markdown(_without_rows(table)) == ""


def _without_rows(table: Table) -> Table:
    return Table(table.key, table.title, table.caption, table.columns, ())


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a | b", "a \\| b"), ("`code`", "\\`code\\`"), ("<b>", "\\<b\\>"), ("[x](y)", "\\[x\\](y)"), ("@team", "@&#8203;team"), ("#12", "#&#8203;12"),
        ("https://a.b", "https&#8203;://a.b"), ("www.a.b", "www&#8203;.a.b"), ("two\nlines", "two lines"), ("&lt;", "\\&lt;"), ("\x00", "\u2400"),
    ],
)  # fmt: skip
def test_escaping(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@pytest.mark.parametrize("text", ["- a", "+ a", "> a", "1. a", "12) a", "=== a"])
def test_the_start_of_a_line_starts_no_block(text: str) -> None:
    assert escape_line(text).startswith(("&#8203;", "\\"))


@given(st.text())
def test_escaped_text_is_one_line_without_bare_pipes_or_tags(text: str) -> None:
    escaped = escape(text)
    assert "\n" not in escaped and "\r" not in escaped
    bare = escaped.replace("\\\\", "")
    assert all(bare[place - 1 : place] == "\\" for place, character in enumerate(bare) if character in "|<>`")


def test_an_audit_reason_from_outside_does_nothing(summary: Summary, manifest: Manifest) -> None:
    trial = msgspec.structs.replace(summary.variants["base"].trials[0], audit=Audit(verdict="void", reasons=["log said <img src=x> | `rm`"]))
    variants = {"base": msgspec.structs.replace(summary.variants["base"], trials=[trial])}
    text = render_markdown(msgspec.structs.replace(summary, variants=variants, recommendation=Recommendation(serve=None, reasons=[])), manifest)
    assert "log said \\<img src=x\\> \\| \\`rm\\`" in text and "<img" not in text.replace("\\<img", "")
    assert text.startswith("## This run cannot say which variant to serve")
