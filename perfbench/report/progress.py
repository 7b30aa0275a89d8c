"""What a run is doing, on stderr: a moving line in a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from perfbench.report.formats import gib, one_line, seconds

PLAIN_INTERVAL_S = 15.0
"""Outside a terminal a phase says where it is at most this often."""
_DETAIL_LIMIT = 160


class RunProgress:
    """Call `phase` when something begins, `update` while it goes on, `done` at the end; or use it as a context.

    All text may come from logs and models: it is shown as it is, never read as markup or as terminal control.
    """

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self._quiet = quiet
        self._console = console or Console(file=sys.stderr)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._phase = ""
        self._said_at = 0.0

    def phase(self, text: str) -> None:
        """Something begins: `starting server lora`. The phase before it has ended."""
        self._end_phase()
        self._phase = one_line(text)
        self._said_at = time.monotonic()
        if self._quiet:
            return
        if not self._console.is_terminal:
            self._say(self._phase)
            return
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=16), TimeElapsedColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False, style="dim"), console=self._console, refresh_per_second=4, transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task(self._phase, total=None, detail="")
        self._progress.start()

    def update(self, detail: str = "", *, completed: float | None = None, total: float | None = None) -> None:
        """How far the phase is: `completed` of `total` in any unit, and a few words, such as the last line of a log."""
        if self._quiet:
            return
        shown = one_line(detail, _DETAIL_LIMIT)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=completed, total=total, detail=shown)
        elif time.monotonic() - self._said_at >= PLAIN_INTERVAL_S:
            self._said_at = time.monotonic()
            share = f" {completed / total:.0%}" if completed is not None and total else ""
            self._say(f"{self._phase}:{share} {shown}".rstrip(": "))

    def done(self) -> None:
        """Nothing goes on any more; the terminal is as it was."""
        self._end_phase()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.done()

    def _end_phase(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._task = None
            self._say(f"{self._phase} ({time.monotonic() - self._said_at:.0f} s)")

    def _say(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


def trial_detail(
    *, ok: int, failed: int, in_flight: int, elapsed_s: float, ttft_p50_s: float | None, ttft_p95_s: float | None, memory: Mapping[str, float]
) -> str:
    """The words of a running trial: `96 ok (4.8/s), 0 failed, 4 in flight, TTFT p50 153 ms p95 420 ms, host 3.1 GiB`.

    `memory` holds the newest readings of the trial's server by name; of a GPU's memory and the host's, the GPU's is told.
    """
    rate = f" ({ok / elapsed_s:.1f}/s)" if elapsed_s > 0 else ""
    held = next((f", {where} {gib(memory[name])}" for name, where in (("vram_bytes", "GPU"), ("host_rss_bytes", "host")) if memory.get(name)), "")
    return f"{ok:,} ok{rate}, {failed:,} failed, {in_flight:,} in flight, TTFT p50 {seconds(ttft_p50_s)} p95 {seconds(ttft_p95_s)}{held}"
