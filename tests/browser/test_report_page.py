"""The report in headless Chromium: every plot draws, the filters work, foreign text does nothing, nothing leaves the page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import report_run

from perfbench.report.html import render_html
from perfbench.results import RunFolder

sync_api = pytest.importorskip("playwright.sync_api", reason="browser tests need the Python package playwright")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium, then the report is opened for real"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # playwright leaves its own event loop to the garbage collector
]


class OpenPage:
    """A page with everything that it said or asked for since it was opened."""

    def __init__(self, page: sync_api.Page, url: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}") or dialog.dismiss())
        page.route("**/*", self._record)
        page.goto(url)

    def _record(self, route: sync_api.Route) -> None:
        self.requests.append(route.request.url)
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            route.abort()

    def wait_until(self, expression: str) -> None:
        """Asked again and again from here: Playwright's own wait_for_function needs eval, which the page's policy forbids."""
        for _ in range(200):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"not true within 20 s: {expression}; the page said {self.complaints}")

    def wait_for_plots(self) -> None:
        """Until every plot that is not hidden has curves or bars in it."""
        self.wait_until("[...document.querySelectorAll('.plot')].filter(p => !p.closest('[hidden]')).every(p => p.querySelector('.trace'))")


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url(folder: RunFolder) -> str:
    summary = msgspec.structs.replace(folder.summary(), plan=msgspec.to_builtins(report_run.plan()))
    path = Path(folder.write_text("report.html", render_html(folder, summary, folder.manifest())))
    return path.as_uri()


@pytest.fixture
def opened(browser: sync_api.Browser, url: str) -> Iterator[OpenPage]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    yield OpenPage(context.new_page(), url)
    context.close()


def test_every_plot_of_every_stage_draws_without_a_complaint_or_a_request(opened: OpenPage, url: str) -> None:
    page = opened.page
    for stage in ("closed-1", "closed-4", "poisson-2"):
        page.select_option("select[data-picks=stage] >> nth=0", stage)
        opened.wait_for_plots()
    assert page.locator(".plot").count() == 29
    assert page.locator(".plot.js-plotly-plot").count() == 29
    assert opened.complaints == []
    assert opened.requests == [url]


def test_plotly_knows_every_key_of_every_plot(opened: OpenPage) -> None:
    findings = opened.page.evaluate(
        """() => Object.entries(JSON.parse(document.getElementById('plot-data').textContent))
                 .flatMap(([key, plot]) => (Plotly.validate(plot.data, plot.layout) || []).map(finding => key + ': ' + finding.msg))"""
    )
    assert findings == []


def test_the_stage_pickers_agree_and_show_one_stage(opened: OpenPage) -> None:
    page = opened.page
    pickers = page.locator("select[data-picks=stage]")
    assert {pickers.nth(index).input_value() for index in range(pickers.count())} == {"poisson-2"}  # the headline stage
    pickers.nth(1).select_option("closed-1")
    assert {pickers.nth(index).input_value() for index in range(pickers.count())} == {"closed-1"}
    shown = page.evaluate("[...new Set([...document.querySelectorAll('[data-stage]')].filter(e => !e.hidden).map(e => e.dataset.stage))]")
    assert shown == ["closed-1"]


def test_filters_show_the_samples_that_fit_and_count_them(opened: OpenPage, folder: RunFolder) -> None:
    page = opened.page
    failed = {name: [record for record in folder.quality(name) if not record.passed] for name in ("base", "merged")}
    everything = page.locator(".sample").count()
    assert page.locator("#samples-shown").inner_text() == f"{everything} of {everything} shown"
    page.select_option("#filter-variant", "merged")
    assert page.locator(".sample:not([hidden])").count() == len(failed["merged"]) < everything
    page.select_option("#filter-label", "invalid JSON")
    invalid = sum(record.label == "invalid JSON" for record in failed["merged"])
    assert page.locator("#samples-shown").inner_text() == f"{invalid} of {everything} shown"
    page.select_option("#filter-label", "")
    page.check("#filter-regressions")
    base = {record.sample_id for record in failed["base"]}
    regressions = sum(record.sample_id not in base for record in failed["merged"])
    assert page.locator(".sample:not([hidden])").count() == regressions > 0


def test_slices_filter_too_and_differences_are_marked(opened: OpenPage, folder: RunFolder) -> None:
    page = opened.page
    records = [record for name in ("base", "base+lora", "adapter", "merged") for record in folder.quality(name) if not record.passed]
    page.select_option("#filter-slice", f"room={report_run.HOSTILE[1]}")
    expected = {record.sample_id for record in records if record.slices["room"] == report_run.HOSTILE[1]}
    assert page.locator(".sample:not([hidden])").count() == len(expected) > 0
    page.select_option("#filter-slice", "")
    page.select_option("#filter-label", "invalid JSON")
    sample = page.locator(".sample:not([hidden])", has_text="s024")
    sample.evaluate("details => { details.open = true; }")
    answer = sample.locator("pre", has=page.locator("del")).first
    assert answer.locator("mark").all_inner_texts() == ["HassTurn"]  # cut off: the word itself differs, what follows is missing
    assert "lamp" in answer.locator("del").all_inner_texts()[-1]
    assert report_run.HOSTILE[0] in sample.locator("dl.details").first.inner_text()
    assert page.evaluate("window.hacked") is None


def test_foreign_text_is_shown_and_does_nothing(opened: OpenPage) -> None:
    page = opened.page
    opened.wait_for_plots()
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    texts = page.locator(".text").all_inner_texts()
    for hostile in report_run.HOSTILE[:4]:
        assert hostile in texts
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img, main a[href^=javascript], main svg[onload], main script").count() == 0
    assert opened.complaints == []


def test_an_injected_script_would_not_run(opened: OpenPage) -> None:
    opened.page.evaluate(
        """() => { const script = document.createElement('script'); script.textContent = 'window.hacked = 1'; document.body.append(script);
                   document.body.insertAdjacentHTML('beforeend', '<img src="data:," onerror="window.hacked = 1">'); }"""
    )
    opened.page.wait_for_timeout(200)
    assert opened.page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in complaint for complaint in opened.complaints)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark"), (320, "light")])
def test_the_page_never_scrolls_sideways(browser: sync_api.Browser, url: str, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    opened = OpenPage(context.new_page(), url)
    opened.wait_for_plots()
    opened.page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.complaints == []
    context.close()


def test_dark_turns_page_and_plots_dark_while_open(opened: OpenPage) -> None:
    page = opened.page
    opened.wait_for_plots()
    look = """() => [getComputedStyle(document.body).backgroundColor,
                     getComputedStyle(document.querySelector('.plot .xtick text')).fill]"""
    assert page.evaluate(look) == ["rgb(255, 255, 255)", "rgb(27, 31, 36)"]
    page.emulate_media(color_scheme="dark")
    opened.wait_until("getComputedStyle(document.querySelector('.plot .xtick text')).fill === 'rgb(230, 233, 238)'")
    assert page.evaluate(look) == ["rgb(20, 23, 28)", "rgb(230, 233, 238)"]


def test_every_table_has_a_caption_and_scoped_headings_and_every_plot_words(opened: OpenPage) -> None:
    page = opened.page
    assert page.locator("table:not(:has(caption))").count() == 0
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator(".plot:not([aria-label]), .plot[aria-label='']").count() == 0
    assert page.evaluate("[...document.querySelectorAll('select, input')].filter(control => control.labels.length === 0).length") == 0


def test_every_check_is_behind_its_stage_and_trial(opened: OpenPage) -> None:
    page = opened.page
    stages = page.locator("details.checks")
    assert [line.split(":")[0] for line in stages.locator("> summary").all_inner_texts()] == ["Stage closed-1", "Stage closed-4", "Stage poisson-2"]
    assert "8 trials, 1 doubt" in stages.nth(2).locator("> summary").inner_text()
    assert not page.locator("#table-checks-base\\+lora-poisson-2-r2").is_visible()
    stages.nth(2).locator("> summary").click()
    page.get_by_text("base+lora · r2: suspect, 3 checks, in doubt: client CPU").click()
    rows = page.locator("#table-checks-base\\+lora-poisson-2-r2 tbody tr")
    assert rows.first.is_visible()
    assert rows.first.inner_text().split("\t")[0::2][:2] == ["client CPU", "0.930 cores"], "the doubt is read first"
    assert report_run.HOSTILE[1] in rows.last.inner_text()
    assert page.evaluate("window.hacked") is None


def test_the_steady_part_of_a_cut_window_is_drawn_and_told(opened: OpenPage) -> None:
    page = opened.page
    page.select_option("select[data-picks=stage] >> nth=0", "closed-4")
    opened.wait_for_plots()
    figure = page.locator("figure", has=page.locator("[data-plot=ttft-time-closed-4]"))
    assert "the steady part that the figures are of, where the window was cut: adapter r1 11.0 to 35.0 s, adapter r2" in figure.inner_text()
    assert figure.locator(".shapelayer path").count() == 4, "warm-up, drain, and a bar for each of two trials"
    assert "steps by +12%" in page.locator("#table-steady").inner_text()


def test_every_link_of_the_navigation_leads_somewhere(opened: OpenPage) -> None:
    links = opened.page.evaluate("[...document.querySelectorAll('nav a')].map(link => link.getAttribute('href').slice(1))")
    assert {"speed", "table-reference", "table-steady", "checks", "failures"} <= set(links)
    assert opened.page.evaluate("links => links.filter(id => document.getElementById(id) === null)", links) == []
    assert "table-capacity" not in links, "what the run does not have is not offered"


def test_tables_fit_on_paper_and_paper_is_white(browser: sync_api.Browser, url: str) -> None:
    """718 px: A4 with 1 cm margins, at 96 dpi. A table that is wider is cut off there, since paper does not scroll."""
    context = browser.new_context(viewport={"width": 718, "height": 1000}, color_scheme="dark")
    opened = OpenPage(context.new_page(), url)
    opened.wait_for_plots()
    opened.page.emulate_media(media="print")
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    wide = "[...document.querySelectorAll('table')].filter(table => table.offsetWidth > table.parentElement.clientWidth + 1).map(table => table.id)"
    assert opened.page.evaluate(wide) == []
    assert not opened.page.locator("nav").is_visible()
    context.close()


def test_without_scripts_every_table_is_still_there(browser: sync_api.Browser, url: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(url)
    assert page.locator("#table-main").is_visible()
    assert page.locator("noscript .warning, .warning").first.is_visible()
    assert page.locator("[data-stage][hidden]").count() == 0
    context.close()
