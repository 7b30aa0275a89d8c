"""What a person sees in a terminal: exact text, at 100 and 80 columns, without colour where none is wanted."""

import io
from pathlib import Path

import msgspec
import pytest
from rich.cells import cell_len
from rich.console import Console

from perfbench.doctor import Check
from perfbench.records import Manifest, Recommendation, Summary
from perfbench.report.progress import RunProgress, trial_detail
from perfbench.report.terminal import doctor_table, print_report


def _printed(summary: Summary, manifest: Manifest, width: int, **console: object) -> str:
    file = io.StringIO()
    print_report(summary, manifest, Console(file=file, width=width, **console), Path("/results/run/report.html"))
    return file.getvalue()


@pytest.mark.parametrize("width", [100, 80])
def test_tables_fit_and_no_figure_is_cut(summary: Summary, manifest: Manifest, width: int) -> None:
    lines = _printed(summary, manifest, width).splitlines()
    assert all(cell_len(line) <= width for line in lines if not line.startswith("report:"))
    assert "…" not in "".join(lines).replace(" … ", "")  # Rich's mark for a cut cell; between blanks it is the mark of a range


def test_the_answer_is_the_first_line_and_the_path_the_last(summary: Summary, manifest: Manifest) -> None:
    lines = _printed(summary, manifest, 80).splitlines()
    assert lines[0] == "Serve merged"
    assert lines[1] == "  - merged answers as well as adapter: exact_match 78.3 % and 78.3 %."
    assert lines[-1] == "report: /results/run/report.html"


def test_the_main_table_to_the_character(summary: Summary, manifest: Manifest) -> None:
    lines = [line.rstrip() for line in _printed(summary, manifest, 100).splitlines()]
    start = lines.index("Variants side by side")
    assert lines[start + 1] == "Variant    TTFT p95   TPOT p95  Tokens/s  At the SLO    Memory  $/1M requests   Quality"
    assert lines[start + 3] == "base         521 ms    26.6 ms      50.4     1.91 /s  2.20 GiB          $11.6  25.0 % ·"
    assert lines[start + 5] == "adapter    442 ms ?  39.3 ms ▼    43.8 ▼     1.71 /s  2.23 GiB          $17.1  80.0 % ✓"


def test_ranges_appear_where_there_is_room_and_only_there_does_the_caption_speak_of_them(summary: Summary, manifest: Manifest) -> None:
    wide, narrow = _printed(summary, manifest, 140), _printed(summary, manifest, 80)
    assert "491 … 551 ms" in wide and "range over repeats" in " ".join(wide.split())
    assert "491 … 551 ms" not in narrow and "range over repeats" not in " ".join(narrow.split())
    assert "No room here for: At the SLO." in " ".join(narrow.split())


def test_five_reasons_are_shown_and_the_rest_is_counted(summary: Summary, manifest: Manifest) -> None:
    many = Recommendation(serve="merged", reasons=[f"reason {number}" for number in range(6)], details=["detail"])
    lines = _printed(msgspec.structs.replace(summary, recommendation=many), manifest, 80).splitlines()
    assert lines[5:7] == ["  - reason 4", "  2 sentences behind these: in the report"]


def test_what_is_not_measured_is_said_once(summary: Summary, manifest: Manifest) -> None:
    assert _printed(summary, manifest, 100).count("not measured: vram_bytes: no NVML library on this machine") == 1


def test_colour_only_where_it_is_wanted(summary: Summary, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[31m" in _printed(summary, manifest, 100, force_terminal=True)
    assert "\x1b" not in _printed(summary, manifest, 100)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in _printed(summary, manifest, 100, force_terminal=True)


def test_foreign_text_is_no_markup_and_no_terminal_control(summary: Summary, manifest: Manifest) -> None:
    hostile = msgspec.structs.replace(summary, recommendation=Recommendation(serve=None, reasons=["[red]x[/red] \x1b[2J \x07"]))
    text = _printed(hostile, manifest, 100)
    assert "[red]x[/red] \u241b[2J \u2407" in text and "\x1b" not in text
    assert text.startswith("This run cannot say which variant to serve")


def test_doctor_says_what_to_do() -> None:
    file = io.StringIO()
    Console(file=file, width=100).print(doctor_table([Check("gpu", None, "none", "install the driver"), Check("disk", False, "1 GiB", "[free] some")]))
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    assert lines[1].split() == ["Check", "Found", "What", "to", "do"]
    assert lines[3].split() == ["gpu", "?", "none", "install", "the", "driver"]
    assert lines[4].split() == ["disk", "✗", "1", "GiB", "[free]", "some"]


def test_progress_is_plain_lines_where_there_is_no_terminal() -> None:
    file = io.StringIO()
    with RunProgress(console=Console(file=file, width=40)) as progress:
        progress.phase("starting server lora")
        progress.update("INFO \x1b[32mloading[/x] weights", completed=1, total=4)
        progress.phase("quality adapter")
    assert file.getvalue() == "starting server lora\nquality adapter\n"


def test_plain_progress_speaks_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("perfbench.report.progress.time.monotonic", lambda: now[0])
    file = io.StringIO()
    progress = RunProgress(console=Console(file=file, width=40))
    progress.phase("quality adapter")
    now[0] += 16
    progress.update("60 [samples] \x1b", completed=60, total=240)
    progress.update("61 samples", completed=61, total=240)
    now[0] += 16
    progress.update()
    progress.done()
    assert file.getvalue() == "quality adapter\nquality adapter: 25% 60 [samples] \u241b\nquality adapter\n"


def test_progress_in_a_terminal_shows_foreign_text_and_leaves_a_line_a_phase() -> None:
    file = io.StringIO()
    with RunProgress(console=Console(file=file, width=120, force_terminal=True, color_system=None)) as progress:
        progress.phase("starting server lora")
        progress.update("log \x1b[2J [bold]x", completed=3, total=4)
    text = file.getvalue()
    assert "log \u241b[2J [bold]x" in text
    assert text.rstrip().endswith("starting server lora (0 s)")


def test_quiet_says_nothing() -> None:
    file = io.StringIO()
    with RunProgress(quiet=True, console=Console(file=file)) as progress:
        progress.phase("a")
        progress.update("b", completed=1, total=2)
    assert file.getvalue() == ""


def test_the_words_of_a_running_trial() -> None:
    memory = {"host_rss_bytes": 3.0 * 2**30, "vram_bytes": 40.0 * 2**30}
    counts = {"ok": 1096, "failed": 2, "in_flight": 4, "elapsed_s": 10.0, "ttft_p50_s": 0.153, "ttft_p95_s": None}
    assert trial_detail(**counts, memory=memory) == "1,096 ok (109.6/s), 2 failed, 4 in flight, TTFT p50 153 ms p95 —, GPU 40.0 GiB"
    del memory["vram_bytes"]
    assert trial_detail(**counts, memory=memory).endswith(", host 3.00 GiB")
    assert trial_detail(**{**counts, "elapsed_s": 0.0}, memory={}) == "1,096 ok, 2 failed, 4 in flight, TTFT p50 153 ms p95 —"
