"""Every kind of failure leaves a record of its kind with what had come so far, and the trial goes on."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from perfbench.errors import LoadError
from perfbench.load.engine import LoadProcess
from tests.truth.conftest import Drive, TruthServer, make_spec, request_body, text_of, when_spooled


@pytest.mark.parametrize(
    ("truth", "error", "message", "chunks", "status"),
    [
        ({"fault": "reset", "at": 2}, "disconnected", "the connection broke before the end of the response: Connection reset by peer", 2, 200),
        ({"fault": "close", "at": 3}, "disconnected", "the server closed the connection before the end of the response", 3, 200),
        ({"fault": "http500"}, "http", "HTTP 500: refused with 500 as asked", 0, 500),
        ({"fault": "http429"}, "http", "HTTP 429: refused with 429 as asked", 0, 429),
        ({"fault": "garbage"}, "protocol", "the answer is no HTTP: Expected HTTP/", 0, None),
        ({"fault": "bad_chunk", "at": 2}, "protocol", "the answer is no HTTP: Invalid character in chunk size", 2, 200),
        ({"fault": "bad_json", "at": 1}, "protocol", "an event is not what the OpenAI API answers with: ", 5, 200),
        ({"fault": "error_event", "at": 2}, "server", "the engine has died", 2, 200),
        ({"fault": "no_done"}, "protocol", "the stream ended with neither a finish_reason nor [DONE]", 5, 200),
    ],
)
def test_a_fault_leaves_its_record_and_the_next_request_is_fine(
    drive: Drive, truth: dict[str, Any], error: str, message: str, chunks: int, status: int | None
) -> None:
    bad, good = request_body(ttft_ms=5, gap_ms=2, tokens=5, **truth), request_body(ttft_ms=5, gap_ms=2, tokens=5)
    driven = drive([bad, good], offsets_s=[0.0, 0.06])
    failed, fine = driven.records
    assert (failed.status, failed.error, failed.http_status, len(failed.chunk_ns)) == ("failed", error, status, chunks)
    assert failed.error_message.startswith(message)
    assert failed.output_text == text_of(chunks)
    assert failed.sent_ns < failed.end_ns
    assert (fine.status, fine.output_text) == ("ok", text_of(5))
    assert (driven.outcome.requests_ok, driven.outcome.requests_failed) == (1, 1)


@pytest.mark.parametrize(("fault", "chunks"), [("hang", 0), ("stall", 2)])
def test_a_request_that_never_ends_times_out(drive: Drive, fault: str, chunks: int) -> None:
    driven = drive([request_body(ttft_ms=5, gap_ms=2, tokens=5, fault=fault, at=2)], offsets_s=[0.0], request_timeout_s=0.2)
    (record,) = driven.records
    assert (record.status, record.error, record.error_message, len(record.chunk_ns)) == ("failed", "timeout", "no end after 0.2 s", chunks)
    assert 0.2 <= (record.end_ns - record.sent_ns) / 1e9 < 1.0


def test_what_is_in_flight_after_the_drain_is_cancelled_not_failed_by_the_server(drive: Drive) -> None:
    driven = drive([request_body(fault="hang")], concurrency=2, duration_s=0.1, drain_s=0.2)
    assert [(record.error, record.error_message) for record in driven.records] == [("cancelled", "still in flight at the end of the drain")] * 2
    assert 0.3 <= (driven.outcome.ended_ns - driven.outcome.started_ns) / 1e9 < 2.0


def test_a_server_that_dies_leaves_connect_records_and_no_flood(truth_server: TruthServer, drive: Drive, tmp_path: Any) -> None:
    bodies = [request_body(ttft_ms=20, gap_ms=1, tokens=2), request_body(ttft_ms=20, gap_ms=30, tokens=50)]
    when_spooled(make_spec(tmp_path / "trial", truth_server.url, bodies), 1_000, truth_server.process.kill)
    driven = drive(bodies, concurrency=2, duration_s=1.5)
    errors = [record.error for record in driven.records]
    assert "disconnected" in errors
    assert 4 <= errors.count("connect") <= 2 * 15  # one each 0.1 s and stream
    refused = next(record for record in driven.records if record.error == "connect")
    assert (refused.sent_ns, refused.error_message, refused.bytes_received) == (None, "no connection: Connection refused", 0)


def test_nobody_listening_is_one_sentence_and_the_process_lives_on(load_process: LoadProcess, truth_server: TruthServer, tmp_path: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spec = make_spec(tmp_path / "none", f"http://127.0.0.1:{port}", [request_body()])
    with pytest.raises(LoadError, match=f"no connection to http://127.0.0.1:{port}: Connection refused; start the server"):
        load_process.run(spec)
    assert not (tmp_path / "none" / "records.spool").exists()
    spec = make_spec(tmp_path / "some", truth_server.url, [request_body(ttft_ms=1, gap_ms=1, tokens=2)], duration_s=0.05)
    assert load_process.run(spec).requests_ok > 1


def test_a_missing_key_is_one_sentence(load_process: LoadProcess, truth_server: TruthServer, tmp_path: Any) -> None:
    with pytest.raises(LoadError, match="PERFBENCH_NO_SUCH_KEY is not set"):
        load_process.run(make_spec(tmp_path / "b", truth_server.url, [request_body()], api_key_env="PERFBENCH_NO_SUCH_KEY"))


def test_a_left_spool_is_not_written_over(load_process: LoadProcess, truth_server: TruthServer, tmp_path: Any) -> None:
    spec = make_spec(tmp_path / "a", truth_server.url, [request_body()])
    (tmp_path / "a" / "records.spool").write_bytes(b"kept")
    with pytest.raises(LoadError, match="requests of a trial that was cut off"):
        load_process.run(spec)
    assert (tmp_path / "a" / "records.spool").read_bytes() == b"kept"
