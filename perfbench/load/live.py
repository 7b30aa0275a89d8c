"""Counts for the progress bar while a trial runs. Never used for a result: those come from the decoded records."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from perfbench.load.exchange import Exchange
from perfbench.load.judge import LiveJudge
from perfbench.load.messages import Progress

_LOOKED_AT_PER_REPORT = 200
"""Looking for the first content takes a few microseconds an answer; so many a second are enough for a percentile on a display."""


class LiveCounts:
    """Ended requests so far, and the TTFT of those that ended since the last report."""

    def __init__(self, limits_s: Mapping[str, float]) -> None:
        self._judge = LiveJudge(limits_s)
        self._ok = 0
        self._failed = 0
        self._ttft_s: list[float] = []
        self._reported_s = time.monotonic()
        self._reported_reads = 0

    def take(self, exchange: Exchange, measure_from_ns: int) -> None:
        """Count one ended exchange."""
        if exchange.scheduled_ns >= measure_from_ns:
            self._judge.take(exchange)
        if not exchange.ok:
            self._failed += 1
            return
        self._ok += 1
        if len(self._ttft_s) < _LOOKED_AT_PER_REPORT and exchange.sent_ns is not None:
            first_ns = exchange.first_content_ns()
            if first_ns is not None:
                self._ttft_s.append((first_ns - exchange.sent_ns) / 1e9)

    def progress(
        self, *, trial: str, elapsed_s: float, length_s: float | None, sent: int, in_flight: Collection[Exchange], measure_from_ns: int, held_back: int,
        reads: int,
    ) -> Progress:  # fmt: skip
        """The report of this moment; the next one counts from here."""
        now_s = time.monotonic()
        ttft_s = sorted(self._ttft_s)
        chunks_per_s = (reads - self._reported_reads) / max(now_s - self._reported_s, 1e-9)
        self._ttft_s, self._reported_s, self._reported_reads = [], now_s, reads
        judged, late = self._judge.counts(in_flight, measure_from_ns, time.monotonic_ns())
        return Progress(
            trial=trial, elapsed_s=elapsed_s, length_s=length_s, sent=sent, in_flight=len(in_flight), judged=judged, late=late,
            ok=self._ok, failed=self._failed, held_back=held_back,
            ttft_p50_s=_percentile(ttft_s, 50), ttft_p95_s=_percentile(ttft_s, 95), chunks_per_s=chunks_per_s,
        )


def _percentile(ascending: list[float], percent: int) -> float | None:
    """Nearest rank; None of nothing."""
    return ascending[max(0, -(-len(ascending) * percent // 100) - 1)] if ascending else None
