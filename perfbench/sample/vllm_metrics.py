"""vLLM's own view of itself: `/metrics` in the Prometheus text format, over one kept connection.

The text is parsed here: prometheus_client is no core dependency, takes 0.12 s to import, and parses every histogram bucket (9 of 10
lines) where a dozen lines are wanted. Its parser is the oracle of our tests. Names differ between vLLM versions; `_METRICS` lists them.
"""

from __future__ import annotations

import http.client
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from perfbench.records import Sample
from perfbench.sample.spec import SampleTarget
from perfbench.unix_http import UNIX_SCHEME, UnixConnection, split_unix_url


class Line(NamedTuple):
    """One value of a Prometheus text."""

    name: str
    labels: dict[str, str]
    value: float


class _Metric(NamedTuple):
    name: str
    unit: str
    theirs: tuple[str, ...]
    """Names by vLLM version, newest first; the first that is present counts. Counters also come with `_total`."""
    over_engines: Literal["sum", "mean"]
    """Data-parallel servers report one value an engine."""


_METRICS = (
    _Metric("num_requests_running", "requests", ("vllm:num_requests_running",), "sum"),
    _Metric("num_requests_waiting", "requests", ("vllm:num_requests_waiting",), "sum"),
    # The name says percent, the value is a share: 1 is full.
    _Metric("kv_cache_usage_perc", "share", ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"), "mean"),
    _Metric("prefix_cache_queries", "tokens", ("vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries"), "sum"),
    _Metric("prefix_cache_hits", "tokens", ("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits"), "sum"),
    _Metric("num_preemptions", "preemptions", ("vllm:num_preemptions",), "sum"),
    _Metric("prompt_tokens", "tokens", ("vllm:prompt_tokens",), "sum"),
    _Metric("generation_tokens", "tokens", ("vllm:generation_tokens",), "sum"),
)
_CACHE_CONFIG = "vllm:cache_config_info"
_CONSTANTS = ("kv_cache_tokens", "kv_block_size_tokens")
"""Told once, and again when they change (a server that was started again on the same port)."""
WANTED = frozenset(name + suffix for metric in _METRICS for name in metric.theirs for suffix in ("", "_total")) | {_CACHE_CONFIG}

_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')
_ESCAPE = re.compile(r"\\(.)")
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def parse_metrics(text: str, wanted: frozenset[str] = WANTED) -> Iterator[Line]:
    """The wanted lines of a Prometheus text (version 0.0.4). Raises ValueError for a wanted line that is malformed; others are not read."""
    for line in text.split("\n"):
        start = _NAME.match(line)
        if start is None or start[0] not in wanted:
            continue
        rest = line[start.end() :].strip()
        labels: dict[str, str] = {}
        if rest.startswith("{"):
            end = _end_of_labels(rest)
            labels = _labels(rest[1:end])
            rest = rest[end + 1 :]
        fields = rest.split()
        if len(fields) not in (1, 2):  # a time stamp may follow the value
            raise ValueError(f"metrics line without one value: {line[:120]}")
        yield Line(start[0], labels, float(fields[0]))


def _end_of_labels(text: str) -> int:
    """Position of the brace that closes the labels; a brace inside a quoted value does not."""
    quoted = escaped = False
    for position, character in enumerate(text):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = quoted
        elif character == '"':
            quoted = not quoted
        elif character == "}" and not quoted:
            return position
    raise ValueError(f"metrics line whose labels do not end: {text[:120]}")


def _labels(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    while text[at:].strip():
        match = _LABEL.match(text, at)
        if match is None:
            raise ValueError(f"metrics label that is none: {text[at : at + 80]}")
        found[match[1]] = _ESCAPE.sub(lambda escape: "\n" if escape[1] == "n" else escape[1], match[2])
        at = match.end()
    return found


def readings(lines: Iterable[Line]) -> dict[str, tuple[float, str]]:
    """Our name -> (value, unit), summed or averaged over engines. A metric that the server does not have is absent."""
    values: dict[str, list[float]] = {}
    found: dict[str, tuple[float, str]] = {}
    for line in lines:
        if line.name == _CACHE_CONFIG:
            for name, tokens in _kv_cache(line.labels):
                # Engines are equal: the capacity adds up, the block size does not.
                before = found.get(name, (0.0, ""))[0] if name == "kv_cache_tokens" else 0.0
                found[name] = (before + tokens, "tokens")
        elif math.isfinite(line.value):
            values.setdefault(line.name, []).append(line.value)
    for metric in _METRICS:
        per_engine = next((values[key] for name in metric.theirs for key in (name, f"{name}_total") if key in values), None)
        if per_engine is not None:
            total = math.fsum(per_engine)
            found[metric.name] = (total if metric.over_engines == "sum" else total / len(per_engine), metric.unit)
    return found


def _kv_cache(labels: dict[str, str]) -> Iterator[tuple[str, int]]:
    """KV capacity: as vLLM states it (newer versions; right for hybrid models too), else blocks x block size. Unknown is the text `None`."""
    block, blocks, stated = (int(labels[key]) if labels.get(key, "").isdigit() else None for key in ("block_size", "num_gpu_blocks", "kv_cache_size_tokens"))
    if block is not None:
        yield "kv_block_size_tokens", block
    if stated is not None:
        yield "kv_cache_tokens", stated
    elif block is not None and blocks is not None:
        yield "kv_cache_tokens", blocks * block


class MetricsScraper:
    """Reads one server's `/metrics` again and again. Not thread-safe; one scraper a thread."""

    def __init__(self, target: SampleTarget, timeout_s: float) -> None:
        assert target.metrics_url is not None
        url = urlsplit(target.metrics_url)
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        self._connect: Callable[[], http.client.HTTPConnection] = lambda: kind(url.hostname or "", url.port, timeout=timeout_s)
        self._connection: http.client.HTTPConnection | None = None
        self._path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        if url.scheme == UNIX_SCHEME:
            socket_path, self._path = split_unix_url(target.metrics_url)
            self._connect = lambda: UnixConnection(socket_path, timeout=timeout_s)
        self._headers = {"Accept": "text/plain;version=0.0.4", "User-Agent": "perfbench"}
        key = os.environ.get(target.api_key_env) if target.api_key_env else None
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._labels = target.labels()
        self._constants: dict[str, tuple[float, str]] = {}

    def read(self) -> list[Sample]:
        """One scrape; its time is the midpoint between request and end of answer. Raises OSError, HTTPException or ValueError."""
        before = time.monotonic_ns()
        text = self._get()
        t_ns = (before + time.monotonic_ns()) // 2
        found = readings(parse_metrics(text))
        if not found:
            raise ValueError("it answers, but names no vLLM metric")
        if all(found.get(name) == self._constants.get(name) for name in _CONSTANTS):
            found = {name: reading for name, reading in found.items() if name not in _CONSTANTS}
        self._constants.update({name: found[name] for name in _CONSTANTS if name in found})
        return [Sample(t_ns=t_ns, source="server", name=name, value=value, unit=unit, labels=self._labels) for name, (value, unit) in found.items()]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _get(self) -> str:
        reused = self._connection is not None
        try:
            return self._ask()
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            self.close()
            if not reused:
                raise
            return self._ask()  # uvicorn closes a connection that was idle for 5 s; that is no failure
        except BaseException:
            self.close()
            raise

    def _ask(self) -> str:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.request("GET", self._path, headers=self._headers)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise ValueError(f"it answers with status {response.status}")
        return body.decode("utf-8", "replace")
