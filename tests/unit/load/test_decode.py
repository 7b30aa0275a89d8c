"""Decoding: every chunking of the same answer gives the same record, and each chunk has the time of its last byte."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfbench.load.decode import decode, events, recover_spool
from perfbench.load.exchange import RawExchange
from perfbench.spool import Spool

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return b"data: " + json.dumps({"id": "x", "choices": choices, **more}, ensure_ascii=False).encode() + b"\n\n"


ROLE = event({"role": "assistant", "content": ""})
USAGE = event(usage={"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}})
DONE = b"data: [DONE]\n\n"
ANSWER = [ROLE, event({"content": "Grüße"}), event({"content": " 🙂"}), event({"content": "!"}), event({"content": ""}, "stop"), USAGE, DONE]


def chunk(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


def exchange(reads: list[bytes], **changes: Any) -> RawExchange:
    """Read k arrived at 100 * (k + 1) ns."""
    stamps = array("q", [100 * (number + 1) for number in range(len(reads))])
    values: dict[str, Any] = {
        "request_id": "t-0", "trial": "t", "variant": "v", "worker": 0, "prompt_id": "p", "scheduled_ns": 1, "sent_ns": 2, "end_ns": 9999, "error": None,
        "error_message": None, "kernel_stamps": True, "keep_text": True, "read_ns": stamps.tobytes(),
        "read_lengths": array("q", map(len, reads)).tobytes(), "raw": b"".join(reads),
    }
    return RawExchange(**(values | changes))


def whole(parts: list[bytes]) -> list[bytes]:
    """One read for the head, one for each event, one for the end."""
    return [HEAD, *(chunk(part) for part in parts), b"0\r\n\r\n"]


def test_every_field_of_a_streamed_answer() -> None:
    record = decode(exchange(whole(ANSWER)))
    assert record.chunk_ns == [300, 400, 500]  # read 0 is the head, read 1 the role
    assert (record.first_token_ns, record.last_token_ns, record.end_ns) == (300, 500, 9999)
    assert (record.prompt_tokens, record.output_tokens, record.cached_tokens) == (5, 3, 2)
    assert (record.status, record.error, record.http_status, record.finish_reason) == ("ok", None, 200, "stop")
    assert record.output_text == "Grüße 🙂!"
    assert record.chunk_tokens is None
    assert record.coalesced_reads == 0
    assert record.bytes_received == sum(map(len, whole(ANSWER)))
    assert (record.stamp, record.scheduled_ns, record.sent_ns, record.prompt_id) == ("kernel", 1, 2, "p")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_split_into_reads_and_chunks_gives_the_time_of_the_last_byte(data: st.DataObject) -> None:
    body = b"".join(ANSWER)
    body_cuts = sorted(data.draw(st.sets(st.integers(1, len(body) - 1), max_size=12)))
    framed = chunk(*(body[start:end] for start, end in zip([0, *body_cuts], [*body_cuts, len(body)], strict=True)))
    raw = HEAD + framed + b"0\r\n\r\n"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=40)))
    reads = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    record = decode(exchange(reads))

    ends, at = [], 0  # where in `raw` the last byte of each event lies
    positions = [index for index, is_body in enumerate(_is_body(raw)) if is_body]
    for part in ANSWER:
        at += len(part)
        ends.append(positions[at - 1])
    read_of = [sum(cut <= end for cut in cuts) for end in ends]
    assert record.chunk_ns == [100 * (read + 1) for read in read_of[1:4]]
    assert record.coalesced_reads == len({read for read in read_of[1:4] if read_of[1:4].count(read) > 1})
    assert (record.output_text, record.output_tokens, record.status) == ("Grüße 🙂!", 3, "ok")


def _is_body(raw: bytes) -> list[bool]:
    """Which bytes of a chunked response are body, by a plain walk over the chunks."""
    at = raw.index(b"\r\n\r\n") + 4
    flags = [False] * len(raw)
    while True:
        line_end = raw.index(b"\r\n", at)
        size = int(raw[at:line_end], 16)
        if size == 0:
            return flags
        start = line_end + 2
        flags[start : start + size] = [True] * size
        at = start + size + 2


def test_one_byte_a_read() -> None:
    raw = b"".join(whole(ANSWER))
    record = decode(exchange([bytes([byte]) for byte in raw]))
    first_event_end = len(HEAD) + len(chunk(ROLE)) + len(chunk(ANSWER[1])) - 2  # its blank line; CR LF of the chunk follow
    assert record.first_token_ns == 100 * first_event_end
    assert record.output_text == "Grüße 🙂!"
    assert record.coalesced_reads == 0


def test_several_events_in_one_read_share_its_stamp_and_are_counted() -> None:
    reads = [HEAD + chunk(ROLE), chunk(*ANSWER[1:3]), chunk(*ANSWER[3:]) + b"0\r\n\r\n"]
    record = decode(exchange(reads))
    assert record.chunk_ns == [200, 200, 300]
    assert record.coalesced_reads == 1


def test_reasoning_is_a_token_but_no_text() -> None:
    for name in ("reasoning", "reasoning_content"):
        record = decode(exchange(whole([ROLE, event({name: "hm", "content": None}), event({"content": "a"}, "stop"), DONE])))
        assert (record.chunk_ns, record.output_text) == ([300, 400], "a")


def test_no_usage_is_not_zero_tokens() -> None:
    record = decode(exchange(whole([*ANSWER[:5], DONE])))
    assert (record.status, record.prompt_tokens, record.output_tokens, record.cached_tokens) == ("ok", None, None, None)


def test_chunk_tokens_by_continuous_usage() -> None:
    parts = [
        event({"role": "assistant", "content": ""}, usage={"prompt_tokens": 5, "completion_tokens": 0}),
        event({"content": "ab"}, usage={"prompt_tokens": 5, "completion_tokens": 2}),
        event({"content": "c"}, "stop", usage={"prompt_tokens": 5, "completion_tokens": 3}), DONE,
    ]  # fmt: skip
    assert decode(exchange(whole(parts))).chunk_tokens == [2, 1]


def test_chunk_tokens_by_token_ids() -> None:
    choice = {"index": 0, "delta": {"content": "abc"}, "token_ids": [1, 2, 3], "finish_reason": "stop"}
    part = b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
    assert decode(exchange(whole([ROLE, part, DONE]))).chunk_tokens == [3]


def test_completions_text_and_crlf_line_ends() -> None:
    part = b'data: {"choices": [{"text": "ab", "finish_reason": "length"}]}\r\n\r\n'
    record = decode(exchange(whole([b": ping\r\n\r\n", part, b"data: [DONE]\r\n\r\n"])))
    assert (record.chunk_ns, record.output_text, record.finish_reason) == ([300], "ab", "length")


def test_error_event_inside_a_stream_fails_with_kind_server_and_keeps_what_came() -> None:
    parts = [*ANSWER[:3], b'data: {"error": {"message": "out of\\nblocks", "code": 500}}\n\n', DONE]
    record = decode(exchange(whole(parts)))
    assert (record.status, record.error, record.error_message) == ("failed", "server", "out of blocks")
    assert (record.chunk_ns, record.output_text) == ([300, 400], "Grüße 🙂")


NOT_UTF8 = b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n'


@pytest.mark.parametrize("broken", [b'data: {"choices": [{"delta": \n\n', b'data: {"choices": 3}\n\n', NOT_UTF8])
def test_an_event_that_is_no_answer_is_a_protocol_error(broken: bytes) -> None:
    record = decode(exchange(whole([*ANSWER[:2], broken, *ANSWER[2:]])))
    assert (record.status, record.error) == ("failed", "protocol")
    assert record.chunk_ns == [300, 500, 600]


def test_a_stream_that_just_stops_is_a_protocol_error() -> None:
    record = decode(exchange(whole(ANSWER[:3])))
    assert (record.error, record.error_message) == ("protocol", "the stream ended with neither a finish_reason nor [DONE]")


def test_a_disconnect_keeps_its_kind_and_the_chunks_so_far() -> None:
    reads = [*whole(ANSWER)[:3], chunk(ANSWER[2])[:20]]
    record = decode(exchange(reads, error="disconnected", error_message="gone"))
    assert (record.status, record.error, record.error_message) == ("failed", "disconnected", "gone")
    assert (record.chunk_ns, record.output_text, record.bytes_received) == ([300], "Grüße", sum(map(len, reads)))


def test_a_request_that_was_never_answered() -> None:
    record = decode(exchange([], sent_ns=None, error="connect", error_message="refused", kernel_stamps=False))
    assert (record.status, record.error, record.first_token_ns, record.last_token_ns, record.sent_ns) == ("failed", "connect", None, None, None)
    assert (record.chunk_ns, record.http_status, record.bytes_received, record.stamp) == ([], None, 0, "user")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "no such model", "code": 404}}', "HTTP 404: no such model"),
        (b'{"object": "error", "message": "no such model"}', "HTTP 404: no such model"),
        (b'{"detail": "Not Found"}', "HTTP 404: Not Found"),
        (b"<html>gone</html>", "HTTP 404: <html>gone</html>"),
        (b"", "HTTP 404: "),
        (b"x" * 3000, "HTTP 404: " + "x" * 499 + "…"),
    ],
)
def test_other_status_keeps_the_shortened_body(body: bytes, message: str) -> None:
    head = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(body)
    record = decode(exchange([head, body] if body else [head]))
    assert (record.status, record.error, record.http_status, record.error_message) == ("failed", "http", 404, message)


def test_plain_json_answer_has_an_end_but_no_first_token() -> None:
    body = json.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    record = decode(exchange([head, body[:9], body[9:]]))
    assert (record.status, record.output_text, record.output_tokens, record.finish_reason) == ("ok", "hi", 1, "stop")
    assert (record.first_token_ns, record.last_token_ns, record.chunk_ns, record.coalesced_reads) == (None, 300, [], 0)


def test_text_is_left_out_unless_wanted() -> None:
    assert decode(exchange(whole(ANSWER), keep_text=False)).output_text is None


def test_events_join_data_lines_and_drop_comments() -> None:
    body = b": ping\n\nevent: x\ndata: a\ndata:b\n\nid: 3\n\ndata: tail"
    assert list(events(body, whole=False)) == [(b"a\nb", 33)]
    assert list(events(body, whole=True)) == [(b"a\nb", 33), (b"tail", len(body))]


@settings(max_examples=300)
@given(st.lists(st.text(st.sampled_from("ab:é "), max_size=6), max_size=6), st.sampled_from(["\n", "\r\n", "\r"]))
def test_events_give_back_what_was_written(lines: list[str], end: str) -> None:
    body = "".join(f"data: {line}{end}{end}" for line in lines).encode()
    found = list(events(body, whole=False))
    assert [data.decode() for data, _ in found] == lines
    assert all(body[:offset].endswith(end.encode() * 2) for _, offset in found)


def test_recover_spool_gives_every_whole_exchange(tmp_path: Path) -> None:
    path = tmp_path / "t.spool"
    spool: Spool[RawExchange] = Spool(path)
    for number in range(3):
        spool.append(exchange(whole(ANSWER), request_id=f"t-{number}"))
    spool.close()
    path.write_bytes(path.read_bytes()[:-10])
    assert [record.request_id for record in recover_spool(path)] == ["t-0", "t-1"]
    assert recover_spool(path)[0] == decode(exchange(whole(ANSWER), request_id="t-0"))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_whatever_break_the_decoder(noise: bytes, after_head: bool) -> None:
    reads = [HEAD, chunk(noise), b"0\r\n\r\n"] if after_head and noise else [noise] if noise else []
    assert msgspec.json.encode(decode(exchange(reads)))
