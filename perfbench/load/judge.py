"""How many requests of a running trial are late by the SLO: for whoever decides whether it goes on. Looked up in raw bytes, not decoded.

The result of a trial is judged by its decoded records; these counts only say when there is enough of it. By a limit on a time from the start of a request,
it is judged when it has had that time, whether it has ended or not: by then all that started together are known, and a server that answers nothing is
seen as soon as one that is slow. By a limit on a time per token, it is judged when it has ended.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import accumulate

from perfbench.load.exchange import FIRST_CONTENT, Exchange

_USAGE_TOKENS = re.compile(rb'"completion_tokens":\s*(\d+)')
_TAIL_BYTES = 4096
"""The last content and the usage stand at the end of an answer."""
_FROM_SCHEDULE = frozenset({"ttft_scheduled_s", "e2e_scheduled_s"})
_TO_FIRST = frozenset({"ttft_s", "ttft_scheduled_s"})
_PER_TOKEN = frozenset({"tpot_s", "ntpot_s"})


class LiveJudge:
    """Counts of one trial, by metric. `limits_s` holds the SLO's limits; without any, nothing is looked at."""

    def __init__(self, limits_s: Mapping[str, float]) -> None:
        self._limits_s = limits_s
        self._judged = dict.fromkeys(limits_s, 0)
        self._late = dict.fromkeys(limits_s, 0)
        self._waiting: dict[str, list[tuple[int, bool]]] = {metric: [] for metric in limits_s if metric not in _PER_TOKEN}
        """Ended requests that have not had their time yet: (start, late)."""

    def take(self, exchange: Exchange) -> None:
        """Judge one ended exchange."""
        for metric, limit_s in self._limits_s.items():
            late = not exchange.ok or _is_late(exchange, metric, limit_s)
            if metric in self._waiting:
                self._waiting[metric].append((_start_ns(exchange, metric), late))
            else:
                self._judged[metric] += 1
                self._late[metric] += late

    def counts(self, in_flight: Iterable[Exchange], measure_from_ns: int, now_ns: int) -> tuple[dict[str, int], dict[str, int]]:
        """(judged, late) of requests that were due since the start of the window, by metric."""
        for metric, waiting in self._waiting.items():
            ripe_ns = now_ns - round(self._limits_s[metric] * 1e9)
            ripe = [late for start_ns, late in waiting if start_ns <= ripe_ns]
            self._judged[metric] += len(ripe)
            self._late[metric] += sum(ripe)
            self._waiting[metric] = [one for one in waiting if one[0] > ripe_ns]
        judged, late = dict(self._judged), dict(self._late)
        running = [exchange for exchange in in_flight if exchange.scheduled_ns >= measure_from_ns] if self._waiting else []
        for metric in self._waiting:
            ripe_ns = now_ns - round(self._limits_s[metric] * 1e9)
            had_time = [exchange for exchange in running if _start_ns(exchange, metric) <= ripe_ns]
            judged[metric] += len(had_time)
            late[metric] += sum(metric not in _TO_FIRST or FIRST_CONTENT.search(exchange.raw) is None for exchange in had_time)
        return judged, late


def _start_ns(exchange: Exchange, metric: str) -> int:
    return exchange.scheduled_ns if metric in _FROM_SCHEDULE or exchange.sent_ns is None else exchange.sent_ns


def _is_late(exchange: Exchange, metric: str, limit_s: float) -> bool:
    """An answer without content, or without the token count that a metric needs, is late: it cannot be seen to be in time."""
    first_ns = exchange.first_content_ns()
    if first_ns is None:
        return True
    if metric in _TO_FIRST:
        return (first_ns - _start_ns(exchange, metric)) / 1e9 > limit_s
    last_s = (_last_content_ns(exchange) - (first_ns if metric == "tpot_s" else _start_ns(exchange, metric))) / 1e9
    if metric not in _PER_TOKEN:
        return last_s > limit_s
    counts = _USAGE_TOKENS.findall(exchange.raw, max(0, len(exchange.raw) - _TAIL_BYTES))
    if not counts:
        return True
    tokens = int(counts[-1])
    if metric == "tpot_s":
        return tokens > 1 and last_s / (tokens - 1) > limit_s
    return tokens == 0 or last_s / tokens > limit_s


def _last_content_ns(exchange: Exchange) -> int:
    """When the last bytes that look like content arrived; the end of the response where the tail shows none."""
    ends = [match.end() for match in FIRST_CONTENT.finditer(exchange.raw, max(0, len(exchange.raw) - _TAIL_BYTES))]
    if not ends:
        return exchange.end_ns
    return exchange.read_ns[bisect_right(list(accumulate(exchange.read_lengths)), ends[-1] - 1)]
