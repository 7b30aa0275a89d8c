"""Every field of a record against a server whose timings and answers are known, for every way of cutting an answer into pieces."""

from __future__ import annotations

import os
import signal
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

from perfbench.errors import LoadError
from perfbench.load import engine
from perfbench.load.decode import recover_spool
from perfbench.load.engine import LoadProcess
from tests.truth.conftest import Drive, Driven, TruthServer, make_spec, read_records, request_body, text_of, when_spooled

MEDIAN_BOUND_NS = 5_000_000
"""A correct stamp is some 0.02 ms after the server's write on an idle machine; a busy one lets segments wait for milliseconds before its kernel
takes them up. Chunks here are 20 ms apart, so that a stamp of the chunk after is out of bounds; one of a read before is too early at any load."""


def assert_stamps_are_the_servers(driven: Driven) -> None:
    """Chunk by chunk: never before the server's write began, and in the median right after it ended (so a server that was put aside does not count)."""
    after_start_ns, after_end_ns = [], []
    for record in driven.records:
        answer = driven.answers[record.request_id]
        after_start_ns += [ours - theirs for ours, theirs in zip(record.chunk_ns, answer.chunks, strict=True)]
        after_end_ns += [ours - theirs for ours, theirs in zip(record.chunk_ns, answer.written, strict=True)]
    assert min(after_start_ns) > -50_000  # the offset between the two clocks is known to far better than this
    assert statistics.median(after_end_ns) < MEDIAN_BOUND_NS


def test_every_field_of_a_streamed_chat_answer(drive: Drive) -> None:
    driven = drive([request_body(ttft_ms=30, gap_ms=20, tokens=6, prompt_tokens=11, cached_tokens=4)], offsets_s=[0.0])
    (record,) = driven.records
    answer = driven.answers[record.request_id]
    assert record.request_id.startswith("adapter.closed.r0-")
    assert (record.trial, record.variant, record.worker, record.prompt_id) == ("adapter.closed.r0", "adapter", 0, "p0")
    assert (record.status, record.error, record.error_message, record.http_status, record.finish_reason) == ("ok", None, None, 200, "stop")
    assert (record.prompt_tokens, record.output_tokens, record.cached_tokens, record.chunk_tokens) == (11, 6, 4, None)
    assert record.output_text == text_of(6)
    assert (record.first_token_ns, record.last_token_ns) == (record.chunk_ns[0], record.chunk_ns[-1])
    assert record.scheduled_ns == driven.outcome.started_ns
    assert record.scheduled_ns <= record.sent_ns <= answer.received_ns
    assert record.last_token_ns <= record.end_ns
    assert (record.stamp, record.coalesced_reads) == ("kernel", 0)
    assert_stamps_are_the_servers(driven)
    ttft_s = (record.first_token_ns - record.sent_ns) / 1e9
    gaps_s = [(later - earlier) / 1e9 for earlier, later in zip(record.chunk_ns, record.chunk_ns[1:], strict=False)]
    assert ttft_s == pytest.approx(0.030, abs=0.020)
    assert statistics.median(gaps_s) == pytest.approx(0.020, abs=0.005)


@pytest.mark.parametrize("split", ["byte", "half", "utf8", "chunk"])
@pytest.mark.parametrize("eol", ["lf", "crlf"])
def test_events_cut_anywhere_have_the_time_of_their_last_byte(drive: Drive, split: str, eol: str) -> None:
    driven = drive([request_body(ttft_ms=10, gap_ms=20, tokens=4, split=split, eol=eol, split_us=60 if split == "byte" else 3000)], offsets_s=[0.0])
    (record,) = driven.records
    assert (record.status, record.output_text, record.output_tokens) == ("ok", text_of(4), 4)
    assert_stamps_are_the_servers(driven)


def test_several_tokens_in_a_chunk(drive: Drive) -> None:
    (record,) = drive([request_body(ttft_ms=5, gap_ms=5, tokens=10, per_chunk=4, usage_each=1)], offsets_s=[0.0]).records
    assert (len(record.chunk_ns), record.chunk_tokens, record.output_tokens, record.output_text) == (3, [4, 4, 2], 10, text_of(10))


def test_several_events_in_a_segment_are_counted(drive: Drive) -> None:
    driven = drive([request_body(ttft_ms=5, gap_ms=20, tokens=8, events_per_write=4)], offsets_s=[0.0])
    (record,) = driven.records
    assert len(record.chunk_ns) == 8
    assert len(set(record.chunk_ns)) == 2
    assert record.coalesced_reads == 2
    assert_stamps_are_the_servers(driven)


def test_a_role_only_chunk_is_not_a_token_and_the_usage_chunk_does_not_move_the_end(drive: Drive) -> None:
    (record,) = drive([request_body(ttft_ms=60, gap_ms=5, tokens=3, role_ms=0, usage_delay_ms=80)], offsets_s=[0.0]).records
    assert (record.first_token_ns - record.sent_ns) / 1e6 >= 59
    assert (record.last_token_ns - record.first_token_ns) / 1e6 < 50
    assert (record.end_ns - record.last_token_ns) / 1e6 >= 60
    assert len(record.chunk_ns) == 3


def test_reasoning_counts_as_tokens(drive: Drive) -> None:
    (record,) = drive([request_body(ttft_ms=5, gap_ms=2, tokens=5, reasoning=3)], offsets_s=[0.0]).records
    assert (len(record.chunk_ns), record.output_text) == (5, text_of(5, first=3))


def test_no_usage_leaves_tokens_unknown(drive: Drive) -> None:
    (record,) = drive([request_body(ttft_ms=5, gap_ms=2, tokens=3, fault="no_usage")], offsets_s=[0.0]).records
    assert (record.status, record.prompt_tokens, record.output_tokens) == ("ok", None, None)


def test_completions_and_text_left_out(drive: Drive) -> None:
    (record,) = drive([request_body(ttft_ms=5, gap_ms=2, tokens=3)], offsets_s=[0.0], path="/v1/completions", keep_text=False).records
    assert (record.status, len(record.chunk_ns), record.finish_reason, record.output_text) == ("ok", 3, "stop", None)


def test_a_plain_json_answer(drive: Drive) -> None:
    (record,) = drive([request_body(stream=False, ttft_ms=20, gap_ms=5, tokens=5)], offsets_s=[0.0]).records
    assert (record.status, record.output_text, record.output_tokens, record.finish_reason) == ("ok", text_of(5), 5, "stop")
    assert (record.first_token_ns, record.chunk_ns, record.last_token_ns) == (None, [], record.end_ns)
    assert (record.last_token_ns - record.sent_ns) / 1e6 >= 40


@pytest.mark.parametrize("truth", [{"framing": "eof"}, {"close": "header"}, {"close": "idle"}])
def test_a_server_that_closes_is_connected_to_again(drive: Drive, truth: dict[str, Any]) -> None:
    bodies = [request_body(ttft_ms=5, gap_ms=1, tokens=3, **truth)]
    driven = drive(bodies, offsets_s=[0.0, 0.1, 0.2], duration_s=0.3)
    assert [(record.status, record.output_text) for record in driven.records] == [("ok", text_of(3))] * 3
    assert len({answer.connection for answer in driven.answers.values()}) == 3


def test_kept_connections_are_used_again(drive: Drive) -> None:
    driven = drive([request_body(ttft_ms=2, gap_ms=1, tokens=3)], concurrency=3, duration_s=0.3)
    assert driven.outcome.requests_ok == len(driven.records) > 30
    assert len({answer.connection for answer in driven.answers.values()}) == 3


def test_requests_are_paired_by_number_and_ids_are_unique(drive: Drive) -> None:
    driven = drive([request_body(ttft_ms=1, gap_ms=0, tokens=1 + number) for number in range(3)], duration_s=0.1)
    numbers = {int(record.request_id.rpartition("-")[2]): record for record in driven.records}
    assert sorted(numbers) == list(range(len(driven.records)))
    assert all((record.prompt_id, record.output_tokens) == (f"p{number % 3}", 1 + number % 3) for number, record in numbers.items())


def test_a_large_request_is_sent_whole(drive: Drive) -> None:
    body = request_body(ttft_ms=1, gap_ms=1, tokens=2)
    body["messages"][0]["content"] = "ü" * 3_000_000
    (record,) = drive([body], offsets_s=[0.0]).records
    assert (record.status, record.output_text) == ("ok", text_of(2))


def test_kernel_and_clock_are_reported(drive: Drive) -> None:
    outcome = drive([request_body(ttft_ms=2, gap_ms=1, tokens=3)], concurrency=2, warmup_s=0.1, duration_s=0.4).outcome
    assert outcome.stamp == "kernel"
    assert outcome.gc_collections == 0
    assert outcome.measure_from_ns - outcome.started_ns == 100_000_000
    assert outcome.measure_until_ns - outcome.measure_from_ns == 400_000_000
    assert 0 < outcome.client_cpu_s < 0.5
    assert 0 < outcome.loop_lag_max_s < 1
    assert outcome.clock_step_max_s < 0.01


def test_the_key_is_sent_and_never_stored(truth_server: TruthServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server answers with the header that it was sent; neither the record nor a spool that a killed process left may hold it."""
    monkeypatch.setenv("PERFBENCH_TEST_KEY", "sk-very-secret")
    bodies = [request_body(fault="http401")]
    with LoadProcess(tmp_path / "load.log") as load:
        load.run(make_spec(tmp_path / "whole", truth_server.url, bodies, offsets_s=[0.0], api_key_env="PERFBENCH_TEST_KEY"))
        cut = make_spec(tmp_path / "cut", truth_server.url, bodies, offsets_s=[0.0], duration_s=30.0, api_key_env="PERFBENCH_TEST_KEY")
        pid = load.pid
        when_spooled(cut, 100, lambda: os.kill(pid, signal.SIGKILL))
        with pytest.raises(LoadError):
            load.run(cut)
    for record in [*read_records(tmp_path / "whole" / "records.parquet"), *recover_spool(Path(cut.spool_path))]:
        assert record.error_message == "HTTP 401: refused with 401 as asked: Bearer **************"
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"refused with 401" in Path(cut.spool_path).read_bytes()
    assert b"sk-very-secret" not in written


def test_without_kernel_stamps_the_reader_stamps_and_says_so(truth_server: TruthServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the socket option does not exist: the number of an option that no kernel has takes its place."""
    code = "import perfbench.load.process as process, perfbench.load.wire as wire; wire._SO_TIMESTAMPNS = 9999; process.main()"
    monkeypatch.setattr(engine, "_COMMAND", (sys.executable, "-c", code))
    spec = make_spec(tmp_path / "t", truth_server.url, [request_body(ttft_ms=20, gap_ms=20, tokens=5)], concurrency=2)
    with LoadProcess(tmp_path / "load.log") as load:
        outcome = load.run(spec)
    driven = Driven(spec, outcome, read_records(Path(spec.records_path)), truth_server.answers())
    assert outcome.stamp == "user"
    assert outcome.loop_lag_max_s is None
    assert {(record.status, record.stamp) for record in driven.records} == {("ok", "user")}
    assert_stamps_are_the_servers(driven)
