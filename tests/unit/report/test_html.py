"""The HTML file as text: complete, escaped, and closed to the network. tests/browser opens it."""

import json
import re

import msgspec
import pytest

from perfbench.records import Manifest, Recommendation, Summary
from perfbench.report.html import json_in_script, render_html
from perfbench.results import RunFolder


@pytest.fixture(scope="module")
def page(folder: RunFolder, summary: Summary, manifest: Manifest) -> str:
    return render_html(folder, summary, manifest)


def test_the_answer_comes_before_everything_else(page: str) -> None:
    assert page.index("<h2>Serve merged</h2>") < page.index('id="table-main"') < page.index('id="speed"')


def test_foreign_markup_never_reaches_the_page(page: str) -> None:
    assert "window.hacked" in page
    markup = page[page.index("<body>") : page.index('<script type="application/json"')]
    for fragment in ("<script>window", "<img", "<svg", '"><svg', "{% raw"):
        assert (fragment in markup) == (fragment == "{% raw")
    assert "{{7*7}}" in page and "49 {%" not in page


def test_json_cannot_end_its_script() -> None:
    hostile = "</script><script>alert(1)</script><!-- &lt; \u2028\u2029 \x00"
    text = json_in_script({hostile: [hostile]})
    assert not set("<>&\u2028\u2029\x00") & set(text)
    assert json.loads(text) == {hostile: [hostile]}


def test_the_policy_lets_two_scripts_run_and_nothing_load(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src 'sha256-")
    assert policy.count("'sha256-") == 2 and "unsafe-eval" not in policy


def test_nothing_in_the_markup_points_outside(page: str) -> None:
    markup = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    assert re.findall(r'(?:href|src|action|data)="(?!#|data:,)[^"]*"', markup) == []
    assert "url(" not in markup and "@import" not in markup


def test_size_stays_below_eight_megabytes(page: str) -> None:
    assert len(page.encode()) < 8_000_000


def test_a_run_that_cannot_say_and_is_not_valid_says_so(folder: RunFolder, summary: Summary, manifest: Manifest) -> None:
    unsure = msgspec.structs.replace(summary, valid=False, recommendation=Recommendation(serve=None, reasons=["Every trial is void."]))
    page = render_html(folder, unsure, manifest)
    assert "This run cannot say which variant to serve" in page and "This run is not valid." in page and "Every trial is void." in page


def test_a_run_with_nothing_finished_still_renders(tmp_path, summary: Summary, manifest: Manifest) -> None:
    empty = RunFolder.create(tmp_path, "empty")
    variants = {name: msgspec.structs.replace(variant, trials=[], quality=None) for name, variant in summary.variants.items()}
    bare = msgspec.structs.replace(summary, variants=variants, comparisons=[], reference=[], contamination=None)
    page = render_html(empty, bare, msgspec.structs.replace(manifest, trials=[], scenario={}))
    assert "No trial has finished." in page and "asks for no quality check" in page
