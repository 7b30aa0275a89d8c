"""The truth server's own capacity: what it says it can do is what it does, so that a search for the capacity can be held against it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from perfbench.load.engine import LoadProcess
from tests.truth.conftest import TruthServer, make_spec, read_records, request_body

SERVICE_MS = {"ttft_ms": 20, "gap_ms": 5, "tokens": 5}  # 40 ms of a slot


@pytest.mark.parametrize("slots", [1, 2])
def test_requests_wait_for_a_slot_in_order(load_process: LoadProcess, capacity_server: Callable[..., TruthServer], tmp_path: Path, slots: int) -> None:
    """Six at once: request k waits for k // slots services of 40 ms before it."""
    server = capacity_server("--slots", str(slots))
    spec = make_spec(tmp_path / "t", server.url, [request_body(**SERVICE_MS)] * 6, offsets_s=[0.0] * 6, duration_s=0.05)
    load_process.run(spec)
    ttft_s = sorted((record.first_token_ns - record.sent_ns) / 1e9 for record in read_records(Path(spec.records_path)))  # type: ignore[operator]
    for number, measured_s in enumerate(ttft_s):
        assert 0.020 + 0.040 * (number // slots) <= measured_s + 0.001 < 0.035 + 0.045 * (number // slots)


def test_a_batch_is_as_fast_for_all_up_to_its_knee_and_slower_in_proportion_beyond(
    load_process: LoadProcess, capacity_server: Callable[..., TruthServer], tmp_path: Path
) -> None:
    """Knee 4: with 2 streams a gap is 10 ms, with 8 it is 20 ms; throughput is 4 / 10 ms tokens/s from the knee on."""
    server = capacity_server("--knee", "4")
    found = {}
    for streams in (2, 8):
        body = request_body(ttft_ms=10, gap_ms=10, tokens=50)
        spec = make_spec(tmp_path / f"{streams}", server.url, [body], concurrency=streams, duration_s=0.3, drain_s=10)
        load_process.run(spec)
        records = read_records(Path(spec.records_path))
        gaps = [(record.last_token_ns - record.first_token_ns) / 1e9 / 49 for record in records]  # type: ignore[operator]
        found[streams] = sorted(gaps)[len(gaps) // 2]
    assert found[2] == pytest.approx(0.010, rel=0.05)
    assert found[8] == pytest.approx(0.020, rel=0.10)
