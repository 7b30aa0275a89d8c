"""How a trial is dealt out: nothing twice, nothing left out, whatever the numbers; and what the options of scale-out may be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.errors import InputError
from perfbench.load.cluster import Piece, clock_id, decode, encode, piece_of
from perfbench.load.parquet import on_other_clock
from perfbench.load.scale import Scale, make_scale, merged, share, split_address, worker_spec, workers_of
from perfbench.load.trial import TrialSpec, WorkerFiles
from perfbench.records import Record, TrialOutcome, WorkerOutcome


def spec(workers: int, **changes: Any) -> TrialSpec:
    values: dict[str, Any] = {
        "trial": "t", "variant": "v", "url": "http://h", "path": "/v1/completions", "api_key_env": None, "bodies_path": "b", "arrival": "closed",
        "concurrency": None, "schedule_path": None, "warmup_s": 0.0, "duration_s": 1.0, "drain_s": 1.0, "max_in_flight": 100, "request_timeout_s": 1.0,
        "keep_text": False, "records_path": "0.parquet", "spool_path": "0.spool",
        "further": [WorkerFiles(spool_path=f"{number}.spool", records_path=f"{number}.parquet") for number in range(1, workers)],
    }  # fmt: skip
    return TrialSpec(**(values | changes))


@given(total=st.integers(0, 10_000), workers=st.integers(1, 64))
def test_shares_are_as_even_as_whole_numbers_go(total: int, workers: int) -> None:
    shares = [share(total, worker, workers) for worker in range(workers)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1
    assert shares == [len(range(total)[worker::workers]) for worker in range(workers)]


@given(streams=st.integers(1, 300), requests=st.integers(1, 3_000), in_flight=st.integers(1, 500), wanted=st.integers(1, 16))
def test_parts_of_a_closed_trial_add_up_and_none_is_idle(streams: int, requests: int, in_flight: int, wanted: int) -> None:
    whole = spec(wanted, concurrency=streams, requests=requests, max_in_flight=in_flight, duration_s=None)
    workers = workers_of(whole, wanted)
    parts = [worker_spec(whole, worker, workers) for worker in range(workers)]
    assert (sum(part.concurrency for part in parts), sum(part.requests for part in parts)) == (streams, requests)
    assert sum(part.max_in_flight for part in parts) == in_flight
    assert all(part.concurrency >= 1 and part.requests >= 1 and part.max_in_flight >= 1 for part in parts)
    assert [(part.worker, part.workers, part.spool_path) for part in parts] == [(worker, workers, f"{worker}.spool") for worker in range(workers)]


def outcome(until_ns: int, **changes: Any) -> TrialOutcome:
    values: dict[str, Any] = {
        "trial": "t", "started_ns": 100, "measure_from_ns": 150, "measure_until_ns": until_ns, "ended_ns": until_ns + 10, "requests_ok": 0,
        "requests_failed": 0, "client_cpu_s": 1.0, "loop_lag_max_s": 0.1, "clock_step_max_s": 0.0, "held_back": 2,
    }  # fmt: skip
    return TrialOutcome(**(values | changes))


def worker(number: int, offset_ns: int) -> WorkerOutcome:
    return WorkerOutcome(
        worker=number, host="h", requests=0, client_cpu_s=None, send_lag_p99_s=None, loop_lag_max_s=None, clock_offset_ns=offset_ns, clock_rtt_ns=1,
        clock_drift_ns=0, shared_folder=True,
    )  # fmt: skip


def test_outcomes_are_brought_to_one_clock_and_the_worst_counts() -> None:
    ahead = outcome(1_900, started_ns=1_100, measure_from_ns=1_150, ended_ns=2_500, client_cpu_s=3.0, stamp="user", loop_lag_max_s=None)
    found = merged([outcome(950), ahead], [worker(0, 0), worker(1, 1_000)])
    assert (found.started_ns, found.measure_from_ns, found.measure_until_ns, found.ended_ns) == (100, 150, 900, 1_500)
    assert (found.client_cpu_s, found.loop_lag_max_s, found.stamp, found.held_back) == (3.0, None, "user", 4)
    assert merged([ahead], [worker(1, 1_000)]).started_ns == 100


def test_a_record_of_another_clock_moves_with_all_its_times() -> None:
    record = Record(
        request_id="r", trial="t", variant="v", worker=1, prompt_id="p", scheduled_ns=5_010, sent_ns=5_020, first_token_ns=5_030, last_token_ns=5_040,
        end_ns=5_050, chunk_ns=[5_030, 5_040], chunk_tokens=None, prompt_tokens=None, output_tokens=None, cached_tokens=None, status="ok", stamp="kernel",
    )  # fmt: skip
    moved = on_other_clock(record, 5_000)
    assert (moved.scheduled_ns, moved.sent_ns, moved.first_token_ns, moved.last_token_ns, moved.end_ns, moved.chunk_ns) == (10, 20, 30, 40, 50, [30, 40])
    assert on_other_clock(record, 0) is record
    unsent = on_other_clock(Record(**{name: getattr(record, name) for name in record.__struct_fields__} | {"sent_ns": None, "first_token_ns": None}), 5_000)
    assert (unsent.sent_ns, unsent.first_token_ns) == (None, None)


def test_a_file_goes_over_in_pieces_that_end_with_an_empty_one(tmp_path) -> None:
    path, content = tmp_path / "spool", bytes(range(256)) * 3_000
    path.write_bytes(content)
    got = b""
    while data := decode(encode(piece_of(path, "spool", len(got)))).data:
        got += data
    assert got == content
    assert decode(encode(piece_of(path, "spool", len(got)))) == Piece("spool", len(content), b"")


def test_two_processes_of_one_machine_read_one_clock() -> None:
    assert clock_id() == clock_id() != ""


@pytest.mark.parametrize(
    ("address", "found"),
    [("10.0.0.5", ("10.0.0.5", 5557)), ("master:7000", ("master", 7000)), ("::1", ("[::1]", 5557)), ("[::1]:99", ("[::1]", 99)), ("*", ("*", 5557))],
)
def test_addresses(address: str, found: tuple[str, int]) -> None:
    assert split_address(address, "--master") == found


@pytest.mark.parametrize("address", ["", ":", "h:", "h:x", "h:0", "h:70000", "http://h", "a b"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(InputError, match=r"--master: expected HOST or HOST:PORT"):
        split_address(address, "--master")


def test_options_make_a_scale() -> None:
    def made(processes: int | None = None, workers: int = 0, listen: str | None = None, page: bool = False) -> Scale:
        return make_scale(processes=processes, workers=workers, listen=listen, page=page)

    assert (made(), made().led) == (Scale(), False)
    assert (made(4).total, made(4).led, made(1).led, made(page=True).led) == (4, True, False, True)
    assert made(workers=2) == Scale(processes=0, workers=2, listen_host="*", listen_port=5557)
    assert made(1, 2, "10.0.0.5:7000") == Scale(processes=1, workers=2, listen_host="10.0.0.5", listen_port=7000)
    for options, said in (({"processes": 0}, "--processes"), ({"workers": -1}, "--workers"), ({"listen": "h"}, "--listen: nobody is waited for")):
        with pytest.raises(InputError, match=said):
            made(**options)
