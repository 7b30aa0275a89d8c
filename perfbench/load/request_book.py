"""Request bytes, made before the window: all but the request id is ready, so that sending costs one concatenation.

Request i of a trial uses body i mod n, the same for every variant: requests of two variants with the same number are a pair.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from perfbench.errors import LoadError
from perfbench.load.address import Address
from perfbench.load.trial import Body


class RequestBook:
    """The requests of one trial, by number."""

    def __init__(self, address: Address, path: str, bodies: list[Body], id_prefix: str, key: str | None) -> None:
        authorization = f"Authorization: Bearer {key}\r\n" if key else ""
        self._head = (
            f"POST {address.path}{path} HTTP/1.1\r\nHost: {address.host_header}\r\n{authorization}"
            "Content-Type: application/json\r\nAccept: text/event-stream, application/json\r\nX-Request-Id: "
        ).encode("ascii")
        self._prompt_ids = [body.prompt_id for body in bodies]
        self._tails = [b"\r\nContent-Length: %d\r\n\r\n%b" % (len(body.body), bytes(body.body)) for body in bodies]
        self._id_prefix = id_prefix

    def request(self, number: int) -> tuple[str, str, bytes]:
        """(request id, prompt id, head and body) of request `number`."""
        body = number % len(self._tails)
        request_id = f"{self._id_prefix}{number}"
        return request_id, self._prompt_ids[body], self._head + request_id.encode("ascii") + self._tails[body]


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
