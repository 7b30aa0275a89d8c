"""The end of a response is found at the same byte however the bytes are split, and body bytes know the read that brought them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfbench.load.framing import ProtocolError, Response, ResponseEnd

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n0\r\n\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
"""The body itself holds `0 CR LF CR LF`, which a look at the last bytes would take for the end."""
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
TRAILER = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 3\r\n\r\n"
AFTER_100 = b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED


@given(st.sampled_from([CHUNKED, SIZED, TRAILER, AFTER_100]), st.sets(st.integers(1, 60), max_size=20))
def test_the_end_is_the_last_byte_and_no_byte_before(raw: bytes, cuts: set[int]) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(raw) - 1), len(raw) - 1, len(raw)]
    end = ResponseEnd()
    for start, stop in itertools.pairwise(edges):
        assert not end.ended
        end.feed(raw[start:stop])
    assert end.ended
    assert (end.status, end.keep_alive) == (200, True)


@pytest.mark.parametrize(
    ("raw", "keep_alive"),
    [
        (SIZED, True),
        (SIZED.replace(b"Content-Length", b"Connection: close\r\nContent-Length"), False),
        (SIZED.replace(b"HTTP/1.1", b"HTTP/1.0"), False),
        (SIZED + b"unasked", False),
    ],
)
def test_whether_the_connection_can_be_used_again(raw: bytes, keep_alive: bool) -> None:
    end = ResponseEnd()
    end.feed(raw)
    assert (end.ended, end.keep_alive) == (True, keep_alive)


def test_a_body_without_length_ends_with_the_connection_and_others_do_not() -> None:
    unframed, sized, empty = ResponseEnd(), ResponseEnd(), ResponseEnd()
    unframed.feed(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nabc")
    sized.feed(SIZED[:-1])
    assert not unframed.ended
    assert unframed.end_of_file()
    assert not sized.end_of_file()
    assert not empty.end_of_file()


@pytest.mark.parametrize("raw", [b"220 smtp\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"])
def test_bytes_that_are_no_http(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        ResponseEnd().feed(raw)


def test_a_body_byte_knows_its_read() -> None:
    reads = [CHUNKED[:50], CHUNKED[50:61], CHUNKED[61:]]
    response = Response(b"".join(reads), map(len, reads))
    assert (response.status, response.body) == (200, b"0\r\n\r\nabc")
    # Read 0 ends after the first chunk's size, read 1 after the `a` of the second chunk.
    assert [response.read_of(count) for count in range(1, 9)] == [1, 1, 1, 1, 1, 1, 2, 2]


def test_what_came_before_the_break_is_kept() -> None:
    raw = CHUNKED[:55] + b"\r\nzz\r\n"
    response = Response(raw, [60, len(raw) - 60])
    assert (response.status, response.body) == (200, b"0\r\n\r\n")
