"""Where requests go: a URL taken apart and resolved once, before anything is timed. Proxies are never used.

`http://` and `https://` with a name, an IPv4 address or an IPv6 address in brackets; `unix:///run/vllm.sock` for a Unix socket.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from perfbench.errors import LoadError
from perfbench.unix_http import MAX_PATH_BYTES, UNIX_SCHEME, split_unix_url

_PORTS = {"http": 80, "https": 443}
_PROBE_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Address:
    """A server as a socket wants it, and as HTTP wants it."""

    family: int
    sockaddr: Any
    host_header: str
    path: str
    """The URL's own path, without a slash at its end; request paths are appended to it."""
    tls_name: str | None = None
    """Host name or address that the server's certificate must be for; None without TLS."""


def resolve(url: str) -> Address:
    """Take `url` apart and resolve its host; raises LoadError for what cannot be driven."""
    if not url.isascii() or not url.isprintable():
        raise LoadError(f"{url!r} is not a URL of printable ASCII characters; write an international host name in its xn-- form")
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise LoadError(f"{url} is not a URL: {error}; expected something like http://127.0.0.1:8000") from None
    if parts.scheme == UNIX_SCHEME:
        return _unix_address(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise LoadError(f"{url} is not an http or https URL with a host; expected something like http://127.0.0.1:8000, or unix:///run/vllm.sock")
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise LoadError(f"the host of {url} cannot be resolved: {error.strerror or error}; check the name or give an address") from None
    family, sockaddr = _first_that_answers([(family, sockaddr) for family, _, _, _, sockaddr in found])
    return Address(
        family=family, sockaddr=sockaddr, host_header=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/"),
        tls_name=parts.hostname if parts.scheme == "https" else None,
    )


def _unix_address(url: str) -> Address:
    path, request_path = split_unix_url(url)
    if len(path.encode()) > MAX_PATH_BYTES:
        raise LoadError(f"{url}: a Unix socket's path has at most {MAX_PATH_BYTES} bytes; use a shorter one")
    return Address(family=socket.AF_UNIX, sockaddr=path, host_header="localhost", path=request_path.rstrip("/"))


def _first_that_answers(candidates: list[tuple[int, Any]]) -> tuple[int, Any]:
    """`localhost` is ::1 and 127.0.0.1, and most servers listen on one of them. Where none answers, the first; connecting to it says why."""
    if len(candidates) > 1:
        for family, sockaddr in candidates:
            with socket.socket(family, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
                probe.settimeout(_PROBE_TIMEOUT_S)
                probe.connect(sockaddr)
                return family, sockaddr
    return candidates[0]
