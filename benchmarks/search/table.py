"""results.json: every measurement of `python -m benchmarks.search --save` as it was made; RESULTS.md: the latest of each case."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.search.found import Found

_FOLDER = Path(__file__).parent
_HEAD = """# The highest rate at the SLO: search, grid, sweep, guidellm, and the truth

Made by `python -m benchmarks.search --save` from results.json, the latest measurement of each server; what the methods are stands in
benchmarks/search/__main__.py. `single`: one slot of 4 ms. `slots`: eight slots of 20 ms. `batch`: 40 ms for up to 8 requests at once, in proportion more
beyond. Limits on p95 TTFT: 20, 40 and 82.5 ms (between what 16 and 17 at once take).

`cores in use` are of the whole machine: where others worked on it, servers stood still at times. `single` with one stream does its capacity already, so that
sweeps begin there and have no answer. guidellm runs ten processes, which these two cores are few for; the times that it reports are above the limits at nearly
every rate, so its answer is none or far too low.
"""


class Entry(msgspec.Struct, frozen=True):
    """One method against one server."""

    measured_at: str
    machine: str
    found: Found


def show(found: Sequence[Found]) -> str:
    """As Markdown, which reads well in a terminal too."""
    rows = ["| server | method | rate/s | truth/s | off | server-s | wall, s | windows | cores in use |", "|---|---|---|---|---|---|---|---|---|"]
    return "\n".join([*rows, *(_row(one) for one in found), *(f"\n{one.case}, {one.seen}." for one in found if one.seen)])


def _row(one: Found) -> str:
    rate, off = (f"{one.rate_per_s:.1f}", f"{one.off:+.1%}") if one.rate_per_s and one.off is not None else ("none", "-")
    truth, wall, cores = (f"{value:.1f}" if value is not None else "-" for value in (one.truth_per_s, one.wall_s, one.machine_cores))
    return f"| {one.case} | {one.method} | {rate} | {truth} | {off} | {one.server_s:.1f} | {wall} | {one.trials} | {cores} |"


def save(found: Sequence[Found]) -> None:
    """Append to results.json and make RESULTS.md anew."""
    path = _FOLDER / "results.json"
    old = msgspec.json.decode(path.read_bytes(), type=list[Entry]) if path.is_file() else []
    at = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    machine = f"{os.cpu_count()} cores, {platform.platform(terse=True)}, Python {platform.python_version()}"
    entries = [*old, *(Entry(at, machine, one) for one in found)]
    path.write_bytes(b"[\n" + b",\n".join(msgspec.json.encode(entry) for entry in entries) + b"\n]\n")
    write_tables(entries)


def write_tables(entries: Sequence[Entry]) -> None:
    """RESULTS.md, of the latest measurement of each method and server."""
    latest = {(entry.found.case, entry.found.method): entry for entry in entries}
    parts = [_HEAD]
    for case in dict.fromkeys(entry.found.case for entry in entries):
        mine = [entry for (name, _), entry in latest.items() if name == case]
        parts.append(f"## {case}\n\n{mine[-1].measured_at}; {mine[-1].machine}.\n\n{show([entry.found for entry in mine])}\n")
    (_FOLDER / "RESULTS.md").write_text("\n".join(parts))
