"""The null server's one answer, and its reading of requests that arrive in pieces or several at once."""

from __future__ import annotations

import json
import socket
import threading

from perfbench.load.null_server import TOKENS, canned_answer, serve

REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\ncontent-length: 4\r\n\r\nbody"


def test_the_answer_is_a_whole_stream_with_usage() -> None:
    head, _, body = canned_answer().partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    events = [line.removeprefix("data: ") for line in body.decode().split("\n\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert sum(bool(chunk["choices"] and chunk["choices"][0]["delta"].get("content")) for chunk in chunks) == TOKENS
    assert chunks[-1]["usage"]["completion_tokens"] == TOKENS


def test_it_answers_each_whole_request_once() -> None:
    """One byte at a time, then two in one piece: three answers on one connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    with socket.create_connection(listener.getsockname()) as client:
        for place in range(len(REQUEST)):
            client.sendall(REQUEST[place : place + 1])
        client.sendall(REQUEST + REQUEST)
        client.settimeout(10)
        received = b""
        while received.count(b"[DONE]\n\n") < 3:
            received += client.recv(1 << 16)
    assert received == canned_answer() * 3
