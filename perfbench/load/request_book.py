"""Request bytes, made before the window: all but the request id is ready, so that sending costs one concatenation.

Request i of a trial uses body i mod n, the same for every variant: requests of two variants with the same number are a pair. The later turns of a
conversation carry answers, so they can only be made when those have been served.
"""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from perfbench.errors import LoadError
from perfbench.load.address import Address
from perfbench.load.trial import Body


class Conversation:
    """Where a conversation stands: what has been said, and what the user says next."""

    __slots__ = ("adapter", "left", "number", "prompt_id", "said", "think_time_ns", "turn")

    def __init__(self, number: int, body: Body) -> None:
        self.number = number
        self.prompt_id = body.prompt_id
        self.adapter = body.adapter
        self.turn = 1
        """Of the request that was made last."""
        self.left = deque(body.turns)
        self.think_time_ns = round(body.think_time_s * 1e9)
        self.said: msgspec.Raw | dict[str, Any] = body.body
        """The body of that request."""

    def go_on(self, answer: str) -> bytes:
        """The body of the next turn: all that was said, the answer, and what the user says now."""
        body = self.said if isinstance(self.said, dict) else msgspec.json.decode(self.said, type=dict[str, Any])
        body["messages"] += [{"role": "assistant", "content": answer}, {"role": "user", "content": self.left.popleft()}]
        self.said = body
        self.turn += 1
        return msgspec.json.encode(body)


class Request(NamedTuple):
    """One request, ready to be sent."""

    request_id: str
    prompt_id: str
    """In a conversation `<id>#<turn>`, turns counted from 1."""
    content: bytes
    """Head and body."""
    adapter: str | None
    conversation: Conversation | None
    """None for a single prompt."""


class RequestBook:
    """The requests of one trial, by number."""

    def __init__(self, address: Address, path: str, bodies: list[Body], id_prefix: str, key: str | None) -> None:
        authorization = f"Authorization: Bearer {key}\r\n" if key else ""
        self._head = (
            f"POST {address.path}{path} HTTP/1.1\r\nHost: {address.host_header}\r\n{authorization}"
            "Content-Type: application/json\r\nAccept: text/event-stream, application/json\r\nX-Request-Id: "
        ).encode("ascii")
        self._bodies = bodies
        self._tails = [_tail(bytes(body.body)) for body in bodies]
        self._id_prefix = id_prefix

    def request(self, number: int) -> Request:
        """Request `number`: a prompt, or the first turn of a conversation."""
        place = number % len(self._tails)
        body = self._bodies[place]
        request_id = f"{self._id_prefix}{number}"
        content = self._head + request_id.encode("ascii") + self._tails[place]
        if not body.turns:
            return Request(request_id, body.prompt_id, content, body.adapter, None)
        return Request(request_id, f"{body.prompt_id}#1", content, body.adapter, Conversation(number, body))

    def next_turn(self, conversation: Conversation, answer: str) -> Request:
        """The turn after the one that was answered with `answer`; its id is `<id of the first turn>.<turn>`."""
        tail = _tail(conversation.go_on(answer))
        request_id = f"{self._id_prefix}{conversation.number}.{conversation.turn}"
        prompt_id = f"{conversation.prompt_id}#{conversation.turn}"
        return Request(request_id, prompt_id, self._head + request_id.encode("ascii") + tail, conversation.adapter, conversation)


def _tail(body: bytes) -> bytes:
    return b"\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def read_bodies(path: str) -> list[Body]:
    """The bodies of a trial in sending order; raises LoadError when there are none."""
    decoder = msgspec.json.Decoder(Body)
    try:
        bodies = [decoder.decode(line) for line in Path(path).read_bytes().split(b"\n") if line]
    except (OSError, msgspec.DecodeError) as error:
        raise LoadError(f"{path} cannot be read as request bodies: {error}; expected one JSON object with prompt_id and body a line") from None
    if not bodies:
        raise LoadError(f"{path} holds no request body; expected at least one line")
    return bodies


def read_key(variable: str | None) -> str | None:
    """The key of the endpoint, or None where the scenario names no variable; raises LoadError when the variable cannot be used."""
    if variable is None:
        return None
    key = os.environ.get(variable, "")
    if not key:
        raise LoadError(f"the environment variable {variable} is not set; it has to hold the endpoint's key")
    if not (key.isascii() and key.isprintable()):
        raise LoadError(f"the environment variable {variable} holds characters that cannot stand in an HTTP header; expected printable ASCII on one line")
    return key
